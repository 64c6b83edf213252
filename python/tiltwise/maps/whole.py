"""The whole particle that a part belongs to: its pose stays in the particle file while the part is refined.

Coordinates of a set that was refined with --focus are those of a part.  The rest of the particle does not move with it,
so what is taken off its images is made from, and put at, the poses of the consensus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.io.optimisation_set import has_table, table_of
from tiltwise.io.star import StarBlock, read_star
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import pixel_sizes, poses_of

POSITION_LABELS = ("tiltwiseWholeX", "tiltwiseWholeY", "tiltwiseWholeZ")
"""Position of the particle: 0-based from the corner of the tomogram, unbinned pixels."""
ANGLE_LABELS = ("tiltwiseWholeRot", "tiltwiseWholeTilt", "tiltwiseWholePsi")
"""Its orientation in the tomogram: ZYZ angles in degrees."""
PART_LABELS = ("tiltwisePartX", "tiltwisePartY", "tiltwisePartZ")
"""Centre of the part in the box of the particle, from the middle of that box, in Å."""
LABELS = (*POSITION_LABELS, *ANGLE_LABELS, *PART_LABELS)


@dataclass(frozen=True, slots=True)
class Whole:
    """Poses of whole particles, and where in them their parts are."""

    position_px: NDArray[np.float64]
    """(P, 3) 0-based from the corner, unbinned pixels"""
    angles_deg: NDArray[np.float64]
    """(P, 3) ZYZ angles, reference to tomogram"""
    part_angstrom: NDArray[np.float64]
    """(3,) x, y, z of the centre of the box that coordinates belong to, from that of the particle's box"""
    known: bool
    """whether the file has them: its coordinates are those of parts"""

    @classmethod
    def of(cls, optset: OptimisationSet) -> Whole:
        """As the particle file says; where it says nothing its coordinates are those of whole particles.

        Raises
        ------
        DataError
            if only some of the columns are there, or particles are centred on different parts.
        """
        block = _table(optset)
        there = [label for label in LABELS if block is not None and label in block]
        if block is None or not there:
            rotation, position = poses_of(optset)
            return cls(position / pixel_sizes(optset)[:, None], matrix_to_euler(rotation), np.zeros(3), False)
        where = optset.paths.get("particles")
        if len(there) < len(LABELS):
            raise DataError(
                "it is not known what the particles are parts of",
                where=where,
                expected=", ".join(LABELS),
                found=", ".join(there),
                fix="use the particles of the refinement with --focus, or those of the consensus before it",
            )
        position, angles, part = (
            np.stack([block.floats(label) for label in labels], axis=1)
            for labels in (POSITION_LABELS, ANGLE_LABELS, PART_LABELS)
        )
        return cls(position, angles, _one_part(part, where), True)

    def refuse_elsewhere(self, optset: OptimisationSet, most_angstrom: float) -> None:
        """Raises DataError if most particles are farther than `most_angstrom` from where their part would be."""
        if not self.known or not len(self.position_px):
            return
        _, found = poses_of(optset)
        expected = (
            self.position_px * pixel_sizes(optset)[:, None] + euler_to_matrix(self.angles_deg) @ self.part_angstrom
        )
        distance = float(np.median(np.linalg.norm(found - expected, axis=1)))
        if distance > most_angstrom:
            raise DataError(
                "particles are not where the whole particles have their parts",
                where=optset.paths.get("particles"),
                expected=f"coordinates within {most_angstrom:.0f} Å of those that {POSITION_LABELS[0]} and so on give",
                found=f"a median distance of {distance:.0f} Å",
                fix=f"use the set of the consensus; remove the columns {LABELS[0]} to {LABELS[-1]} if coordinates are "
                "those of whole particles again",
            )

    def placed(self, optset: OptimisationSet) -> OptimisationSet:
        """The set at the poses of the whole particles; as it is where these are its own."""
        if not self.known:
            return optset
        particles = optset.particles
        zero = np.zeros_like(particles.origin_angstrom)
        particles = replace(
            particles,
            coordinate_px=self.position_px,
            origin_angstrom=zero,
            angles_deg=self.angles_deg,
            subtomogram_angles_deg=zero,
        )
        return replace(optset, particles=particles)

    def columns(self, offset_angstrom: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        """Columns (P,) of a set that is moved to parts at `offset_angstrom` (3,) from its present coordinates."""
        part = np.broadcast_to(self.part_angstrom + offset_angstrom, self.position_px.shape)
        return dict(zip(LABELS, np.concatenate([self.position_px, self.angles_deg, part], axis=1).T, strict=True))


def _table(optset: OptimisationSet) -> StarBlock | None:
    """Rows of the particle file; None if particles were not read from one."""
    return table_of(optset) if has_table(optset) else None


def part_of(path: Path) -> NDArray[np.float64]:
    """(3,) x, y, z in Å of the centre of a part in the box of its particle, as a particle file says.

    Raises
    ------
    FormatError, DataError
        if the file cannot be read, is not one of parts, or one of several.
    """
    for block in read_star(path):
        if all(label in block for label in PART_LABELS) and len(block):
            return _one_part(np.stack([block.floats(label) for label in PART_LABELS], axis=1), str(path))
    raise DataError(
        "these are not parts of particles",
        where=str(path),
        expected=f"particles with {', '.join(PART_LABELS)}",
        found="none",
        fix="give the folder of a refinement with --focus",
    )


def _one_part(part: NDArray[np.float64], where: str | None) -> NDArray[np.float64]:
    """The row that all of (P, 3) are."""
    if np.ptp(part, axis=0).max(initial=0.0) > 1e-3:
        raise DataError(
            "particles are centred on different parts",
            where=where,
            expected=f"one value of each of {', '.join(PART_LABELS)}",
            found=f"{len(np.unique(part.round(3), axis=0))} parts in one set",
            fix="work on each part by itself, or on the set of the consensus",
        )
    return np.asarray(part[0] if len(part) else np.zeros(3))
