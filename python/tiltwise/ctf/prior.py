"""How much the defocus of a series scatters, learned from the tilts themselves (Eq. 30, empirical Bayes).

The final defocus of tilt f is drawn from a Gaussian about a common value, and so are the terms of its astigmatism:

    z_f ~ N(z, s^2),   a_f ~ N(a, s_a^2 I)

Widths are in Å and do not depend on box or pixel size.  Where the data say little, a tilt is drawn to its series.  A
tilt that locked to a wrong minimum of its likelihood says nothing about the scatter: one in ten is allowed to lie
anywhere.

Few tilts, or tilts that say little, leave the width open, down to zero.  So it is not the most likely width that is
taken, which would be zero half of the time and make all tilts the same, but the median of its posterior with a flat
prior; and what other widths would make of a tilt is part of its error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
WIDTHS_ANGSTROM = (1.0, 1e5)
"""Limits of a learned width."""
GRID = np.geomspace(*WIDTHS_ANGSTROM, 60)
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


@dataclass(frozen=True, slots=True)
class Learned:
    """Posterior of a width, on a grid."""

    width: float
    """its median in Å; infinite for fewer than three values"""
    share: F64
    """(W,) posterior probability of the widths of the grid"""
    at: list[list[Scatter]]
    """for each group, about each width of the grid"""

    def variance(self, group: int, values: F64, variances: F64) -> F64:
        """(n,) what not knowing the width adds to the variances of values drawn to their common one."""
        if not np.isfinite(self.width):
            return np.zeros(len(values))
        chosen = np.flatnonzero(self.share > 1e-4 * self.share.max())
        parts = [drawn(values, variances, GRID[i], self.at[group][i]) for i in chosen]
        share = self.share[chosen] / self.share[chosen].sum()
        means, errors = (np.array([part[i] for part in parts]) for i in (0, 1))
        total = share @ (errors + means**2) - (share @ means) ** 2
        plain = drawn(values, variances, self.width, scatter(values, variances, self.width))[1]
        return np.asarray(np.maximum(total - plain, 0.0))


def drawn(values: F64, variances: F64, width: float, about: Scatter) -> tuple[F64, F64]:
    """Values drawn to a common one, and their variances."""
    share = width**2 / (width**2 + variances)
    return about.centre + share * (values - about.centre), share * variances + (1.0 - share) ** 2 * about.variance


def learned_width(groups: list[tuple[F64, F64]]) -> Learned:
    """Width in Å, common to groups of values and variances, each about its own value.

    Infinite, that is no prior, for fewer than three values.
    """
    if sum(len(values) for values, _ in groups) - len(groups) < 2:
        return Learned(float("inf"), np.zeros(len(GRID)), [])
    at = [[scatter(values, variances, float(width)) for width in GRID] for values, variances in groups]
    evidence = np.sum([[one.log_evidence for one in group] for group in at], axis=0)
    # points of the grid are as far apart as they are large
    share = np.exp(evidence - evidence.max()) * GRID
    share /= share.sum()
    middle = np.cumsum(share) - 0.5 * share
    return Learned(float(np.exp(np.interp(0.5, middle, np.log(GRID)))), share, at)
