"""The Fourier pixels a particle image is stored at: a half disc in shell order.

Pixels are sorted by |k|, so the pixels below any radius are a prefix of every array that holds one value
per pixel: early iterations read and compute with short prefixes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class FourierDisc:
    """Independent Fourier components of a real `box x box` image with |k| < radius, sorted by |k|.

    One of every conjugate pair is kept (`kx > 0`, or `kx = 0` and `ky >= 0`); DC comes first.  Frequencies
    are in cycles per box.  The Nyquist lines of even boxes lie outside, since `radius <= box / 2`.
    """

    box: int
    radius: float
    frequencies: NDArray[np.int64]
    """(K, 2), columns kx, ky"""
    shells: NDArray[np.int32]
    """(K,) round(|k|)"""
    rows: NDArray[np.int64]
    """(K,) row of each pixel in the half-complex array `(box, box // 2 + 1)`"""
    columns: NDArray[np.int64]

    @classmethod
    def create(cls, box: int, radius: float | None = None) -> FourierDisc:
        """All pixels with |k| < radius (default and upper limit `box / 2`)."""
        radius = box / 2 if radius is None else radius
        if box < 2 or not 0 < radius <= box / 2:
            raise ShapeError("no Fourier disc of this size", expected="0 < radius <= box / 2", found=f"{radius}, {box}")
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

    def __len__(self) -> int:
        return len(self.shells)

    @property
    def n_shells(self) -> int:
        """Number of shells a spectrum of the box has: `box // 2 + 1`."""
        return self.box // 2 + 1

    def count(self, radius: float) -> int:
        """Length of the prefix with |k| < radius."""
        square = (self.frequencies**2).sum(axis=1)
        return int(np.searchsorted(square, radius * radius, side="left"))

    def frequencies3d(self, count: int | None = None) -> NDArray[np.float32]:
        """(K, 3) float32 frequencies with kz = 0, the form kernels take."""
        kept = self.frequencies[:count]
        return np.ascontiguousarray(np.pad(kept, ((0, 0), (0, 1))), dtype=np.float32)

    def shell_means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means over the components of every shell, (n, K') of a prefix -> (n, n_shells); 0 where there are none."""
        shells, n = self.shells[: values.shape[1]], self.n_shells
        sums = np.reshape([np.bincount(shells, row, n)[:n] for row in values], (len(values), n))
        return np.asarray(sums / np.maximum(np.bincount(shells, minlength=n)[:n], 1))

    def take(self, half_complex: NDArray[Scalar]) -> NDArray[Scalar]:
        """(..., box, box // 2 + 1) -> (..., K)."""
        return np.asarray(half_complex[..., self.rows, self.columns])
