"""FSC by direction: shells cut into cones, and what that says of a map that is sharper along some directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.grids import direction_angles
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.fsc import resolution_angstrom
from tiltwise.spectral.shells import half_weights, radii, shell_indices

F64 = NDArray[np.float64]

CONE_DEG = 20.0
"""Angle between the axis and the surface of a cone."""
DIRECTIONS_ORDER = 2
"""HEALPix order of the axes: 96 on a half sphere, 15 degrees apart."""
FEWEST = 40
"""Components of a shell a cone must hold for its own FSC; with fewer, that of the whole shell stands for it."""
ANISOTROPIC = 0.5
"""Ratio of areas below which the resolution is called anisotropic."""


@dataclass(frozen=True, slots=True)
class DirectionalFsc:
    """FSC in cones about D axes, all on one half of the sphere."""

    axes: F64
    """(D, 3) unit vectors x, y, z in the frame of the map, z >= 0"""
    curves: F64
    """(D, S) FSC of shells 0 to S - 1"""
    resolution_angstrom: F64
    """(D,) where each curve falls below 0.143"""

    @property
    def area_ratio(self) -> float:
        """Smallest area under a curve over the largest: 1 for a map that is equally good all around."""
        areas = np.maximum(self.curves[:, 1:], 0.0).sum(axis=1)
        return float(areas.min() / max(float(areas.max()), 1e-9))

    @property
    def worst(self) -> int:
        """Direction with the worst resolution."""
        return int(np.argmax(self.resolution_angstrom))

    @property
    def best(self) -> int:
        """Direction with the best resolution."""
        return int(np.argmin(self.resolution_angstrom))


def cone_axes(order: int = DIRECTIONS_ORDER) -> F64:
    """Unit vectors x, y, z of a HEALPix grid on the half sphere z >= 0, `(D, 3)`."""
    angles = direction_angles(order)
    axes = euler_to_matrix(np.stack([angles[:, 0], angles[:, 1], np.zeros(len(angles))], axis=1))[:, 2, :]
    # Of the two ends of an axis on the equator one is kept.
    upper = (axes[:, 2] > 1e-9) | ((np.abs(axes[:, 2]) <= 1e-9) & ((axes[:, 0] > 1e-9) | (axes[:, 1] > 1 - 1e-9)))
    return np.asarray(axes[upper])


def directional_fsc(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    mask: NDArray[np.floating],
    pixel_size: float,
    last_shell: int,
    workers: int = 1,
) -> DirectionalFsc:
    """FSC of two maps `(N, N, N)` inside a mask, in double cones of `CONE_DEG` about axes all around.

    `last_shell` is the last one to look at, at most N // 2: time is in proportion to its cube.
    """
    size = first.shape[0]
    shells = shell_indices(size, 3)
    kept = (shells >= 1) & (shells <= last_shell)
    f, g = (rfft3(np.asarray(v * mask, dtype=np.float32), workers)[kept] for v in (first, second))
    weight = np.broadcast_to(half_weights(size), kept.shape)[kept]
    values = [weight * v for v in ((f.conj() * g).real, np.abs(f) ** 2, np.abs(g) ** 2)]
    index, radius = shells[kept], radii(size, 3)[kept].astype(np.float32)
    full = np.fft.fftfreq(size, 1.0 / size)
    grid = np.meshgrid(full, full, np.arange(size // 2 + 1), indexing="ij")
    unit = np.stack([axis[kept].astype(np.float32) / radius for axis in reversed(grid)], axis=1)
    axes = cone_axes()
    whole = _correlations(index, values, last_shell)
    curves = np.empty((len(axes), last_shell + 1))
    cosine = np.float32(np.cos(np.radians(CONE_DEG)))
    for number, axis in enumerate(axes.astype(np.float32)):
        inside = np.flatnonzero(np.abs(unit @ axis) >= cosine)
        counts = np.bincount(index[inside], weight[inside], last_shell + 1)
        own = _correlations(index[inside], [v[inside] for v in values], last_shell)
        curves[number] = np.where(counts >= FEWEST, own, whole)
    resolution = [resolution_angstrom(curve, size, pixel_size) for curve in curves]
    return DirectionalFsc(axes, curves, np.array(resolution))


def _correlations(index: NDArray[np.int32], values: list[F64], last_shell: int) -> F64:
    """FSC of shells 0 to `last_shell` from the products and powers of components; 1 for shell 0."""
    cross, power_f, power_g = (np.bincount(index, v, last_shell + 1) for v in values)
    power = power_f * power_g
    curve = np.asarray(np.divide(cross, np.sqrt(power), out=np.zeros(last_shell + 1), where=power > 0))
    curve[0] = 1.0
    return curve
