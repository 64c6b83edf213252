"""Gather insertion of slices in float64, the oracle of `tiltwise.kernels.gather`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gather_slices(
    slices: NDArray[np.complexfloating],
    weights: NDArray[np.floating],
    matrices: NDArray[np.float64],
    limits: NDArray[np.float64],
    data: NDArray[np.complex128],
    weight: NDArray[np.float64],
) -> None:
    """See `tiltwise.kernels.gather.gather_slices`."""
    size, half = slices.shape[1:]
    axis = np.fft.fftfreq(size, 1.0 / size)
    z, y, x = np.meshgrid(axis, axis, np.arange(half, dtype=np.float64), indexing="ij")
    voxels = np.stack([x, y, z], axis=-1)
    radius2 = (voxels**2).sum(axis=-1)
    for image, mass, matrix, limit in zip(slices, weights, matrices, limits, strict=True):
        p = voxels @ matrix.T
        factor = 1.0 - np.abs(p[..., 2])
        near = (factor > 0) & (radius2 <= limit * limit)
        p, factor = p[near], factor[near]
        fold = p[:, 0] < 0
        p = np.where(fold[:, None], -p, p)
        base = np.floor(p[:, :2]).astype(np.int64)
        u, v = (p[:, :2] - base).T
        for dx, dy, bilinear in ((0, 0, (1 - u) * (1 - v)), (1, 0, u * (1 - v)), (0, 1, (1 - u) * v), (1, 1, u * v)):
            column, row = base[:, 0] + dx, base[:, 1] + dy
            exists = (column < half) & (row <= size // 2) & (row >= -(size // 2))
            value = np.where(exists, image[row % size, np.minimum(column, half - 1)], 0.0)
            data[near] += factor * bilinear * np.where(fold, value.conj(), value)
            weight[near] += factor * bilinear * np.where(exists, mass[row % size, np.minimum(column, half - 1)], 0.0)
