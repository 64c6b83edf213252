"""Fourier components in shell order.

Components are sorted by |k|, so those below any radius are a prefix of every array that holds one value per
component: early iterations read and compute with short prefixes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError

Scalar = TypeVar("Scalar", bound=np.generic)


def refuse_radius(box: int, radius: float, shape: str) -> None:
    """Raises ShapeError for a radius beyond Nyquist; `shape` names what it is the radius of."""
    if box < 2 or not 0 < radius <= box / 2:
        raise ShapeError(f"no Fourier {shape} of this size", expected="0 < radius <= box / 2", found=f"{radius}, {box}")


@dataclass(frozen=True, slots=True)
class FourierComponents:
    """Independent Fourier components of a real array of `box` pixels in D dimensions with |k| < radius, sorted by |k|.

    One of every conjugate pair is kept; DC comes first.  Frequencies are in cycles per box.  The Nyquist lines of
    even boxes lie outside, since `radius <= box / 2`.
    """

    box: int
    radius: float
    frequencies: NDArray[np.signedinteger]
    """(K, D), columns kx, ky and in three dimensions kz"""
    shells: NDArray[np.int32]
    """(K,) round(|k|)"""

    def __len__(self) -> int:
        return len(self.shells)

    @property
    def dimensions(self) -> int:
        """D: 2 for images, 3 for volumes."""
        return int(self.frequencies.shape[1])

    @property
    def n_shells(self) -> int:
        """Number of shells a spectrum of the box has: `box // 2 + 1`."""
        return self.box // 2 + 1

    def count(self, radius: float) -> int:
        """Length of the prefix with |k| < radius."""
        square = (self.frequencies**2).sum(axis=1)
        return int(np.searchsorted(square, radius * radius, side="left"))

    def frequencies3d(self, count: int | None = None) -> NDArray[np.float32]:
        """(K, 3) float32 frequencies, with kz = 0 for images: the form kernels take."""
        kept = self.frequencies[:count]
        return np.ascontiguousarray(np.pad(kept, ((0, 0), (0, 3 - self.dimensions))), dtype=np.float32)

    def shell_means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means over the components of every shell, (n, K') of a prefix -> (n, n_shells); 0 where there are none."""
        shells, n = self.shells[: values.shape[1]], self.n_shells
        sums = np.reshape([np.bincount(shells, row, n)[:n] for row in values], (len(values), n))
        return np.asarray(sums / np.maximum(np.bincount(shells, minlength=n)[:n], 1))
