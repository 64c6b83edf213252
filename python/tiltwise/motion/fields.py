"""Deformations of tilt images that are fitted: modes without the pose, and their prior.

A field is a combination of orthogonal modes that no pose can make (`DeformationModel.pose_free_modes`).  Under the
prior their coefficients are standard normal, in units that give the whole field an expected displacement of `sigma_px`,
root mean square over the image: its negative log prior is half the sum of their squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.deformation import Deformation, DeformationModel

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FieldBasis:
    """Fields that a fit chooses from."""

    model: DeformationModel
    modes: F64
    """(C, M) coefficients of fields of one pixel"""
    per_tilt: bool
    """one field for every tilt, or one for all"""
    sigma_px: float
    """expected displacement under the prior"""

    @classmethod
    def create(cls, model: DeformationModel, *, per_tilt: bool, sigma_px: float) -> FieldBasis:
        """All fields of a kind; one for all tilts cannot magnify, as that is the scale of the specimen."""
        return cls(model, _modes(model, not per_tilt), per_tilt, sigma_px)

    @property
    def mode_px(self) -> float:
        """Displacement by a mode whose amplitude is one standard deviation, root mean square over the image."""
        return float(self.sigma_px / np.sqrt(self.modes.shape[1]))

    @property
    def units(self) -> F64:
        """(C, M) coefficients of modes whose amplitude is one standard deviation."""
        return np.asarray(self.modes * self.mode_px)

    def shape(self, tilts: int) -> tuple[int, int]:
        """(N, M) of amplitudes: N fields."""
        return tilts if self.per_tilt else 1, self.modes.shape[1]

    def deformation(self, amplitudes: F64, tilts: int) -> Deformation:
        """Fields of all tilts from amplitudes (N, M)."""
        coefficients = np.broadcast_to(amplitudes @ self.units.T, (tilts, len(self.modes)))
        return Deformation(self.model, np.ascontiguousarray(coefficients))

    def amplitudes(self, other: Deformation) -> F64:
        """(N, M) of the fields nearest to a deformation of any kind: where a fit may start."""
        count = 4 * max(4, *self.model.grid)
        axes = [(np.arange(count) + 0.5) / count * size for size in self.model.image_size]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 1, 2)
        seen = other.displacement(np.broadcast_to(points, (len(points), len(other.coefficients), 2)))
        if not self.per_tilt:
            seen = seen.mean(axis=1, keepdims=True)
        design = self.derivative(points)[:, 0].reshape(2 * len(points), -1)
        wanted = np.moveaxis(seen, 1, 0).reshape(seen.shape[1], -1)
        return np.asarray(np.linalg.lstsq(design, wanted.T, rcond=1e-9)[0].T)

    def derivative(self, points: F64) -> F64:
        """(..., 2, M) derivative of displacements at points (..., 2) in the amplitudes."""
        value = self.model.values(points)
        return np.asarray(np.einsum("...k,mki->...im", value, self.model.vectors(self.units.T), optimize=True))

    def gradient(self, functions: F64, pull: F64) -> F64:
        """(N, M) gradient in the amplitudes, from that in displacements (P, F, 2) and the functions (P, F, K) there."""
        vectors = np.einsum("pfk,pfi->fki", functions, pull, optimize=True)
        if not self.per_tilt:
            vectors = vectors.sum(axis=0, keepdims=True)
        return np.asarray(self.model.coefficients(vectors) @ self.units)


@lru_cache(maxsize=16)
def _modes(model: DeformationModel, magnification: bool) -> F64:
    return model.pose_free_modes(magnification=magnification)
