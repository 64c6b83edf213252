"""Prior of particle velocities: a Gaussian process over the positions of the particles (Eqs. 38-42).

Velocities of different tilts are independent; those of particles p and q in one tilt have the covariance
`sigma_V^2 exp(-(|s_p - s_q| / sigma_D)^2)` (Eq. 38) or
 `sigma_V^2 exp(-|s_p - s_q| / sigma_D)` (Eq. 39) along each axis.
They are written as combinations of basis functions with standard normal coefficients Q (Eqs. 40-41), whose
negative log prior is half their sum of squares (Eq. 42).  Here sigma_V = 1: transitions scale it by their dose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.spatial.distance import cdist

F64 = NDArray[np.float64]
Kernel = Literal["gaussian", "exponential"]

SMALLEST = 1e-4
"""Eigenvalue, over the largest, below which a mode is left out: what it moves is far below the data's noise."""
MOST_MODES = 60


def covariance(first: F64, second: F64, length_angstrom: float, kernel: Kernel) -> F64:
    """(n, m) covariance of velocities at positions (n, 3) and (m, 3) in Å, for sigma_V = 1 (Eqs. 38, 39)."""
    distance = cdist(first, second) / length_angstrom
    return np.asarray(np.exp(-(distance**2) if kernel == "gaussian" else -distance))


@dataclass(frozen=True, slots=True)
class MotionBasis:
    """Modes of the velocities of P particles."""

    functions: F64
    """(P, B) sqrt(lambda) u (Eq. 41)"""
    extend: F64
    """(P, B) u / sqrt(lambda): covariances with other positions times this are the functions there"""
    positions_angstrom: F64
    length_angstrom: float
    kernel: Kernel

    @classmethod
    def create(
        cls, positions_angstrom: F64, length_angstrom: float, kernel: Kernel = "gaussian", most: int = MOST_MODES
    ) -> MotionBasis:
        """Eigenvectors of the covariance at positions (P, 3) (Eqs. 40, 41), `most` at most."""
        values, vectors = eigh(covariance(positions_angstrom, positions_angstrom, length_angstrom, kernel))
        order = np.argsort(values)[::-1][:most]
        order = order[values[order] > SMALLEST * values[order[0]]] if len(order) else order
        root = np.sqrt(values[order])
        return cls(vectors[:, order] * root, vectors[:, order] / root, positions_angstrom, length_angstrom, kernel)

    def at(self, positions_angstrom: F64) -> F64:
        """(n, B) the functions at other positions: velocities there, predicted from those of the particles."""
        return covariance(positions_angstrom, self.positions_angstrom, self.length_angstrom, self.kernel) @ self.extend
