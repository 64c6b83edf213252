"""Arguments as people type them, before click sees them: RELION's names, `_` for `-`."""

from __future__ import annotations

from collections.abc import Sequence

from tiltwise.config import Options


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
    without_effect = {"--pipeline-control": 1, **model.ignored_flags}
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
