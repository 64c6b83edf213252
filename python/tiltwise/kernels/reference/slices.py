"""Trilinear slices of a Fourier volume and their transpose (Eqs. 3, 6, 8-10), in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Samples:
    """Where the frequencies of n matrices fall, after the fold onto p_x >= 0."""

    inside: NDArray[np.bool_]
    """(n, K)"""
    fold: NDArray[np.bool_]
    """(n, K)"""
    fraction: NDArray[np.float64]
    """(n, K, 3) x, y, z"""
    index: dict[tuple[int, int, int], NDArray[np.int64]]
    """flat index of each of the eight voxels, by (dx, dy, dz)"""

    def shares(self, corner: tuple[int, int, int]) -> NDArray[np.float64]:
        """(n, K, 3) what each axis contributes to the trilinear weight of a voxel."""
        return np.asarray(np.where(corner, self.fraction, 1.0 - self.fraction))

    def weight(self, corner: tuple[int, int, int]) -> NDArray[np.float64]:
        """(n, K) trilinear weight of a voxel; zero for samples that are not inside."""
        return np.asarray(self.shares(corner).prod(axis=-1) * self.inside)


def samples(size: int, matrices: NDArray[np.floating], frequencies: NDArray[np.floating], radius: float) -> Samples:
    """Samples of all frequencies for all matrices."""
    if not radius <= size // 2:
        raise ShapeError("radius reaches beyond the volume", expected=f"at most {size // 2}", found=str(radius))
    points = np.einsum("nij,kj->nki", matrices.astype(np.float64), frequencies.astype(np.float64))
    inside = np.einsum("nki,nki->nk", points, points) < float(radius) ** 2
    fold = points[..., 0] < 0
    points = np.where(fold[..., None], -points, points)
    points = np.where(inside[..., None], points, 0.0)
    base = np.floor(points).astype(np.int64)
    index = {}
    for corner in ((dx, dy, dz) for dz in (0, 1) for dy in (0, 1) for dx in (0, 1)):
        x, y, z = np.moveaxis(base + corner, -1, 0)
        index[corner] = (z % size * size + y % size) * (size // 2 + 1) + x
    return Samples(inside, fold, points - base, index)


def project(
    volume: NDArray[np.complexfloating],
    matrices: NDArray[np.floating],
    frequencies: NDArray[np.floating],
    radius: float,
    *,
    out: NDArray[np.complexfloating] | None = None,
    threads: int = 0,
) -> NDArray[np.complex128]:
    """See `tiltwise.kernels.api.Backend.project`."""
    flat = volume.astype(np.complex128).ravel()
    found = samples(volume.shape[0], matrices, frequencies, radius)
    slices = np.zeros(found.fold.shape, np.complex128)
    for corner, index in found.index.items():
        slices += found.weight(corner) * flat[index]
    slices = np.where(found.fold, slices.conj(), slices)
    if out is not None:
        out[...] = slices
    return slices


def insert(
    slices: NDArray[np.complexfloating],
    weights: NDArray[np.floating],
    matrices: NDArray[np.floating],
    frequencies: NDArray[np.floating],
    radius: float,
    data: NDArray[np.complex128],
    weight: NDArray[np.float64],
    *,
    threads: int = 0,
) -> None:
    """See `tiltwise.kernels.api.Backend.insert`."""
    found = samples(data.shape[0], matrices, frequencies, radius)
    values = np.where(found.fold, slices.conj(), slices).astype(np.complex128)
    # reshape(-1) of a contiguous array is a view, so the sums below land in the caller's arrays
    data_flat, weight_flat = data.reshape(-1), weight.reshape(-1)
    for corner, index in found.index.items():
        corner_weight = found.weight(corner)
        np.add.at(data_flat, index, corner_weight * values)
        np.add.at(weight_flat, index, corner_weight * weights)
