"""Cross-correlation of particle images with their predictions, as functions of a shift (Eqs. 31-33).

`CC(d) = sum over the full Fourier plane of Re[ X conj(P) exp(2 pi i k.d / N) ] / sigma^2` is the gain of log-likelihood
if the particle lies d away from where it was cut, P = C V being its prediction there.  With the premultiplied images
of `tiltwise.extract.images` it is `conj(V) (C X) / sigma^2`.  Tables hold it on a grid of shifts as coefficients of
interpolating cubic B-splines, whose gradient is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import spline_filter1d

from tiltwise.spectral.disc import FourierDisc

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]

SAMPLES_PER_CYCLE = 3.5
"""Points of a table per period of the highest frequency: cubic splines then err by less than 1 % there."""
TAPER = 0.15
"""Outer part of a table that falls smoothly to zero, so that a particle at its rim is not caught on a cliff."""


@dataclass(frozen=True, slots=True)
class TableGrid:
    """Shifts at which correlations are tabulated, and the transform that gets there."""

    step_px: float
    """pixels of the box between points"""
    half: int
    """points on either side of zero"""
    count: int
    """Fourier components that enter, a prefix of the disc"""
    rows: C64
    """(S, 2r + 1) exp(2 pi i ky dy / N)"""
    columns: C64
    """(r + 1, S) exp(2 pi i kx dx / N)"""
    frequencies: NDArray[np.int64]
    """(count, 2) kx, ky"""
    taper: F32
    """(S, S)"""

    @classmethod
    def create(cls, disc: FourierDisc, radius: float, reach_px: float) -> TableGrid:
        """For shifts of up to `reach_px` pixels of the box and components with |k| < radius."""
        step = min(disc.box / radius / SAMPLES_PER_CYCLE, max(reach_px / 3.0, 0.25))
        half = int(np.ceil(reach_px / step / (1.0 - TAPER))) + 2
        shifts = step * np.arange(-half, half + 1)
        count = disc.count(radius)
        limit = int(np.abs(disc.frequencies[:count]).max(initial=0))
        phase = 2.0 * np.pi / disc.box
        rows = np.exp(1j * phase * np.outer(shifts, np.arange(-limit, limit + 1))).astype(np.complex64)
        columns = np.exp(1j * phase * np.outer(np.arange(limit + 1), shifts)).astype(np.complex64)
        edge = np.clip((1.0 - np.abs(np.arange(-half, half + 1)) / half) / TAPER, 0.0, 1.0)
        edge = 0.5 - 0.5 * np.cos(np.pi * edge)
        return cls(step, half, count, rows, columns, disc.frequencies[:count], np.outer(edge, edge).astype(np.float32))

    @property
    def reach_px(self) -> float:
        """Largest shift that the taper leaves alone, in pixels of the box."""
        return (1.0 - TAPER) * self.half * self.step_px

    def coefficients(self, products: C64) -> F32:
        """Spline coefficients (F, S, S), axes y and x, of products `conj(P) X / sigma^2` (F, count)."""
        limit = self.columns.shape[0] - 1
        dense = np.zeros((len(products), 2 * limit + 1, limit + 1), np.complex64)
        dense[:, self.frequencies[:, 1] + limit, self.frequencies[:, 0]] = products
        tables = 2.0 * np.matmul(self.rows, np.matmul(dense, self.columns)).real
        tables *= self.taper
        for axis in (1, 2):
            tables = spline_filter1d(tables, order=3, axis=axis, output=np.float32, mode="mirror")
        return np.asarray(tables, dtype=np.float32)

    def information(self, powers: F32, box: int) -> F64:
        """(F, 2, 2) Fisher information in shifts, per square pixel of the box, of `|P|^2 / sigma^2` (F, count)."""
        k = 2.0 * np.pi / box * self.frequencies.astype(np.float64)
        return np.asarray(2.0 * np.einsum("fk,ki,kj->fij", powers.astype(np.float64), k, k, optimize=True))


def _weights(t: F64) -> tuple[F64, F64]:
    """Cubic B-spline at the four nodes around a point, and its derivative, (..., 4); t in [0, 1)."""
    s = 1.0 - t
    value = np.stack([s**3, 4.0 - 3.0 * t**2 * (2.0 - t), 4.0 - 3.0 * s**2 * (2.0 - s), t**3], axis=-1) / 6.0
    slope = np.stack([-(s**2), t * (3.0 * t - 4.0), s * (4.0 - 3.0 * s), t**2], axis=-1) / 2.0
    return value, slope


def interpolate(coefficients: F32, grid: TableGrid, shifts_px: F64) -> tuple[F64, F64]:
    """Values (n,) and gradients (n, 2) of n tables (n, S, S) at shifts (n, 2), x and y in pixels of the box.

    Zero outside the tables.
    """
    size = coefficients.shape[-1]
    place = shifts_px / grid.step_px + grid.half
    inside = np.all((place >= 1.0) & (place < size - 2.0), axis=1) & np.all(np.isfinite(place), axis=1)
    base = np.where(inside[:, None], np.floor(np.where(inside[:, None], place, 1.0)), 1.0).astype(np.intp)
    (vx, sx), (vy, sy) = (_weights(np.where(inside, place[:, axis] - base[:, axis], 0.0)) for axis in (0, 1))
    around = np.arange(-1, 3)
    patch = coefficients[
        np.arange(len(base))[:, None, None],
        (base[:, 1, None] + around)[:, :, None],
        (base[:, 0, None] + around)[:, None],
    ].astype(np.float64)
    value = np.einsum("nyx,ny,nx->n", patch, vy, vx)
    gradient = np.stack([np.einsum("nyx,ny,nx->n", patch, vy, sx), np.einsum("nyx,ny,nx->n", patch, sy, vx)], axis=1)
    return np.where(inside, value, 0.0), np.where(inside[:, None], gradient / grid.step_px, 0.0)
