"""Correlations of images with their predictions as functions of a shift (Eqs. 31-33), in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def cc_table(
    slices: NDArray[np.complexfloating],
    images: NDArray[np.complexfloating],
    powers: NDArray[np.floating],
    weights: NDArray[np.floating],
    rows: NDArray[np.integer],
    frequencies: NDArray[np.integer],
    cosines: NDArray[np.floating],
    sines: NDArray[np.floating],
    *,
    out: NDArray[np.floating] | None = None,
    threads: int = 0,
) -> tuple[NDArray[np.floating], F64]:
    """See `tiltwise.kernels.api.Backend.cc_table`."""
    n, count = slices.shape
    half = cosines.shape[1] - 1
    shifts = np.arange(-half, half + 1)
    kx, ky = frequencies.T
    along_x, along_y = (
        cosines.astype(np.float64)[np.abs(k)][:, np.abs(shifts)]
        + 1j * np.sign(np.outer(k, shifts)) * sines.astype(np.float64)[np.abs(k)][:, np.abs(shifts)]
        for k in (kx, ky)
    )
    v = slices.astype(np.complex128)
    weight = weights.astype(np.float64)[rows]
    energy = weight * powers[:, :count].astype(np.float64) * np.abs(v) ** 2
    moments = energy @ np.stack([np.ones(count), kx**2, kx * ky, ky**2], axis=1)
    tables = np.empty((n, len(shifts), len(shifts))) if out is None else out
    for i in range(n):
        z = weight[i] * v[i].conj() * images[i, :count].astype(np.complex128)
        tables[i] = np.real((z[:, None] * along_y).T @ along_x)
    return tables, moments


def _weights(t: F64) -> F64:
    """(3, n, 4) cubic B-spline at the four points around a place, and two derivatives; t in [0, 1)."""
    away = t[:, None] - np.arange(-1, 3)
    near, far = np.abs(away), 2.0 - np.abs(away)
    inner = near < 1.0
    value = np.where(inner, 2.0 / 3.0 - near**2 + near**3 / 2.0, far**3 / 6.0)
    slope = np.where(inner, -2.0 * near + 1.5 * near**2, -(far**2) / 2.0) * np.sign(away)
    bend = np.where(inner, -2.0 + 3.0 * near, far)
    return np.stack([value, slope, bend])


def cc_cost(tables: NDArray[np.floating], rows: NDArray[np.integer], shifts: F64, *, threads: int = 0) -> F64:
    """See `tiltwise.kernels.api.Backend.cc_cost`."""
    size = tables.shape[-1]
    place = shifts + size // 2
    inside = np.all((place >= 1.0) & (place < size - 2.0), axis=1)
    result = np.zeros((len(place), 6))
    base = np.floor(place[inside]).astype(np.intp)
    x, y = (_weights(place[inside, axis] - base[:, axis]) for axis in (0, 1))
    around = np.arange(-1, 3)
    patch = tables[
        rows[inside][:, None, None], (base[:, 1, None] + around)[:, :, None], (base[:, 0, None] + around)[:, None]
    ].astype(np.float64)
    for column, (of_x, of_y) in enumerate(((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))):
        result[inside, column] = np.einsum("nyx,ny,nx->n", patch, y[of_y], x[of_x])
    return result
