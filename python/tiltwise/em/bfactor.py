"""`tiltwise bfactor-plot`: the resolution that fewer particles of a set reach, and what more would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, least_squares

from tiltwise.em.bfactor_fit import Fit, Forecast, Point, fit_points, forecast, next_resolutions
from tiltwise.em.options import BFactorPlotOptions
from tiltwise.em.reconstruct import HALVES, PADDING, GivenPoses
from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.exec.memory import free_memory_bytes
from tiltwise.files import write_text
from tiltwise.kernels.select import load_backend
from tiltwise.maps.spectra import MIN_PRIOR_SHELL, half_maps
from tiltwise.maps.volumes import PackedSums, ball_of
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.randomised import masked_fsc

PARTS = (32, 16, 8, 4)
"""Numbers of parts into which each half set can be cut."""
LEAST_IN_PART = 4
"""Particles of a half set in the smallest part."""
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Parts in a subset."""
THRESHOLD = 0.143
WINDOW = (0.8, 1.4)
"""FSC from which on, and times the shell of the threshold to which, its course is fitted."""
LEAST_SHELLS = 4
NEAR_ENOUGH = (0.3, 3.0)
"""Times the shell where a curve first falls below a threshold, between which its smooth course does."""
NEAR_NYQUIST = 0.95
"""Share of the Nyquist frequency from which on images, not particles, limit the resolution."""
MISFIT = 3.0
"""Misfit from which on the points are said not to follow the law."""
WILSON_ANGSTROM = 10.0
"""Resolution from which on spectra of proteins are flat."""


@dataclass(frozen=True, slots=True)
class BFactorResult:
    """Points, line and forecast."""

    points: tuple[Point, ...]
    fit: Fit
    forecasts: tuple[Forecast, ...]
    resolution_angstrom: float
    """of all particles"""
    particles: int
    parts: int
    nyquist_angstrom: float
    outputs: Mapping[str, Path]


