"""Trilinear slices of a Fourier volume and their transpose (Eqs. 3, 6, 8-10), in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError


def _corners(
    size: int, matrices: NDArray[np.floating], frequencies: NDArray[np.floating], radius: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[tuple[NDArray[np.int64], NDArray[np.float64]]]]:
    """Inside flags, fold flags, and the flat index and trilinear weight of the eight voxels of every sample."""
    if not radius <= size // 2:
        raise ShapeError("radius reaches beyond the volume", expected=f"at most {size // 2}", found=str(radius))
    points = np.einsum("nij,kj->nki", matrices.astype(np.float64), frequencies.astype(np.float64))
    inside = np.einsum("nki,nki->nk", points, points) < float(radius) ** 2
    fold = points[..., 0] < 0
    points = np.where(fold[..., None], -points, points)
    points = np.where(inside[..., None], points, 0.0)
    base = np.floor(points).astype(np.int64)
    fraction = points - base
    half = size // 2 + 1
    corners = []
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (
                    (fraction[..., 0] if dx else 1.0 - fraction[..., 0])
                    * (fraction[..., 1] if dy else 1.0 - fraction[..., 1])
                    * (fraction[..., 2] if dz else 1.0 - fraction[..., 2])
                )
                x = base[..., 0] + dx
                y = (base[..., 1] + dy) % size
                z = (base[..., 2] + dz) % size
                corners.append(((z * size + y) * half + x, weight * inside))
    return inside, fold, corners


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
    _, fold, corners = _corners(volume.shape[0], matrices, frequencies, radius)
    slices = np.zeros(fold.shape, np.complex128)
    for index, weight in corners:
        slices += weight * flat[index]
    slices = np.where(fold, slices.conj(), slices)
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
    _, fold, corners = _corners(data.shape[0], matrices, frequencies, radius)
    samples = np.where(fold, slices.conj(), slices).astype(np.complex128)
    # reshape(-1) of a contiguous array is a view, so the sums below land in the caller's arrays
    data_flat, weight_flat = data.reshape(-1), weight.reshape(-1)
    for index, corner_weight in corners:
        np.add.at(data_flat, index, corner_weight * samples)
        np.add.at(weight_flat, index, corner_weight * weights)
