"""The programs that can be imported, and which one a file or folder is from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tiltwise.errors import ConfigError, FormatError
from tiltwise.interchange import aretomo, imod, particle_lists, relion, warp
from tiltwise.interchange.drafts import Imported
from tiltwise.interchange.options import ImportOptions


@dataclass(frozen=True, slots=True)
class Program:
    """One way in: `recognises` tells whether the input is of this program, `read` makes the set."""

    source: str
    title: str
    recognises: Callable[[ImportOptions], bool]
    read: Callable[[ImportOptions], Imported]


PROGRAMS = (
    Program(
        "particles",
        "particles of Dynamo (.tbl), STOPGAP (.star), AV3 (.em), IMOD (.mod) or CSV, with --t tomograms.star",
        particle_lists.recognises,
        particle_lists.read,
    ),
    Program(
        "relion5",
        "RELION-5 (optimisation set, tomograms.star with one table per tilt series)",
        lambda options: relion.recognises(options, "relion5"),
        lambda options: relion.read(options, "relion5"),
    ),
    Program(
        "relion4",
        "RELION-4 (optimisation set, tomograms.star with embedded tables)",
        lambda options: relion.recognises(options, "relion4"),
        lambda options: relion.read(options, "relion4"),
    ),
    Program("aretomo", "AreTomo (NAME.aln, or a folder of them)", aretomo.recognises, aretomo.read),
    Program("imod", "IMOD (folder with NAME.xf and NAME.tlt, or folders of them)", imod.recognises, imod.read),
    Program("warp", "Warp or M (tilt series .xml or .tomostar, or a folder of them)", warp.recognises, warp.read),
)
"""In the order in which they are tried."""

_ALIGNMENTS = ("imod", "aretomo")
_RELION = ("relion4", "relion5")
_FOREIGN = (*_ALIGNMENTS, "warp", "particles")
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "mdoc": _ALIGNMENTS,
    "order_list": _ALIGNMENTS,
    "dose_list": _ALIGNMENTS,
    "dose_per_view": _ALIGNMENTS,
    "ctf": _ALIGNMENTS,
    "ctf_angles": _ALIGNMENTS,
    "imod_centre": ("imod",),
    "x_tilt": ("imod",),
    "local_alignment": ("aretomo",),
    "tomogram_names": (*_ALIGNMENTS, "particles"),
    "coordinate_unit": _FOREIGN,
    "coordinate_origin": _FOREIGN,
    "coordinate_first": _FOREIGN,
    "voltage": (*_ALIGNMENTS, "warp"),
    "spherical_aberration": (*_ALIGNMENTS, "warp"),
    "amplitude_contrast": (*_ALIGNMENTS, "warp"),
    "hand": (*_ALIGNMENTS, "warp", *_RELION),
    "tomograms": (*_RELION, "particles"),
    "trajectories": _RELION,
    "odd_centre": _RELION,
}
"""Options that only some programs heed: with the others they are refused, not passed over."""


def choose(options: ImportOptions) -> Program:
    """Program of `--from`, or the one that recognises `--i`.

    Raises
    ------
    FormatError
        if the path does not exist, or no program recognises it.
    ConfigError
        if an option is given that has no effect for this program.
    """
    if not options.input.exists():
        raise FormatError("there is no such file or folder", where=f"--i {options.input}", fix="check the path")
    chosen = [one for one in PROGRAMS if options.source == one.source or options.source == "auto"]
    for program in chosen:
        if options.source != "auto" or program.recognises(options):
            _refuse_without_effect(program, options)
            return program
    raise FormatError(
        "the program that wrote this is not recognised",
        where=f"--i {options.input}",
        expected="; ".join(program.title for program in PROGRAMS),
        fix="name the program: --from " + "|".join(program.source for program in PROGRAMS),
    )


def _refuse_without_effect(program: Program, options: ImportOptions) -> None:
    flags = {spec.name: spec.flag for spec in options.specs()}
    for name in sorted(options.model_fields_set & set(ONLY_FOR)):
        if program.source not in ONLY_FOR[name]:
            raise ConfigError(
                f"{flags[name]} has no effect here",
                where=f"--i {options.input}, read as {program.title}",
                expected=f"--from {' or '.join(ONLY_FOR[name])} with it",
                fix=f"leave out {flags[name]}",
            )
