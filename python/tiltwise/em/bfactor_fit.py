"""Resolution against the number of particles: B-factor, its error, and forecasts (Rosenthal and Henderson, 2003).

The power of a map falls as exp(-B / (2 d^2)), noise does not, and slices through the origin are as dense as 1 / k: the
resolution d of N particles obeys

    ln N = c + ln(1 / d) + (B / 2) / d^2

which is their Eq. 12.  Noise of an FSC moves d, not N: what is fitted is x = 1/d^2.  Its variance goes as 1 / x, since
shells hold as many components as k^2, and at a fixed FSC the slope of the curve against x does not depend on N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

F64 = NDArray[np.float64]
LEAST_SIZES = 3
"""Sizes of subsets through which a line is drawn at least."""
LEVEL = 0.95
"""Coverage of intervals."""
FARTHEST = 1000.0
"""Times as many particles as there are, beyond which nothing is foretold."""
SAME = 0.9
"""Correlation from which on two subsets are one."""


@dataclass(frozen=True, slots=True)
class Point:
    """One random subset."""

    particles: int
    parts: tuple[frozenset[int], frozenset[int]]
    """of each half set, those it is made of"""
    resolution_angstrom: float
    limited: str = ""
    """why its resolution says nothing: empty if it does"""

    @property
    def size(self) -> int:
        """Parts of each half set."""
        return len(self.parts[0])

    @property
    def x(self) -> float:
        """1/d² in 1/Å²."""
        return self.resolution_angstrom**-2


@dataclass(frozen=True, slots=True)
class Fit:
    """The line through points, or why there is none."""

    refused: str = ""
    """empty if there is a line"""
    constant: float = np.nan
    """c"""
    bfactor_angstrom2: float = np.nan
    covariance: F64 | None = None
    """(2, 2) of c and B, larger by the misfit where that is above 1"""
    plain_angstrom2: float = np.nan
    """twice the slope of ln N against 1/d², without ln(1/d): what RELION's plot calls the B-factor"""
    sigma: float = np.nan
    """standard deviation of x times sqrt(x), that of one subset"""
    freedom: float = np.nan
    """degrees of freedom of `sigma`"""
    misfit: float = np.nan
    """mean square of the residuals over their variance: 1 where points follow the law"""

    @property
    def bfactor_sigma(self) -> float:
        """Standard deviation of the B-factor in Å²."""
        return np.nan if self.covariance is None else float(np.sqrt(self.covariance[1, 1]))

    def log_particles(self, resolution_angstrom: float) -> tuple[float, float]:
        """Natural logarithm of the number of particles of a resolution, and its standard deviation."""
        assert self.covariance is not None
        x = resolution_angstrom**-2
        gradient = np.array([1.0, x / 2.0])
        value = self.constant + 0.5 * np.log(x) + self.bfactor_angstrom2 * x / 2.0
        return float(value), float(np.sqrt(gradient @ self.covariance @ gradient))

    def resolution(self, particles: float) -> float:
        """Resolution in Å that the law gives to so many particles; NaN where it gives none."""
        logarithm = np.log(particles)

        def excess(x: float) -> float:
            return float(self.constant + 0.5 * np.log(x) + self.bfactor_angstrom2 * x / 2.0 - logarithm)

        low, high = 1e-8, 1.0
        if not excess(low) < 0 < excess(high):
            return float("nan")
        return float(brentq(excess, low, high) ** -0.5)

    def times(self) -> float:
        """Factor of the interval: its half-width over the standard deviation."""
        return float(stdtrit(self.freedom, 0.5 + LEVEL / 2))


@dataclass(frozen=True, slots=True)
class Forecast:
    """Particles that a resolution needs."""

    resolution_angstrom: float
    refused: str = ""
    particles: float = np.nan
    low: float = np.nan
    high: float = np.nan
    """ends of the interval of 95 %"""


def correlation(first: Point, second: Point) -> float:
    """Of the noise of the FSCs of two subsets of m and n parts that share o and p parts of the halves: o p / (m n).

    Noise of the product of two sums over m parts is that of m^2 independent products, of which o p are in both.
    """
    shared = [len(a & b) for a, b in zip(first.parts, second.parts, strict=True)]
    return shared[0] * shared[1] / (first.size * second.size)


def fit_points(points: Sequence[Point]) -> Fit:
    """The law through all points; refused where they do not determine it.

    A size counts if none of its subsets is limited: those that by chance are not would make it look worse than it is.
    """
    limited = {point.size for point in points if point.limited}
    usable = [point for point in points if point.size not in limited]
    sizes = sorted({point.size for point in usable})
    if len(sizes) < LEAST_SIZES:
        reasons = sorted({point.limited for point in points if point.limited})
        because = f" ({'; '.join(reasons)})" if reasons else ""
        return Fit(f"{len(sizes)} sizes of subsets have a usable resolution, {LEAST_SIZES} are needed{because}")
    shared = np.array([[correlation(a, b) for b in usable] for a in usable])
    sigma, freedom = _scatter(usable, shared)
    if not sigma > 0:
        return Fit("subsets of the same size do not differ, so nothing is known of errors")
    x = np.array([point.x for point in usable])
    log_n = np.log([point.particles for point in usable])
    start = np.polynomial.polynomial.polyfit(x, log_n, 1)
    plain = 2.0 / float(np.polynomial.polynomial.polyfit(log_n, x, 1)[1])
    solved = _solve(x, log_n, shared, sigma, max(2.0 * float(start[1]), 1.0))
    if solved is None:
        return Fit("the resolution does not improve with the number of particles")
    constant, bfactor, covariance, misfit = solved
    # A spectrum that is no straight line moves all points of a size alike, which their differences do not show.
    covariance = covariance * max(1.0, misfit)
    fit = Fit("", constant, bfactor, covariance, plain, sigma, freedom, misfit)
    if not bfactor > 2.0 * fit.bfactor_sigma:
        return Fit(
            f"the B-factor found, {bfactor:.0f} Å², is no more than twice its standard deviation of "
            f"{fit.bfactor_sigma:.0f} Å²: the range of sizes or of resolutions is too small"
        )
    return fit


