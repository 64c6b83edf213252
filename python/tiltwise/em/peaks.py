"""Peaks of a posterior on the coarse grid, and what the coarse pass leaves of a particle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.grid import PoseGrid
from tiltwise.geometry.symmetry import distance_to_mates_deg
from tiltwise.kernels.api import F32

MOST_PEAKS = 24
"""A coarse posterior of more peaks than this, or than two for each mate, is searched on the finer grid."""
PEAK_MASS = 0.99
"""Share of the coarse posterior that peaks must hold."""


@dataclass(slots=True)
class CoarseTerms:
    """Scores of one particle in the coarse pass."""

    angles: NDArray[np.float64]
    """(R, 3) grid angles"""
    rotations: NDArray[np.float64]
    """(R, 3, 3)"""
    shifts: NDArray[np.float64]
    """(T, 3) Å"""
    cross: F32
    """(R, T)"""
    quadratic: F32
    """(R,)"""


Peaks = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Rotations (n, 3, 3) and shifts (n, 3) from which climbs start."""


@dataclass(slots=True)
class CoarsePosterior:
    """What the coarse pass leaves of a particle."""

    angles: NDArray[np.float64]
    """(R, 3) grid angles of the significant cells"""
    shifts: NDArray[np.float64]
    """(T, 3) significant shifts"""
    significant: NDArray[np.bool_]
    """(R, T) cells that hold 99.9 % of the posterior"""
    peaks: Peaks | None
    """None if they are too many"""


def find_peaks(
    weights: NDArray[np.float64],
    rotations: NDArray[np.float64],
    shifts: NDArray[np.float64],
    grid: PoseGrid,
    symmetry: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Rotations and shifts of the compact peaks of a posterior (R, T) on the coarse grid; None if they are many.

    A peak is a best cell with its neighbours, up to 1.6 steps of rotation and 1.8 of shift away, and their mates in a
    point group (G, 3, 3): an asymmetric unit cuts peaks at its rim in two.
    """
    left, total, most = weights.copy(), weights.sum(), max(MOST_PEAKS, 2 * len(grid.mates))
    group = np.eye(3)[None] if symmetry is None else symmetry
    found: list[tuple[int, int]] = []
    while left.sum() > (1.0 - PEAK_MASS) * total:
        if len(found) == most:
            return None
        row, column = np.unravel_index(int(np.argmax(left)), left.shape)
        near = distance_to_mates_deg(rotations, rotations[row], group) <= 1.6 * grid.coarse_step_deg
        close = np.linalg.norm(shifts - shifts[column], axis=1) <= 1.8 * grid.shift_step_angstrom
        left[np.ix_(near, close)] = 0.0
        found.append((int(row), int(column)))
    if not found:
        return None
    rows, columns = (list(part) for part in zip(*found, strict=True))
    return rotations[rows], shifts[columns]
