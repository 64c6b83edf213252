"""The Fourier voxels of a pseudo-subtomogram: a half ball in shell order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.spectral.components import FourierComponents, Scalar, refuse_radius


@dataclass(frozen=True, slots=True)
class FourierBall(FourierComponents):
    """Components of a cube: kx > 0, or kx = 0 and ky > 0, or kx = ky = 0 and kz >= 0."""

    index: NDArray[np.int64]
    """(K,) place of each voxel in the half-complex array `(box, box, box // 2 + 1)`, flat"""

    @classmethod
    def create(cls, box: int, radius: float | None = None, kept: NDArray[np.bool_] | None = None) -> FourierBall:
        """All voxels with |k| < radius (default and upper limit `box / 2`).

        Of these, with `kept`, a half-complex array, only those it marks, and DC.
        """
        radius = box / 2 if radius is None else radius
        refuse_radius(box, radius, "ball")
        axis = np.fft.fftfreq(box, 1.0 / box).round().astype(np.int32)
        kz, ky, kx = np.meshgrid(axis, axis, np.arange(box // 2 + 1, dtype=np.int32), indexing="ij")
        square = kx * kx + ky * ky + kz * kz
        inside = (square < radius * radius) & ((kx > 0) | (ky > 0) | ((ky == 0) & (kz >= 0)))
        if kept is not None:
            inside &= kept | (square == 0)
        index = np.flatnonzero(inside)
        kx, ky, kz, square = (a.ravel()[index] for a in (kx, ky, kz, square))
        # Integers, so the order is the same on every machine.
        order = np.lexsort((kx, ky, kz, square))
        frequencies = np.ascontiguousarray(np.stack([kx, ky, kz], axis=1)[order])
        shells = np.rint(np.sqrt(square[order])).astype(np.int32)
        return cls(box, float(radius), frequencies, shells, index[order])

    def take(self, half_complex: NDArray[Scalar]) -> NDArray[Scalar]:
        """(box, box, box // 2 + 1) -> (K,)."""
        return np.asarray(half_complex.reshape(-1)[self.index])
