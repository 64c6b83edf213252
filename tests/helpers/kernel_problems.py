"""Small random problems for the kernels, in the dtypes of their contract."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


def complex_normal(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    """Complex numbers with unit variance per part."""
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@dataclass
class SliceProblem:
    """A volume, slices through it, and values to insert."""

    volume: NDArray[np.complex64]
    matrices: NDArray[np.float32]
    frequencies: NDArray[np.float32]
    slices: NDArray[np.complex64]
    weights: NDArray[np.float32]
    radius: float

    @classmethod
    def create(cls, size: int, radius: float, n: int = 4, k: int = 150, seed: int = 0) -> SliceProblem:
        """`k` frequencies whose samples lie inside and outside of the radius, none of them on it."""
        rng = np.random.default_rng([seed, size, n, k])
        frequencies = rng.uniform(-size / 4, size / 4, (4 * k + 8, 3)).astype(np.float32)
        # Rounding may put a sample on the wrong side of the radius; the oracle would then differ by its value.
        length = 2.0 * np.linalg.norm(frequencies.astype(np.float64), axis=1)
        frequencies = np.ascontiguousarray(frequencies[np.abs(length - radius) > 1e-3][:k])
        matrices = (2.0 * Rotation.random(n, rng=rng).as_matrix() if n else np.zeros((0, 3, 3))).astype(np.float32)
        volume = complex_normal(rng, size, size, size // 2 + 1)
        weights = rng.random((n, k)).astype(np.float32)
        return cls(volume, matrices, frequencies, complex_normal(rng, n, k), weights, radius)

    def accumulators(self) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
        """Empty data and weight."""
        return np.zeros(self.volume.shape, np.complex128), np.zeros(self.volume.shape)


@dataclass
class ScoreProblem:
    """Reference slices, one image, and shifts."""

    slices: NDArray[np.complex64]
    image: NDArray[np.complex64]
    power: NDArray[np.float32]
    phases: NDArray[np.complex64]
    weights: NDArray[np.float32]
    """(R, T), mostly zero, for `backproject`"""

    @classmethod
    def create(cls, rotations: int, shifts: int, k: int, seed: int = 0) -> ScoreProblem:
        """Random values; about a third of the weights is not zero."""
        rng = np.random.default_rng([seed, rotations, shifts, k])
        phases = np.exp(1j * rng.uniform(0, 2 * np.pi, (shifts, k))).astype(np.complex64)
        weights = rng.random((rotations, shifts)) * (rng.random((rotations, shifts)) < 0.35)
        return cls(
            complex_normal(rng, rotations, k),
            complex_normal(rng, k),
            rng.random(k).astype(np.float32),
            phases,
            weights.astype(np.float32),
        )


@dataclass
class CorrelationProblem:
    """Images and their predictions at the components of a disc, and plain functions of shifts."""

    slices: NDArray[np.complex64]
    images: NDArray[np.complex64]
    powers: NDArray[np.float32]
    weights: NDArray[np.float32]
    rows: NDArray[np.int32]
    frequencies: NDArray[np.int32]
    cosines: NDArray[np.float32]
    sines: NDArray[np.float32]

    @classmethod
    def create(cls, n: int, limit: int, half: int, step: float = 0.2) -> CorrelationProblem:
        """Components with |k| <= limit in any order, `step` radians per component between points; images hold a few
        components more."""
        rng = np.random.default_rng([n, limit, half])
        kx, ky = np.meshgrid(np.arange(limit + 1), np.arange(-limit, limit + 1))
        keep = (kx**2 + ky**2 <= limit**2) & ((kx > 0) | (ky >= 0))
        frequencies = rng.permutation(np.stack([kx[keep], ky[keep]], axis=1)).astype(np.int32)
        angle = step * np.outer(np.arange(limit + 1), np.arange(half + 1))
        k, spare = len(frequencies), 3
        return cls(
            complex_normal(rng, n, k),
            complex_normal(rng, n, k + spare),
            rng.random((n, k + spare)).astype(np.float32),
            rng.random((3, k)).astype(np.float32),
            rng.integers(0, 3, n).astype(np.int32),
            frequencies,
            np.cos(angle).astype(np.float32),
            np.sin(angle).astype(np.float32),
        )

    @property
    def arguments(self) -> tuple[NDArray[Any], ...]:
        """In the order of the contract."""
        return tuple(getattr(self, one.name) for one in fields(self))