def _scatter(points: Sequence[Point], shared: F64) -> tuple[float, float]:
    """Standard deviation of x sqrt(x) of one subset, from differences of subsets of one size, and its freedom."""
    total = weight = freedom = 0.0
    for size in {point.size for point in points}:
        own = [i for i, point in enumerate(points) if point.size == size]
        pairs = [(i, j) for i in own for j in own if i < j and shared[i, j] < SAME]
        for i, j in pairs:
            mean = 0.5 * (points[i].x + points[j].x)
            total += (points[i].x - points[j].x) ** 2 * mean
            weight += 2.0 * (1.0 - shared[i, j])
        if pairs:
            # as many subsets as there are without common parts, less their mean
            parts = frozenset().union(*(points[i].parts[0] for i in own))
            freedom += max(min(len(own), len(parts) / size) - 1.0, 0.0)
    if weight == 0 or freedom < 1:
        return 0.0, 1.0
    return float(np.sqrt(total / weight)), freedom


def _solve(x: F64, log_n: F64, shared: F64, sigma: float, bfactor: float) -> tuple[float, float, F64, float] | None:
    """c, B, their covariance and the misfit: Gauss-Newton on x, weights x, errors with the correlations of subsets.

    Weights are those of independent points: with the correlations, which are modelled and nearly singular, the fit
    would hang on differences of subsets that share most of their particles.  The covariance has them.
    """
    constant = float(np.mean(log_n - 0.5 * np.log(x) - 0.5 * bfactor * x))
    for _ in range(50):
        slope = 0.5 / x + 0.5 * bfactor  # d ln N / dx
        if not (slope > 0).all():
            return None
        residual = (constant + 0.5 * np.log(x) + 0.5 * bfactor * x - log_n) / slope
        design = np.stack([np.ones_like(x), 0.5 * x], axis=1) / slope[:, None]
        root = np.sqrt(x)[:, None]  # over sigma: the inverse of the standard deviation of x
        step, *_ = np.linalg.lstsq(design * root, residual * root[:, 0], rcond=None)
        constant, bfactor = constant - float(step[0]), bfactor - float(step[1])
        if abs(step[1]) < 1e-6 * abs(bfactor) + 1e-9:
            break
    else:
        return None
    inverse = np.linalg.pinv(design * root) * root[:, 0]
    spread = sigma / np.sqrt(x)
    covariance = inverse @ (shared * np.outer(spread, spread)) @ inverse.T
    expected = _expected_misfit(design, root[:, 0], shared)
    misfit = float((residual**2 * x).sum() / sigma**2 / expected) if expected > 0 else np.nan
    return constant, bfactor, np.asarray(covariance), misfit


def _expected_misfit(design: F64, root: F64, shared: F64) -> float:
    """Sum of squared residuals over their variances that noise with these correlations leaves: trace(P R)."""
    whitened = design * root[:, None]
    projector = np.eye(len(root)) - whitened @ np.linalg.pinv(whitened)
    return float(np.trace(projector @ shared))


def forecast(fit: Fit, particles: int, wanted: Sequence[float], nyquist_angstrom: float) -> list[Forecast]:
    """Particles that every resolution needs, with the interval of 95 %, or why that cannot be told."""
    result = []
    for value in wanted:
        if value < nyquist_angstrom:
            result.append(
                Forecast(value, f"beyond Nyquist ({nyquist_angstrom:.1f} Å): measure with less binning first")
            )
            continue
        logarithm, sigma = fit.log_particles(value)
        reach = fit.times() * sigma
        if logarithm > np.log(particles * FARTHEST):
            result.append(Forecast(value, f"more than {FARTHEST:.0f} times the particles at hand: too far to tell"))
            continue
        ends = np.exp([logarithm, logarithm - reach, logarithm + reach])
        result.append(Forecast(value, "", *(float(end) for end in ends)))
    return result


def next_resolutions(fit: Fit, particles: int, nyquist_angstrom: float) -> list[float]:
    """Up to four round resolutions finer than that of all particles, of at most a hundred times as many."""
    now, best = fit.resolution(particles), fit.resolution(100.0 * particles)
    if not np.isfinite([now, best]).all():
        return []
    step = next(s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 1e9) if (now - best) / s <= 5)
    values = np.arange(np.ceil(now / step) - 1, 0, -1) * step
    return [round(float(v), 2) for v in values if v >= max(best, nyquist_angstrom)][:4]
