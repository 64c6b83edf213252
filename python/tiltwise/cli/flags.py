"""Arguments as people type them, before click sees them: RELION's names, `_` for `-`."""

from __future__ import annotations

from collections.abc import Sequence

from tiltwise.config import Options

EXTERNAL_FLAGS = dict.fromkeys(
    ("--j", "--in-movies", "--in-mics", "--in-parts", "--in-coords", "--in-3dref", "--in-mask"), 1
)
"""What RELION's External jobs add, and their number of values."""


def translate(arguments: Sequence[str], model: type[Options]) -> tuple[list[str], list[str]]:
    """Replace every alias by the canonical flag and take out flags that have no effect here.

    Returns the arguments for click and the flags taken out, as typed.
    """
    canonical = {}
    for spec in model.specs():
        for flag in spec.flags:
            canonical[flag] = spec.flag
            if spec.kind is bool:
                canonical["--no-" + flag[2:]] = "--no-" + spec.flag[2:]
    # RELION passes the job folder once more to whatever has `relion_` in its command line.
    # External jobs always get --j, and the inputs of the form whether a command has a use for them or not.
    without_effect = {"--pipeline-control": 1, **EXTERNAL_FLAGS, **model.ignored_flags}
    without_effect = {flag: values for flag, values in without_effect.items() if flag not in canonical}
    kept: list[str] = []
    ignored: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            kept += [argument, *remaining]
        elif not argument.startswith("--"):
            kept.append(argument)
        else:
            typed, equals, value = argument.partition("=")
            flag = typed.replace("_", "-")
            if flag in without_effect:
                ignored.append(typed)
                if without_effect[flag] and not equals:
                    next(remaining, None)
            else:
                kept.append(canonical.get(flag, flag) + equals + value)
    return kept, [flag for flag in ignored if flag.replace("_", "-") != "--pipeline-control"]
