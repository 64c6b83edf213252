"""How much the defocus of a series scatters, learned from the tilts themselves (Eq. 30, empirical Bayes).

The final defocus of tilt f is drawn from a Gaussian about a common value, and so are the terms of its astigmatism:

    z_f ~ N(z, s^2),   a_f ~ N(a, s_a^2 I)

Widths are in Å and do not depend on box or pixel size.  Where the data say little, a tilt is drawn to its series.  A
tilt that locked to a wrong minimum of its likelihood says nothing about the scatter: one in ten is allowed to lie
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

F64 = NDArray[np.float64]
WIDTHS_ANGSTROM = (1.0, 1e5)
"""Limits of a learned width."""
OUTLIERS, OUTLIER_RANGE_ANGSTROM = 0.1, 6000.0
ITERATIONS = 30


@dataclass(frozen=True, slots=True)
class Scatter:
    """Values about a common one, with a given width."""

    centre: float
    variance: float
    """of the centre"""
    log_evidence: float
    """of the width, the centre integrated out"""


def scatter(values: F64, variances: F64, width: float) -> Scatter:
    """Of `values` (n,) with error variances (n,) that scatter with `width`."""
    total = variances + width**2
    order = np.argsort(values, kind="stable")
    share = np.cumsum(1.0 / total[order])
    centre = float(values[order][np.searchsorted(share, 0.5 * share[-1])])
    for _ in range(ITERATIONS):
        inside = (1.0 - OUTLIERS) * np.exp(-0.5 * (values - centre) ** 2 / total) / np.sqrt(2.0 * np.pi * total)
        density = inside + OUTLIERS / OUTLIER_RANGE_ANGSTROM
        weight = inside / density / total
        if not weight.sum() > 0:
            return Scatter(centre, float(1.0 / share[-1]), float(np.log(density).sum()))
        moved = float((weight @ values) / weight.sum())
        done = abs(moved - centre) < 1e-6
        centre = moved
        if done:
            break
    variance = float(1.0 / weight.sum())
    return Scatter(centre, variance, float(np.log(density).sum() + 0.5 * np.log(variance)))


def learned_width(groups: list[tuple[F64, F64]]) -> float:
    """Width in Å with the largest evidence, common to groups of values and variances, each about its own value.

    Infinite, that is no prior, for fewer than three values.
    """
    if sum(len(values) for values, _ in groups) - len(groups) < 2:
        return float("inf")
    low, high = (float(np.log(width)) for width in WIDTHS_ANGSTROM)
    grid = np.linspace(low, high, 60)

    def cost(log_width: float) -> float:
        width = float(np.exp(log_width))
        return -sum(scatter(values, variances, width).log_evidence for values, variances in groups)

    costs = [cost(float(point)) for point in grid]
    best = int(np.argmin(costs))
    bounds = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)]))
    return float(np.exp(minimize_scalar(cost, bounds=bounds, method="bounded").x))
