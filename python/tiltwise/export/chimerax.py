"""Scenes of ChimeraX: the map, and the particles of every tomogram as arrows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError
from tiltwise.export.options import ExportOptions
from tiltwise.files import write_text
from tiltwise.io.mrc import read_map
from tiltwise.io.paths import path_text
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.post.mask import automatic_threshold

ARROW_ANGSTROM = 120.0
"""Length of an arrow along the z axis of a particle."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def chimerax(optset: OptimisationSet, options: ExportOptions, path: Callable[[str], Path]) -> list[str]:
    """`map.cxc` opens the map at a contour; `NAME.cxc` shows the particles of a tomogram.  Returns notes.

    Positions are in Å, the centre of the first voxel of a tomogram at 0, as of a tomogram opened beside them.

    Raises
    ------
    ConfigError
        if names of tomograms differ in ways that file names cannot.
    """
    density = options.map or (Path(optset.paths["half1"]) if "half1" in optset.paths else None)
    notes = []
    if density is None:
        notes.append("the set names no maps and --map was not given: the scenes hold particles only")
    else:
        if options.map is None:
            notes.append(f"--map was not given: map.cxc shows the half map {density}")
        volume, _ = read_map(density)
        contour = automatic_threshold(volume, None).value
        lines = [f'open "{path_text(density, path("map.cxc"))}"', f"volume #1 level {contour:.5g} color #c8c8c8"]
        lines += ["surface dust #1 size 10", "lighting soft", "set bgColor white", "view"]
        write_text(path("map.cxc"), "\n".join(lines) + "\n")
    rotations, positions = poses_of(optset)
    tomogram = np.array(optset.particles.tomogram, dtype=object)
    for number, one in enumerate(optset.series):
        if Path(one.name).name != one.name:
            raise ConfigError("a tilt series has a name that cannot name a file", where=one.name, fix="rename it")
        rows = np.flatnonzero(tomogram == one.name)
        write_text(path(f"{one.name}.bild"), arrows(positions[rows], rotations[rows], COLOURS[number % len(COLOURS)]))
        write_text(path(f"{one.name}.cxc"), f'open "{one.name}.bild"\nset bgColor white\nlighting soft\nview\n')
    return notes


def arrows(positions: NDArray[np.float64], rotations: NDArray[np.float64], colour: str) -> str:
    """BILD text: an arrow along the z axis of every particle; positions `(P, 3)` in Å, rotations `(P, 3, 3)`."""
    lines = [f".color {colour}"]
    for position, rotation in zip(positions, rotations, strict=True):
        tip = position + ARROW_ANGSTROM * rotation[:, 2]
        numbers = " ".join(f"{value:.2f}" for value in (*position, *tip))
        lines.append(f".arrow {numbers} {ARROW_ANGSTROM / 20:g} {ARROW_ANGSTROM / 8:g}")
    return "\n".join(lines) + "\n"
