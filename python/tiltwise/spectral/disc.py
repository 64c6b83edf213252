"""The Fourier pixels a particle image is stored at: a half disc in shell order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.spectral.components import FourierComponents, Scalar, refuse_radius


@dataclass(frozen=True, slots=True)
class FourierDisc(FourierComponents):
    """Components of an image: kx > 0, or kx = 0 and ky >= 0."""

    rows: NDArray[np.int64]
    """(K,) row of each pixel in the half-complex array `(box, box // 2 + 1)`"""
    columns: NDArray[np.int64]

    @classmethod
    def create(cls, box: int, radius: float | None = None) -> FourierDisc:
        """All pixels with |k| < radius (default and upper limit `box / 2`)."""
        radius = box / 2 if radius is None else radius
        refuse_radius(box, radius, "disc")
        kx, ky = np.meshgrid(np.arange(box // 2 + 1), np.fft.fftfreq(box, 1.0 / box).round().astype(int))
        square = kx * kx + ky * ky
        keep = (square < radius * radius) & ((kx > 0) | (ky >= 0))
        rows, columns = np.nonzero(keep)
        # Sorted by |k|^2, then ky, then kx: integers, so the order is the same on every machine.
        order = np.lexsort((kx[rows, columns], ky[rows, columns], square[rows, columns]))
        rows, columns = rows[order], columns[order]
        frequencies = np.stack([kx[rows, columns], ky[rows, columns]], axis=1)
        shells = np.rint(np.sqrt(square[rows, columns])).astype(np.int32)
        return cls(box, float(radius), frequencies, shells, rows, columns)

    def take(self, half_complex: NDArray[Scalar]) -> NDArray[Scalar]:
        """(..., box, box // 2 + 1) -> (..., K)."""
        flat = half_complex.reshape(*half_complex.shape[:-2], self.box * (self.box // 2 + 1))
        return flat.take(self.rows * (self.box // 2 + 1) + self.columns, axis=-1)