class BFactorPlot:
    """Data and options of one run."""

    options: BFactorPlotOptions

    def __init__(self, options: BFactorPlotOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.data = GivenPoses(options, job, progress)
        self.rng = np.random.default_rng(options.seed)
        self.source = self.data.optset.particles.source_index
        self.parts = self._number_of_parts()
        self.part_of = self._cut()

    def _number_of_parts(self) -> int:
        """As many as particles and memory allow."""
        counts = [len(np.unique(self.source[(self.data.halves == half) & self.data.seen])) for half in HALVES]
        possible = [number for number in PARTS if number * LEAST_IN_PART <= min(counts)]
        if not possible:
            least = 2 * PARTS[-1] * LEAST_IN_PART
            raise DataError(
                "too few particles for subsets",
                where="--i",
                expected=f"at least {least}, {least // 2} in each half set",
                found=f"{counts[0]} and {counts[1]}",
                fix="collect more particles; tiltwise reconstruct tells the resolution of these",
            )
        box = self.data.source.box
        voxels = len(ball_of(box, PADDING * box)[0])
        limit = self.options.memory * 1e9 if self.options.memory else (free_memory_bytes() or 16e9) / 2
        # parts of both halves, and some sums and maps in the making
        fitting = [number for number in possible if (2 * number + 8) * voxels * 12 <= limit]
        if not fitting:
            fitting = [possible[-1]]
        if fitting[0] < possible[0]:
            self.job.warn(
                f"memory is short: half sets are cut into {fitting[0]} parts instead of {possible[0]}, and the "
                "smallest subsets are larger than they could be"
            )
        return fitting[0]

    def _cut(self) -> NDArray[np.int64]:
        """(P,) random part of every particle in its half set, parts as equal as can be; -1 of those not seen."""
        part_of = np.full(len(self.data.halves), -1)
        for half in HALVES:
            members = np.flatnonzero((self.data.halves == half) & self.data.seen)
            part_of[members] = random_parts(self.source[members], self.parts, self.rng)
        return part_of

    def run(self) -> BFactorResult:
        """Sum every part once, measure all subsets, fit and foretell."""
        with self.job.timing("sums"), self.progress.task("particles", int(self.data.seen.sum())) as task:
            sums = self._sums(task.advance)
        chosen = list(subsets(self.parts, self.options.draws, self.rng))
        points = []
        with self.job.timing("subsets"), self.progress.task("subsets", len(chosen)) as task:
            for parts in chosen:
                self.job.check_abort()
                points.append(self._measure(sums, parts))
                task.advance()
        return self._result(points)

    def _sums(self, advance: Any) -> dict[int, list[PackedSums]]:
        noise, backend = self.data.noise(), load_backend(self.options.backend)
        sums: dict[int, list[PackedSums]] = {half: [] for half in HALVES}
        unit: float | None = None
        for half in HALVES:
            for part in range(self.parts):
                chosen = (self.data.halves == half) & (self.part_of == part)
                packed = PackedSums.of(self.data.sums(chosen, noise, backend, advance), unit)
                unit = packed.unit
                sums[half].append(packed)
        return sums

    def _measure(self, sums: Mapping[int, Sequence[PackedSums]], parts: tuple[frozenset[int], frozenset[int]]) -> Point:
        """Resolution of half maps of some parts of each half set."""
        corrected = self.options.mask is not None
        halves = (sums[HALVES[0]], sums[HALVES[1]])
        curve, pixels = resolution_of(halves, parts, self.data.mask, corrected, self.options.seed, self.data.threads)
        resolution = pixels * self.data.source.pixel_size
        count = sum(
            int(((self.data.halves == half) & np.isin(self.part_of, list(own))).sum())
            for half, own in zip(HALVES, parts, strict=True)
        )
        return Point(count, parts, resolution, self._limited(curve, resolution))

    def _limited(self, curve: NDArray[np.float64], resolution: float) -> str:
        """Why a resolution says nothing about the number of particles; empty if it does."""
        box, pixel = self.data.source.box, self.data.source.pixel_size
        if not (curve[1:] < THRESHOLD).any():
            return "the FSC never falls below 0.143: the images end at Nyquist, use less binning"
        if resolution < 2.0 * pixel / NEAR_NYQUIST:
            return "the resolution is at Nyquist, use less binning"
        if box * pixel / resolution < MIN_PRIOR_SHELL:
            return f"the FSC falls below 0.143 in the first {MIN_PRIOR_SHELL} shells"
        if self.options.lowres is not None and resolution > self.options.lowres:
            return f"the resolution is worse than --lowres {self.options.lowres:g} Å"
        return ""

    def _result(self, points: list[Point]) -> BFactorResult:
        fit, whole = fit_points(points), points[-1]
        nyquist = 2.0 * self.data.source.pixel_size
        forecasts: list[Forecast] = []
        self.job.metric("resolution_angstrom", whole.resolution_angstrom)
        if fit.refused:
            self.job.warn(f"there is no B-factor: {fit.refused}")
        else:
            wanted = self.options.wanted_angstrom or next_resolutions(fit, whole.particles, nyquist)
            forecasts = forecast(fit, whole.particles, wanted, nyquist)
            self.job.metric("bfactor_angstrom2", fit.bfactor_angstrom2)
            self.job.metric("bfactor_sigma_angstrom2", fit.bfactor_sigma)
            self._warn(points, fit)
        outputs = {"table": self.job.path("bfactor.json")}
        content = {
            "particles": [point.particles for point in points],
            "resolution_angstrom": [round(point.resolution_angstrom, 4) for point in points],
            "limited": [point.limited for point in points],
            "refused": fit.refused,
            "bfactor_angstrom2": _known(fit.bfactor_angstrom2),
            "bfactor_sigma_angstrom2": _known(fit.bfactor_sigma),
            "plain_bfactor_angstrom2": _known(fit.plain_angstrom2),
            "misfit": _known(fit.misfit),
            "forecast": [
                {
                    "resolution_angstrom": one.resolution_angstrom,
                    "particles": _known(one.particles),
                    "low": _known(one.low),
                    "high": _known(one.high),
                    "refused": one.refused,
                }
                for one in forecasts
            ],
        }
        write_text(outputs["table"], json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        self.job.add_output(outputs["table"])
        return BFactorResult(
            tuple(points),
            fit,
            tuple(forecasts),
            whole.resolution_angstrom,
            whole.particles,
            self.parts,
            nyquist,
            outputs,
        )

    def _warn(self, points: Sequence[Point], fit: Fit) -> None:
        usable = [point.resolution_angstrom for point in points if not point.limited]
        if fit.misfit > MISFIT:
            self.job.warn(
                f"the points do not follow the law (misfit {fit.misfit:.1f}, expected 1): the forecast is not to be "
                "trusted. --lowres leaves out subsets of low resolution"
            )
        if min(usable) > WILSON_ANGSTROM:
            self.job.warn(
                f"all subsets are worse than {WILSON_ANGSTROM:.0f} Å, where the shape of the particle, not a B-factor, "
                "makes its spectrum fall: the forecast holds for resolutions like these, not for finer ones"
            )


def subsets(parts: int, draws: int, rng: np.random.Generator) -> Iterator[tuple[frozenset[int], frozenset[int]]]:
    """Random unions of parts of either half, small ones first, all of them last.

    Of every size there are `draws`; as many of them as possible share no part.  The parts of the two halves are drawn
    independently of each other.
    """
    for size in (size for size in SIZES if size < parts):
        drawn = 0
        while drawn < draws:
            orders = [rng.permutation(parts) for _ in HALVES]
            for start in range(0, parts - size + 1, size):
                if drawn < draws:
                    one, two = (frozenset(int(p) for p in order[start : start + size]) for order in orders)
                    yield one, two
                    drawn += 1
    yield frozenset(range(parts)), frozenset(range(parts))


def resolution_of(
    halves: tuple[Sequence[PackedSums], Sequence[PackedSums]],
    parts: tuple[frozenset[int], frozenset[int]],
    mask: NDArray[np.float32],
    corrected: bool = False,
    seed: int = 1,
    threads: int = 1,
) -> tuple[NDArray[np.float64], float]:
    """FSC (N // 2 + 1,) of half maps of some parts of each half set inside a mask, and its resolution in pixels.

    `corrected` takes off what the mask correlates.
    """
    joined = []
    for sums, own in zip(halves, parts, strict=True):
        first, *others = sorted(own)
        total = sums[first].copy()
        for part in others:
            total.add(sums[part])
        joined.append(total)
    one, two, _ = half_maps(joined[0], joined[1], threads)
    curve = masked_fsc(one, two, mask, seed=seed).corrected if corrected else fsc(one, two, mask)
    return curve, len(mask) / crossing(curve)


def random_parts(source: NDArray[np.intp], parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) part of particles, parts as equal as can be; symmetry mates, whose `source` (n,) is one, stay together."""
    own, number = np.unique(source, return_inverse=True)
    part_of = np.empty(len(own), np.int64)
    part_of[rng.permutation(len(own))] = np.arange(len(own)) * parts // len(own)
    return part_of[number]


def crossing(curve: NDArray[np.float64], threshold: float = THRESHOLD) -> float:
    """Shell at which the smooth course of an FSC (N // 2 + 1,) falls below a threshold.

    Where a curve first falls below it is too early by chance, the more so the noisier it is: fewer particles would look
    worse than they are, and B smaller.  Near the threshold the signal-to-noise ratio is exp(a - b k^2) / k; that law
    is fitted to the shells from `WINDOW[0]` on to `WINDOW[1]` times its shell, weighted by k as their noise asks for.
    """
    first = found = 1.0 / resolution_angstrom(curve, 1, 1.0, threshold)
    shells = np.arange(len(curve), dtype=np.float64)
    for _ in range(3):
        used = slice(_start(curve, found), min(len(curve), int(np.ceil(WINDOW[1] * found)) + 2))
        if len(shells[used]) < LEAST_SHELLS:
            return first
        factor = _fitted(shells[used] / found, curve[used], threshold)
        if factor is None:
            return first
        found *= factor
    return float(min(found, len(curve) - 1.0))


def _fitted(t: NDArray[np.float64], values: NDArray[np.float64], threshold: float) -> float | None:
    """Where values (n,) at frequencies t (n,) in units of an expected crossing fall below it; None if nowhere near."""

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        ratio = np.exp(np.clip(p[0] - p[1] * t**2, -50, 50)) / t
        return np.asarray((values - ratio / (1.0 + ratio)) * t)

    level = float(np.log(threshold / (1.0 - threshold)))
    a, b = least_squares(residual, np.array([1.0 + level, 1.0]), method="lm", max_nfev=200).x

    def excess(one: float) -> float:
        return float(a - b * one**2 - np.log(one) - level)

    low, high = NEAR_ENOUGH
    return float(brentq(excess, low, high)) if excess(low) > 0 > excess(high) else None


def _start(curve: NDArray[np.float64], found: float) -> int:
    """Shell from which on a fit starts: the first below `WINDOW[0]`, at most half of the crossing, at least 1."""
    below = np.flatnonzero(~(curve[1:] >= WINDOW[0])) + 1
    return max(1, min(int(below[0]) if len(below) else 1, int(found / 2)))


def _known(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def run(options: BFactorPlotOptions, job: Job, progress: Progress) -> BFactorResult:
    """Measure subsets and fit; the entry point of `tiltwise bfactor-plot` and of Python scripts."""
    return BFactorPlot(options, job, progress).run()
