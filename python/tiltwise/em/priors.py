"""Gaussian priors of poses: on the angle to the last rotation, and on the total displacement from the coordinate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

F64 = NDArray[np.float64]


def log_gaussian(distance: F64, sigma: float) -> F64:
    """Log of a Gaussian, not normalised, of distances in the unit of its width."""
    return np.asarray(-0.5 * (distance / sigma) ** 2)


@dataclass(frozen=True, slots=True)
class PosePrior:
    """Priors of n particles, with their derivatives in small changes of poses (`tiltwise.em.laplace`)."""

    centre: F64
    """(n, 3, 3) last rotations"""
    displacement: F64
    """(n, 3) Å, of shift zero"""
    angle_rad: float | None
    """width of the angular prior; None leaves rotations free"""
    offset_angstrom: float

    def take(self, rows: NDArray[np.intp]) -> PosePrior:
        """Priors of some particles."""
        return PosePrior(self.centre[rows], self.displacement[rows], self.angle_rad, self.offset_angstrom)

    def of_rotations(self, rotation: F64) -> F64:
        """(n,) log prior of rotations (n, 3, 3)."""
        if self.angle_rad is None:
            return np.zeros(len(rotation))
        return log_gaussian(np.linalg.norm(self._turns(rotation), axis=1), self.angle_rad)

    def of_shifts(self, shift: F64) -> F64:
        """(n,) log prior of shifts (n, 3) in Å."""
        return log_gaussian(np.linalg.norm(self.displacement + shift, axis=1), self.offset_angstrom)

    def gradient(self, rotation: F64, shift: F64) -> F64:
        """(n, 6) of the log prior."""
        gradient = np.zeros((len(shift), 6))
        if self.angle_rad is not None:
            gradient[:, :3] = -self._turns(rotation) / self.angle_rad**2
        gradient[:, 3:] = -(self.displacement + shift) / self.offset_angstrom**2
        return gradient

    @property
    def information(self) -> F64:
        """(6,) diagonal of minus the second derivative.

        Without a prior rotations are still no wider than all there are: keeps an empty reference from being singular.
        """
        angle = np.pi if self.angle_rad is None else self.angle_rad
        return np.repeat([1.0 / angle**2, 1.0 / self.offset_angstrom**2], 3)

    def _turns(self, rotation: F64) -> F64:
        """(n, 3) rotation vectors from the centres."""
        return np.asarray(Rotation.from_matrix(rotation @ np.swapaxes(self.centre, 1, 2)).as_rotvec())
