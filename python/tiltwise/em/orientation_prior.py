"""Priors on orientations that come from the particle file: axes of pre-oriented particles, and RELION's angles.

`A = A_sub^T R` is the rotation of the reference into the subtomogram, with angles rot, tilt and psi.  The axis of a
particle is `R z`; its tilt is the angle to the z axis of the subtomogram, its psi the azimuth about that, and rot
turns the reference about its own z axis.  A normal or a filament that was picked is the axis with the stored angles,
whatever rot is: RELION's tools store it as tilt 90 and psi 0 (or tilt 0) in a subtomogram turned for the purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.model import Particles

F64 = NDArray[np.float64]

REACH = 3.0
"""Standard deviations of each angle beyond which nothing is searched."""
TERMS = ("rot", "tilt", "psi", "axis")
_SMALLEST_SINE = 1e-6


@dataclass(frozen=True)
class OrientationPrior:
    """Gaussian priors on angles of n particles.  Of symmetry mates `R g` the one with the best prior counts."""

    frame: F64
    """(n, 3, 3) A_sub"""
    centre_rad: F64
    """(n, 3) rot, tilt, psi where the priors have their maximum"""
    sigma_rad: Mapping[str, float]
    """width of every prior there is, by its name in `TERMS`"""
    mates: F64
    """(M, 3, 3) rotations of the point group that change one of these angles, the identity first"""

    @classmethod
    def of(cls, particles: Particles, sigma_deg: Mapping[str, float | None], symmetry: F64) -> OrientationPrior | None:
        """Priors about the angles of a particle file: rlnAngle*Prior where it has them, else rlnAngle*.

        `sigma_deg` are the widths by their names in `TERMS`; None if there are none.

        Raises
        ------
        DataError
            if a prior angle that is needed is not finite.
        """
        sigma = {name: float(np.radians(width)) for name, width in sigma_deg.items() if width is not None}
        if not sigma:
            return None
        centre = particles.angles_deg
        if particles.prior_angles_deg is not None:
            centre = np.where(np.isnan(particles.prior_angles_deg), centre, particles.prior_angles_deg)
        if not np.isfinite(centre).all():
            row = int(np.flatnonzero(~np.isfinite(centre).all(axis=1))[0])
            raise DataError(
                "the prior of an orientation is not a number",
                where=particles.name[row],
                found=str(centre[row]),
                fix="correct the columns of the prior for this particle, or take them out",
            )
        # (rot, -tilt, psi) is (rot + 180, tilt, psi + 180), and angles between axes are positive
        tilt = np.remainder(centre[:, 1:2] + 180.0, 360.0) - 180.0
        centre = np.where(tilt < 0, centre + 180.0, centre)
        centre[:, 1] = np.abs(tilt[:, 0])
        mates = symmetry
        if "rot" not in sigma:
            # turns about the z axis of the reference change none of the other angles
            images = np.round(symmetry[:, :, 2], 6)
            mates = symmetry[np.sort(np.unique(images, axis=0, return_index=True)[1])]
        return cls(euler_to_matrix(particles.subtomogram_angles_deg), np.radians(centre), sigma, mates)

    def take(self, rows: NDArray[np.intp]) -> OrientationPrior:
        """Priors of some particles."""
        return OrientationPrior(self.frame[rows], self.centre_rad[rows], self.sigma_rad, self.mates)

    @cached_property
    def axis(self) -> F64:
        """(n, 3) stored axes in the tomogram."""
        return np.asarray((self.frame @ euler_to_matrix(np.degrees(self.centre_rad)))[:, :, 2])

    def log(self, rotation: F64, slack_rad: float = 0.0) -> F64:
        """(n,) log prior, not normalised, of rotations (n, 3, 3); one particle may have many rotations.

        `slack_rad` gives the best value that a rotation up to so far away may have, about.
        """
        return np.asarray(-0.5 * (self._deviations(rotation, slack_rad) ** 2).sum(axis=-1).min(axis=0))

    def within(self, rotation: F64, slack_rad: float = 0.0) -> NDArray[np.bool_]:
        """(n,) whether all angles of rotations (n, 3, 3) lie within `REACH` widths."""
        return np.asarray((self._deviations(rotation, slack_rad) <= REACH).all(axis=-1).any(axis=0))

    def derivatives(self, rotation: F64) -> tuple[F64, F64]:
        """Gradient (n, 3) of the log prior in small turns `exp([w]x) R`, and information (n, 3, 3).

        The information is minus the second derivative, less what would make it indefinite.
        """
        best = np.argmin((self._deviations(rotation, 0.0) ** 2).sum(axis=-1), axis=0)
        mate = rotation @ self.mates[best]
        gradient, information = np.zeros((len(rotation), 3)), np.zeros((len(rotation), 3, 3))
        for name, sigma in self.sigma_rad.items():
            difference, slope, curvature = self._terms[name](mate)
            gradient -= difference[:, None] * slope / sigma**2
            information += curvature / sigma**2
        return gradient, information

    def _deviations(self, rotation: F64, slack_rad: float) -> F64:
        """(M, n, terms) distances from the centres of mates of rotations, in widths."""
        mates = rotation @ self.mates[:, None]
        found = []
        for name, sigma in self.sigma_rad.items():
            difference, slope, _ = self._terms[name](mates)
            # a turn changes an angle by its slope at most; near a pole an azimuth changes by anything
            allowed = slack_rad * np.maximum(np.linalg.norm(slope, axis=-1), 1.0)
            found.append(np.maximum(np.abs(difference) - allowed, 0.0) / sigma)
        return np.stack(found, axis=-1)

    # ---- angles: difference (...) from the centre, its slope (..., 3) in w, information (..., 3, 3) for width 1 ----

    @property
    def _terms(self) -> dict[str, Callable[[F64], tuple[F64, F64, F64]]]:
        return {"rot": self._rot, "tilt": self._tilt, "psi": self._psi, "axis": self._axis}

    def _axis(self, rotation: F64) -> tuple[F64, F64, F64]:
        return _to_axis(rotation, self.axis, 0.0)

    def _tilt(self, rotation: F64) -> tuple[F64, F64, F64]:
        return _to_axis(rotation, self.frame[:, :, 2], self.centre_rad[:, 1])

    def _psi(self, rotation: F64) -> tuple[F64, F64, F64]:
        # A z = (-sin tilt cos psi, sin tilt sin psi, cos tilt)
        axis = np.einsum("...ji,...j->...i", self.frame, rotation[..., 2])
        azimuth, slope = _azimuth(axis)
        return _wrapped(np.pi - azimuth, self.centre_rad[:, 2], -np.einsum("...ij,...j->...i", self.frame, slope))

    def _rot(self, rotation: F64) -> tuple[F64, F64, F64]:
        # A^T z = (sin tilt cos rot, sin tilt sin rot, cos tilt), which turns against the reference
        view = np.einsum("...ji,...j->...i", rotation, self.frame[:, :, 2])
        azimuth, slope = _azimuth(view)
        return _wrapped(azimuth, self.centre_rad[:, 0], -np.einsum("...ij,...j->...i", rotation, slope))


def _to_axis(rotation: F64, axis: F64, centre: F64 | float) -> tuple[F64, F64, F64]:
    """Angle between the z axis of the reference and an axis."""
    own = rotation[..., 2]
    normal = np.cross(np.broadcast_to(axis, own.shape), own)
    sine, cosine = np.linalg.norm(normal, axis=-1), (own * axis).sum(axis=-1)
    angle = np.arctan2(sine, cosine)
    safe = np.maximum(sine, _SMALLEST_SINE)
    slope = normal / safe[..., None]
    along = slope[..., :, None] * slope[..., None, :]
    across = np.eye(3) - own[..., :, None] * own[..., None, :] - along
    difference = angle - centre
    # geodesic circles curve; at the pole itself, 1 where it is the centre
    bend = np.where(sine > _SMALLEST_SINE, difference * cosine / safe, np.abs(difference) < _SMALLEST_SINE)
    return difference, slope, along + np.maximum(bend, 0.0)[..., None, None] * across


def _azimuth(vector: F64) -> tuple[F64, F64]:
    """Azimuth (...) about z of unit vectors (..., 3), and its slope (..., 3) in turns of the vector."""
    x, y, z = np.moveaxis(vector, -1, 0)
    square = np.maximum(x * x + y * y, _SMALLEST_SINE**2)
    return np.arctan2(y, x), np.stack([-x * z / square, -y * z / square, np.ones_like(x)], axis=-1)


def _wrapped(angle: F64, centre: F64, slope: F64) -> tuple[F64, F64, F64]:
    difference = np.remainder(angle - centre + np.pi, 2.0 * np.pi) - np.pi
    return np.asarray(difference), slope, slope[..., :, None] * slope[..., None, :]
