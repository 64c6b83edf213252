"""Particle trajectories, `motion.star`: displacement of every particle in every tilt."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.io.particles import ORIGIN_LABELS
from tiltwise.io.star import StarBlock, StarDocument, read_star, write_star
from tiltwise.model import Particles, TiltSeries


def read_trajectories(
    path: str, particles: Particles, series: Mapping[str, TiltSeries]
) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    """Displacements `(F, 3)` in Å along tomogram axes by particle name, tilt row order; and notes.

    Trajectories of particles that are not in the set are ignored.

    Raises
    ------
    FormatError
        if the file or a value cannot be read.
    DataError
        if a particle has no trajectory, or one with the wrong number of tilts.
    """
    document = read_star(path)
    blocks = {block.name: block for block in document if block.name != "general"}
    notes: tuple[str, ...] = ()
    if particles.name and particles.name[0] not in blocks and "0" in blocks:
        # Old files number their blocks and follow the order of the particles.
        notes = (f"{path}: trajectories are numbered, not named; matched in the order of the particles",)
        blocks = {name: blocks[str(i)] for i, name in enumerate(particles.name) if str(i) in blocks}
    result = {}
    for name, tomogram in zip(particles.name, particles.tomogram, strict=True):
        if name not in blocks:
            missing = [one for one in particles.name if one not in blocks]
            raise DataError(
                "particles have no trajectory",
                where=path,
                expected=f"a block data_{name}",
                found=f"none for {len(missing)} of {len(particles)} particles, first {', '.join(missing[:5])}",
                fix="use the motion.star that was written with these particles, or none",
            )
        block = blocks[name]
        if len(block) != series[tomogram].n_tilts:
            raise DataError(
                "a trajectory does not fit its tilt series",
                where=block.where(),
                expected=f"{series[tomogram].n_tilts} rows, one per tilt of {tomogram}",
                found=f"{len(block)} rows",
                fix="give the motion that belongs to this set, or take the file out of the optimisation set",
            )
        result[name] = np.stack([block.floats(label) for label in ORIGIN_LABELS], axis=1)
    return result, notes


def write_trajectories(path: str | os.PathLike[str], trajectories: Mapping[str, NDArray[np.float64]]) -> None:
    """Write `motion.star`: displacements `(F, 3)` in Å along tomogram axes by particle name, tilt row order.

    Raises
    ------
    DataError
        if a displacement is NaN or infinite.
    OutputError
        if the file cannot be written.
    """
    general = StarBlock("general", "list", {})
    general.set_integers("rlnParticleNumber", [len(trajectories)])
    blocks = [general]
    for name, displacement in trajectories.items():
        block = StarBlock(name, "loop", {})
        for axis, label in enumerate(ORIGIN_LABELS):
            block.set_floats(label, displacement[:, axis])
        blocks.append(block)
    write_star(path, StarDocument(blocks))
