"""Particles: where the copies of the molecule are, how they are oriented, which half set they belong to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Particles:
    """P particles in the row order of their STAR table.

    Orientation and position follow RELION: `x_tomogram = A_sub @ A_part @ x_reference + position`, with
    `position = coordinate_px - A_sub @ origin_angstrom / pixel_size`; A from ZYZ angles (rot, tilt, psi).
    """

    name: tuple[str, ...]
    tomogram: tuple[str, ...]
    coordinate_px: NDArray[np.float64]
    """(P, 3) stored coordinate as a 0-based position from the corner, unbinned pixels, origin not applied"""
    origin_angstrom: NDArray[np.float64]
    """(P, 3) rlnOriginX/Y/ZAngst, in the subtomogram frame"""
    angles_deg: NDArray[np.float64]
    """(P, 3) rlnAngleRot, Tilt, Psi"""
    subtomogram_angles_deg: NDArray[np.float64]
    """(P, 3) rlnTomoSubtomogramRot, Tilt, Psi"""
    half_set: NDArray[np.int64]
    """(P,) 1 or 2; 0 where the file has none"""
    optics_index: NDArray[np.int64]
    """(P,) index into the list of optics groups"""
    image_files: tuple[str, ...]
    """(P,) absolute paths of extracted images; empty when nothing is extracted"""
    ctf_files: tuple[str, ...]
    """(P,) absolute paths of pseudo-subtomogram weights; empty for 2D stacks or when nothing is extracted"""
    visible: tuple[NDArray[np.bool_], ...]
    """(P,) of (F,): rlnTomoVisibleFrames; empty when the file has none"""
    prior_angles_deg: NDArray[np.float64] | None = None
    """(P, 3) rlnAngleRotPrior, TiltPrior, PsiPrior, NaN where there is none; None when the file has none"""
    source: tuple[str, ...] = ()
    """(P,) name of the particle that each is a symmetry mate of; empty where none is"""

    def __len__(self) -> int:
        return len(self.name)

    @property
    def source_index(self) -> NDArray[np.intp]:
        """(P,) the same number for all symmetry mates of one particle, another for every other particle."""
        if not self.source:
            return np.arange(len(self))
        first: dict[str, int] = {}
        return np.array([first.setdefault(name, row) for row, name in enumerate(self.source)], dtype=np.intp)

    @property
    def has_mates(self) -> bool:
        """Whether some particles are symmetry mates of each other."""
        return len(set(self.source)) < len(self.source)

    def take(self, rows: NDArray[np.integer]) -> Particles:
        """Some of the particles, in the order of `rows`."""

        def pick(values: Any) -> Any:
            if isinstance(values, tuple):
                return tuple(values[row] for row in rows) if values else ()
            return None if values is None else values[rows]

        return Particles(**{column.name: pick(getattr(self, column.name)) for column in fields(self)})
