"""Priors of poses: on the angle to the last rotation, on stored axes and angles, and on the total displacement."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.em.orientation_prior import OrientationPrior

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
    orientation: OrientationPrior | None = None
    """of the particle file"""
    mates: F64 = field(default_factory=lambda: np.eye(3)[None])
    """(M, 3, 3) rotations g: the angular prior is about the nearest of `centre g`"""

    def take(self, rows: NDArray[np.intp]) -> PosePrior:
        """Priors of some particles."""
        stored = None if self.orientation is None else self.orientation.take(rows)
        return PosePrior(
            self.centre[rows], self.displacement[rows], self.angle_rad, self.offset_angstrom, stored, self.mates
        )

    def of_rotations(self, rotation: F64) -> F64:
        """(n,) log prior of rotations (n, 3, 3)."""
        result = np.zeros(len(rotation))
        if self.angle_rad is not None:
            result += log_gaussian(np.linalg.norm(self._turns(rotation), axis=1), self.angle_rad)
        if self.orientation is not None:
            result += self.orientation.log(rotation)
        return result

    def of_shifts(self, shift: F64) -> F64:
        """(n,) log prior of shifts (n, 3) in Å."""
        return log_gaussian(np.linalg.norm(self.displacement + shift, axis=1), self.offset_angstrom)

    def derivatives(self, rotation: F64, shift: F64) -> tuple[F64, F64]:
        """Gradient (n, 6) of the log prior, and information (n, 6, 6), minus its second derivative.

        Without a prior rotations are still no wider than all there are: keeps an empty reference from being singular.
        """
        angle = np.pi if self.angle_rad is None else self.angle_rad
        gradient = np.zeros((len(shift), 6))
        information = np.zeros((len(shift), 6, 6))
        information[:] = np.diag(np.repeat([1.0 / angle**2, 1.0 / self.offset_angstrom**2], 3))
        if self.angle_rad is not None:
            gradient[:, :3] = -self._turns(rotation) / self.angle_rad**2
        if self.orientation is not None:
            slope, curvature = self.orientation.derivatives(rotation)
            gradient[:, :3] += slope
            information[:, :3, :3] += curvature
        gradient[:, 3:] = -(self.displacement + shift) / self.offset_angstrom**2
        return gradient, information

    def _turns(self, rotation: F64) -> F64:
        """(n, 3) rotation vectors from the centres, or their mates where these are nearer."""
        best = np.asarray(Rotation.from_matrix(rotation @ np.swapaxes(self.centre, 1, 2)).as_rotvec())
        for g in self.mates[1:]:
            other = Rotation.from_matrix(rotation @ np.swapaxes(self.centre @ g, 1, 2)).as_rotvec()
            nearer = np.linalg.norm(other, axis=1) < np.linalg.norm(best, axis=1)
            best = np.where(nearer[:, None], other, best)
        return best
