"""Shells of half-complex arrays: index round(|k|), weights that complete the full plane, averages.

Shell s holds all components with round(|k|) = s, k in cycles per box.  A spectrum has N // 2 + 1 entries;
corners beyond N // 2 belong to none.  Sums over shells count the full plane or volume: components with a
mate outside the half-complex array have weight 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def radii(size: int, ndim: int) -> NDArray[np.float64]:
    """|k| in cycles per box on the half-complex grid, `(size,) * (ndim - 1) + (size // 2 + 1,)`."""
    full = np.fft.fftfreq(size, 1.0 / size)
    axes = [full] * (ndim - 1) + [np.arange(size // 2 + 1, dtype=np.float64)]
    square = np.zeros(())
    for axis in axes:
        square = square[..., None] + axis**2
    return np.sqrt(square)


def shell_indices(size: int, ndim: int) -> NDArray[np.int32]:
    """round(|k|) on the half-complex grid of a `size`^`ndim` image or volume, int32."""
    return np.rint(radii(size, ndim)).astype(np.int32)


def half_weights(size: int) -> NDArray[np.float64]:
    """`(size // 2 + 1,)` weights along x that make sums over a half-complex array sums over the full one.

    2, but 1 at x = 0 and, for even sizes, at x = size / 2, whose mates are stored themselves.
    """
    weights = np.full(size // 2 + 1, 2.0)
    weights[0] = 1.0
    if size % 2 == 0:
        weights[-1] = 1.0
    return weights


def shell_totals(
    values: NDArray[np.floating[Any]], size: int, ndim: int, *, stored_once: bool = False
) -> NDArray[np.float64]:
    """Sums of a half-complex array `(..., size, size // 2 + 1)` over the shells of the full plane.

    The last `ndim` axes are the grid.  Returns `(..., size // 2 + 1)` float64.  With `stored_once` every stored
    component counts once, as RELION sums: those with x = 0, which hold their own mates, then weigh twice as much as the
    others.
    """
    shells = shell_indices(size, ndim).ravel()
    lead = values.shape[: values.ndim - ndim]
    flat = (values if stored_once else values * half_weights(size)).reshape(-1, shells.size)
    n = size // 2 + 1
    sums = [np.bincount(shells, weights=row, minlength=n)[:n] for row in flat]
    return np.asarray(sums, dtype=np.float64).reshape(*lead, n)


def shell_counts(size: int, ndim: int, *, stored_once: bool = False) -> NDArray[np.float64]:
    """Number of components of the full plane or volume in every shell, `(size // 2 + 1,)`; see `shell_totals`."""
    return shell_totals(np.ones((size,) * (ndim - 1) + (size // 2 + 1,)), size, ndim, stored_once=stored_once)


def shell_means(
    values: NDArray[np.floating[Any]], size: int, ndim: int, *, stored_once: bool = False
) -> NDArray[np.float64]:
    """Averages over the shells of the full plane, `(..., size // 2 + 1)`; see `shell_totals`."""
    totals = shell_totals(values, size, ndim, stored_once=stored_once)
    return totals / shell_counts(size, ndim, stored_once=stored_once)


def spread(profile: NDArray[np.floating[Any]], size: int, ndim: int) -> NDArray[np.float64]:
    """Values per shell `(size // 2 + 1,)` on the half-complex grid; corners beyond the last shell are 0."""
    padded = np.append(np.asarray(profile, dtype=np.float64), 0.0)
    return np.asarray(padded[np.minimum(shell_indices(size, ndim), size // 2 + 1)])
