"""The programs that can be imported, and which one a file or folder is from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tiltwise.errors import FormatError
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


def choose(options: ImportOptions) -> Program:
    """Program of `--from`, or the one that recognises `--i`.

    Raises
    ------
    FormatError
        if the path does not exist, or no program recognises it.
    """
    if not options.input.exists():
        raise FormatError("there is no such file or folder", where=f"--i {options.input}", fix="check the path")
    if options.source != "auto":
        return next(program for program in PROGRAMS if program.source == options.source)
    for program in PROGRAMS:
        if program.recognises(options):
            return program
    raise FormatError(
        "the program that wrote this is not recognised",
        where=f"--i {options.input}",
        expected="; ".join(program.title for program in PROGRAMS),
        fix="name the program: --from " + "|".join(program.source for program in PROGRAMS),
    )
