"""Transforms of a map at rotated points: maps turned and moved, and what superpositions are scored with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.kernels.api import C64, F32, Backend
from tiltwise.maps.volumes import reference_volume
from tiltwise.spectral.fft import irfft3

PADDING = 2


class Turned:
    """Transform of a map (N, N, N), origin at voxel N // 2, at points (K, 3) in cycles per box along x, y, z."""

    def __init__(self, density: NDArray[np.float32], points: F32, backend: Backend) -> None:
        self.volume, self.points, self.backend = reference_volume(density, PADDING), points, backend

    def by(self, rotations: NDArray[np.float64]) -> C64:
        """(R, K) transform of the map turned by each of the rotations (R, 3, 3)."""
        matrices = np.ascontiguousarray(np.swapaxes(rotations, 1, 2) * PADDING, dtype=np.float32)
        return self.backend.project(self.volume, matrices, self.points, self.volume.shape[0] // 2)

    def still(self) -> C64:
        """(K,) transform of the map as it is."""
        return np.asarray(self.by(np.eye(3)[None])[0], np.complex64)


def turned(
    density: NDArray[np.float32], rotation: NDArray[np.float64], shift_px: NDArray[np.float64], backend: Backend
) -> NDArray[np.float32]:
    """The map (N, N, N) turned by a rotation (3, 3) about its origin, then moved by (3,) px along x, y, z.

    Corners of its transform, beyond N / 2, are lost.
    """
    box = len(density)
    axis = np.fft.fftfreq(box, 1.0 / box)
    grid = np.stack(np.meshgrid(axis, axis, np.arange(box // 2 + 1.0), indexing="ij"), axis=-1)[..., ::-1]
    inside = (grid**2).sum(axis=-1) <= (box / 2) ** 2
    points = np.ascontiguousarray(grid[inside], dtype=np.float32)
    # the origin of unitary transforms is voxel 0
    phases = np.exp(-2j * np.pi / box * (points @ (shift_px + box // 2)))
    spectrum = np.zeros(inside.shape, np.complex128)
    spectrum[inside] = Turned(density, points, backend).by(rotation[None])[0] * phases / np.sqrt(box)
    return np.asarray(irfft3(spectrum, box), dtype=np.float32)


def mirrored(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map (N, N, N) of the other hand: z -> -z about voxel N // 2."""
    flipped = density[::-1]
    return np.ascontiguousarray(np.roll(flipped, 1, axis=0) if len(density) % 2 == 0 else flipped)


def half_ball(radius: float) -> tuple[F32, NDArray[np.intp], NDArray[np.float64]]:
    """Points (K, 3) of the half ball without its centre, their shells (K,), and (K,) how often each counts."""
    reach = int(radius)
    axis = np.arange(-reach, reach + 1)
    points = np.stack(np.meshgrid(axis, axis, np.arange(reach + 1), indexing="ij"), axis=-1).reshape(-1, 3)[:, ::-1]
    length = np.linalg.norm(points, axis=1)
    points = points[(length <= radius) & (length > 0)]
    shells = np.rint(np.linalg.norm(points, axis=1)).astype(np.intp)
    return np.ascontiguousarray(points, dtype=np.float32), shells, np.where(points[:, 0] == 0, 0.5, 1.0)


def flattened(values: C64, shells: NDArray[np.intp], weight: NDArray[np.float64]) -> C64:
    """Transform (K,) or (R, K) with the power of its weights (K,) in every shell of the first row."""
    first = values if values.ndim == 1 else values[0]
    power = np.bincount(shells, weight * np.abs(first) ** 2)
    total = np.bincount(shells, weight)
    factor = np.sqrt(np.divide(total, power, out=np.zeros_like(total), where=power > 0))
    return np.asarray(values * factor[shells], np.complex64)


def without_radial(values: C64, shells: NDArray[np.intp], weight: NDArray[np.float64]) -> C64:
    """Transform (K,) without the part that every rotation about the origin leaves as it is: the mean of its shells."""
    mean = np.bincount(shells, weight * values.real) / np.maximum(np.bincount(shells, weight), 1e-30)
    return np.asarray(values - mean[shells], np.complex64)
