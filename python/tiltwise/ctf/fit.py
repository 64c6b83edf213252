"""Defocus and astigmatism of tilts: a grid over the defocus, then Newton steps (Eqs. 16, 27-30).

Parameters of a tilt are changes of its mean defocus and of the two terms of its astigmatism, in Å:

    defocus matrix = [[z + a1, a2], [a2, z - a1]],   phase error = -pi lambda (dz k^2 + da1 (kx^2 - ky^2) + da2 2 kx ky)

and, where it is asked for, of the phase shift in degrees, which lowers the phase at all frequencies alike.

The scale of the tilt is fitted with them: with l and q the linear and quadratic part of the likelihood, that of the
best scale is l^2 / (2 q).  A wrong defocus lowers l, so a scale fitted alone would follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.kernels.api import Backend

F64 = NDArray[np.float64]
DEFOCUS_TERMS = 3
PHASE_SHIFTS_DEG = tuple(range(-150, 181, 30))
"""Changes of the phase shift from which a fit begins."""
STARTS = 3
"""Best minima of the grid from which Newton steps begin."""
HOPELESS, HOPELESS_NATS = 0.3, 30.0
"""Starts this much below the best one, as a share of its log-likelihood and in nats at least, are left out."""
STEPS = 30
ANGSTROM, DEGREES = 100.0, 10.0
"""Units of parameters inside the solver."""
TOLERANCE = 1e-4
"""Newton steps end where they become shorter, in the unit of the solver."""
STEPS_PER_PERIOD = 8
"""Points of the grid per period of the CTF at the highest frequency."""


def defocus_basis(wavelength: float, kx: F64, ky: F64) -> F64:
    """(3, K) phase in radians per Å of mean defocus and of either astigmatism term, at kx, ky in 1/Å (Eq. 29)."""
    return np.asarray(-np.pi * wavelength * np.stack([kx * kx + ky * ky, kx * kx - ky * ky, 2.0 * kx * ky]))


def units(count: int) -> F64:
    """(P,) units of the solver, of defocus and astigmatism, and of the phase shift if there are four parameters."""
    return np.array([ANGSTROM] * DEFOCUS_TERMS + [DEGREES])[:count]


@dataclass(frozen=True, slots=True)
class Prior:
    """Gaussian on the P parameters of every tilt (Eq. 30), in Å and degrees."""

    mean: F64
    """(F, P)"""
    precision: F64
    """(P,)"""
    mean_variance: F64
    """(P,) of the mean, whose error all tilts share"""
    extra: F64
    """(F, P) variance that is added because the precision is not known"""

    @classmethod
    def flat(cls, n_tilts: int, count: int) -> Prior:
        """No prior."""
        return cls(np.zeros((n_tilts, count)), np.zeros(count), np.zeros(count), np.zeros((n_tilts, count)))

    def widened(self, tilt: int, covariance: F64) -> F64:
        """(P, P) covariance of the fit of a tilt with this prior, the errors of the prior included."""
        pull = covariance * self.precision
        return np.asarray(covariance + (pull * self.mean_variance) @ pull.T + np.diag(self.extra[tilt]))


@dataclass(frozen=True, slots=True)
class TiltFit:
    """Fit of all F tilts of a series: P parameters, mean defocus and astigmatism in Å, and phase shift in degrees."""

    change: F64
    """(F, P); 0 without evidence"""
    covariance: F64
    """(F, P, P) inverse Hessian of the fit, the prior and the error of its mean included; NaN without evidence"""
    gain: F64
    """(F,) log-likelihood of the fit minus that of no change, prior not included"""
    known: NDArray[np.bool_]
    """(F,) tilts with evidence, whose Hessian is that of a maximum"""

    @property
    def sigma(self) -> F64:
        """(F, P) standard deviations."""
        return np.asarray(np.sqrt(np.einsum("fii->fi", self.covariance)))


@dataclass(frozen=True, slots=True)
class WeightedEvidence:
    """Condensed evidence with all weights, so that `log L = a b.u - a^2 / 2 u.R.u` summed over pixels."""

    matrices: F64
    """(F, 3, K)"""
    vectors: F64
    """(F, 2, K)"""
    squares: NDArray[np.int64]
    """(K,) kx^2 + ky^2 in cycles per box, ascending"""


def defocus_grid(wavelength: float, highest: float, low: float, high: float) -> F64:
    """Changes of defocus in Å from `low` to `high`, both included, with 0, and several per period of the CTF.

    A change that turns the phase by 2 pi at the highest frequency (1/Å) is one period.
    """
    step = 2.0 / (wavelength * highest**2) / STEPS_PER_PERIOD
    below = np.linspace(low, 0.0, 1 + int(np.ceil(-low / step))) if low < 0 else np.array([low])
    above = np.linspace(0.0, high, 1 + int(np.ceil(high / step))) if high > 0 else np.array([high])
    return np.unique(np.concatenate([below, above]))


def grid_likelihood(
    evidence: WeightedEvidence, slope: float, grid: F64, fit_scale: bool, phase_shift_deg: float = 0.0
) -> F64:
    """(F, G) likelihood at changes of the mean defocus; the phase is `slope` x defocus x |k|^2 in cycles per box.

    Pixels of one |k| have the same phase error, so their sums are added first.
    """
    squares, starts = np.unique(evidence.squares, return_index=True)
    rings = np.add.reduceat(np.concatenate([evidence.matrices, evidence.vectors], axis=1), starts, axis=2)
    errors = np.outer(slope * squares, grid) - np.radians(phase_shift_deg)
    c, s = np.cos(errors), np.sin(errors)
    quadratic = rings[:, 0] @ (c * c) + 2.0 * (rings[:, 1] @ (c * s)) + rings[:, 2] @ (s * s)
    linear = rings[:, 3] @ c + rings[:, 4] @ s
    return profile(linear, quadratic) if fit_scale else np.asarray(linear - 0.5 * quadratic)


def profile(linear: F64, quadratic: F64) -> F64:
    """Likelihood at the best scale that is not negative."""
    positive = np.maximum(linear, 0.0)
    return np.asarray(np.divide(positive**2, 2.0 * quadratic, out=np.zeros_like(positive), where=quadratic > 0))


def local_maxima(values: F64, count: int) -> NDArray[np.intp]:
    """Indices of the largest local maxima along an axis of (G,), at most `count`, the largest first."""
    padded = np.pad(values, 1, constant_values=-np.inf)
    peaks = np.flatnonzero((values >= padded[:-2]) & (values >= padded[2:]))
    return peaks[np.argsort(-values[peaks], kind="stable")][:count]


class Objective:
    """Log-posterior of items, each some parameters of one tilt, with derivatives."""

    def __init__(
        self,
        evidence: WeightedEvidence,
        basis: F64,
        prior: Prior,
        backend: Backend,
        threads: int,
        *,
        fit_scale: bool,
        unit: F64,
    ) -> None:
        """`unit` (P,) are those of parameters in calls, in the units of `basis` (P, K) and `prior`."""
        self.evidence, self.prior, self.backend, self.threads = evidence, prior, backend, threads
        self.basis, self.fit_scale, self.unit = np.ascontiguousarray(basis * unit[:, None]), fit_scale, unit

    def __call__(self, rows: NDArray[np.int32], x: F64) -> tuple[F64, F64, F64, F64]:
        """Likelihood (n,), and value, gradient and Hessian of the posterior, at `x` (n, P)."""
        terms = self.backend.phase_cost(
            self.evidence.matrices, self.evidence.vectors, self.basis, x, rows, threads=self.threads
        )
        count = len(self.basis)
        upper = np.triu_indices(count)
        hessians = np.zeros((len(x), 2, count, count))
        hessians[:, :, upper[0], upper[1]] = hessians[:, :, upper[1], upper[0]] = terms[:, :, 1 + count :]
        (linear, quadratic), (gl, gq) = terms[:, :, 0].T, np.moveaxis(terms[:, :, 1 : 1 + count], 1, 0)
        hl, hq = np.moveaxis(hessians, 1, 0)
        if self.fit_scale:
            usable = (quadratic > 0) & (linear > 0)
            a = np.divide(linear, quadratic, out=np.zeros_like(linear), where=usable)
            value, gradient = 0.5 * a * linear, a[:, None] * gl - 0.5 * (a**2)[:, None] * gq
            # the scale follows: da = (gl - a gq) / q
            pull = gl - a[:, None] * gq
            follow = np.divide(pull, quadratic[:, None], out=np.zeros_like(gl), where=usable[:, None])
            hessian = a[:, None, None] * hl - 0.5 * (a**2)[:, None, None] * hq + follow[:, :, None] * pull[:, None, :]
        else:
            value, gradient, hessian = linear - 0.5 * quadratic, gl - 0.5 * gq, hl - 0.5 * hq
        precision = self.prior.precision * self.unit**2
        away = x - self.prior.mean[rows] / self.unit
        posterior = value - 0.5 * (away**2) @ precision
        return value, posterior, gradient - away * precision, hessian - np.diag(precision)


def maximise(objective: Objective, rows: NDArray[np.int32], start: F64) -> tuple[F64, F64, F64, F64]:
    """Damped Newton steps of all items at once: parameters, likelihood, posterior, Hessian."""
    x, damping = start.copy(), np.full(len(start), 1e-3)
    value, posterior, gradient, hessian = objective(rows, x)
    moving = np.ones(len(x), bool)
    for _ in range(STEPS):
        if not moving.any():
            break
        step = ascent(gradient, hessian, damping)
        trial = x + step
        small = np.abs(step).max(axis=1, initial=0.0) < TOLERANCE
        active = np.flatnonzero(moving & ~small)
        moving &= ~small
        if not len(active):
            break
        found = objective(rows[active], trial[active])
        better = found[1] >= posterior[active]
        kept = active[better]
        x[kept] = trial[kept]
        value[kept], posterior[kept], gradient[kept], hessian[kept] = (part[better] for part in found)
        damping[kept] *= 0.1
        damping[active[~better]] *= 10.0
        moving &= damping < 1e8
    return x, value, posterior, hessian


def ascent(gradient: F64, hessian: F64, damping: F64) -> F64:
    """(n, P) uphill steps: Newton where the surface is a hill, along the gradient with its curvature where not."""
    values, vectors = np.linalg.eigh(hessian)
    scale = np.maximum(np.abs(values).max(axis=1, initial=0.0), 1e-30)
    curvature = np.maximum(np.abs(values), 1e-6 * scale[:, None]) + (damping * scale)[:, None]
    along = np.einsum("nij,ni->nj", vectors, gradient) / curvature
    return np.asarray(np.einsum("nij,nj->ni", vectors, along))


def starts_of(objective: Objective, slope: float, grid: F64) -> list[list[F64]]:
    """For every tilt the best maxima on the grid, (P,) in the unit of the solver; none without evidence."""
    evidence, prior, unit = objective.evidence, objective.prior, objective.unit
    shifts = PHASE_SHIFTS_DEG if len(unit) > DEFOCUS_TERMS else (0,)
    scores = np.stack([grid_likelihood(evidence, slope, grid, objective.fit_scale, shift) for shift in shifts])
    scores -= 0.5 * prior.precision[0] * (grid - prior.mean[:, :1]) ** 2
    if len(unit) > DEFOCUS_TERMS:
        away = np.array(shifts)[:, None] - prior.mean[None, :, DEFOCUS_TERMS]
        scores -= 0.5 * prior.precision[DEFOCUS_TERMS] * (away**2)[:, :, None]
    starts: list[list[F64]] = []
    for tilt in range(len(evidence.matrices)):
        starts.append([])
        if not evidence.matrices[tilt].any():
            continue
        peaks = [(n, peak) for n, score in enumerate(scores[:, tilt]) for peak in local_maxima(score, STARTS)]
        values = np.array([scores[n, tilt, peak] for n, peak in peaks])
        order = np.argsort(-values, kind="stable")[: STARTS * min(len(shifts), 2)]
        for i in order[values[order] >= values[order[0]] - max(HOPELESS * abs(values[order[0]]), HOPELESS_NATS)]:
            start = prior.mean[tilt].copy()
            shift, start[0] = shifts[peaks[i][0]], grid[peaks[i][1]]
            start[DEFOCUS_TERMS:] = shift
            starts[-1].append(start / unit)
    return starts


def fit_tilts(objective: Objective, slope: float, grid: F64, bound: float) -> TiltFit:
    """Best change of every tilt: Newton steps from the best maxima on the grid.

    `slope` is that of `grid_likelihood`.  A maximum further than `bound` Å away does not count.
    """
    unit, count = objective.unit, len(objective.unit)
    starts = starts_of(objective, slope, grid)
    n_tilts = len(starts)
    change = np.zeros((n_tilts, count))
    covariance = np.full((n_tilts, count, count), np.nan)
    gain, known = np.zeros(n_tilts), np.zeros(n_tilts, bool)
    if not any(starts):
        return TiltFit(change, covariance, gain, known)
    items = np.repeat(np.arange(n_tilts), [len(one) for one in starts]).astype(np.int32)
    x, value, posterior, hessian = maximise(objective, items, np.concatenate([one for one in starts if one]))
    present = np.unique(items)
    zero = objective(present, np.zeros((len(present), count)))[0]
    for tilt, reference in zip(present, zero, strict=True):
        mine = np.flatnonzero((items == tilt) & (np.abs(x * unit)[:, :DEFOCUS_TERMS].max(axis=1) <= bound))
        if not len(mine):
            continue
        best = mine[int(np.argmax(posterior[mine]))]
        information = -hessian[best] / np.outer(unit, unit)
        if not np.linalg.eigvalsh(-hessian[best])[0] > 0 or not value[best] > 0:
            continue
        change[tilt], covariance[tilt] = x[best] * unit, objective.prior.widened(int(tilt), np.linalg.inv(information))
        gain[tilt], known[tilt] = value[best] - reference, True
    return TiltFit(change, covariance, gain, known)
