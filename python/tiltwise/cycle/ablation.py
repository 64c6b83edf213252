"""`tiltwise ablate`: what every family of corrections bought, each put back to what it was before.

All others stay, and so do poses.  Two things are measured with and without it: the FSC of half maps, and the
log-likelihood of the images of every particle, predicted from its own half set without its own fold, with references
made from the same values.  Parameters were fitted to these particles, too: chance gives about one nat for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.memory import allowed_bytes
from tiltwise.cycle.ablation_options import AblateOptions
from tiltwise.cycle.put_back import PutBack, changes, poses_back
from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.exec.threads import blas_threads, map_ahead, ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.files import write_text
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.kernels.select import default_threads, load_backend
from tiltwise.maps.cross_fit import HALVES, PADDING, CrossFit, affordable_folds, assign_folds
from tiltwise.maps.half_sets import half_sets
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.inputs import read_set, record, source_of
from tiltwise.maps.masks import focus_mask
from tiltwise.maps.spectra import half_maps
from tiltwise.maps.whitening import slice_matrices, whiten
from tiltwise.model import OptimisationSet, TiltSeries
from tiltwise.motion.verdict import spatial_blocks
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.randomised import masked_fsc

F64 = NDArray[np.float64]

CHUNK = 32
"""Particles whose images are held at a time."""
NOISE_SAMPLE = 40
"""Particles per series whose images give the noise power."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Maps and likelihoods of one set of values."""

    curve: F64
    """FSC of the half maps inside the mask, corrected for it"""
    without_fold: F64
    """(K, S) FSC inside the mask without one fold of either half set"""
    log_likelihood: F64
    """(P,) nats of the images of every particle over no particle at all"""
    seen: NDArray[np.bool_]
    """(P, F) images that there are"""


@dataclass(frozen=True, slots=True)
class Row:
    """One family."""

    family: str
    words: str
    """how large the correction was"""
    parameters: int | None
    gain: float
    """nats that all images gain by it"""
    sigma: float
    """of the gain, from spatial blocks of particles"""
    blocks: int
    resolution_angstrom: float
    """FSC 0.143 without it"""
    particles: int
    """seen by the same tilts with and without it: the others have no say in the gain"""
    mean_fsc: float
    """without it"""
    mean_fsc_gain: float
    mean_fsc_sigma: float
    """of the gain, from the folds"""
    curve: F64
    by_series: Mapping[str, float]
    """nats"""

    def plain(self) -> dict[str, Any]:
        """For `ablation.json`."""
        return {
            "family": self.family,
            "correction": self.words,
            "parameters": self.parameters,
            "gain_nats": round(self.gain, 2),
            "gain_sigma_nats": round(self.sigma, 2),
            "particles": self.particles,
            "blocks": self.blocks,
            "resolution_without_angstrom": round(self.resolution_angstrom, 3),
            "mean_fsc_without": round(self.mean_fsc, 5),
            "mean_fsc_gain": round(self.mean_fsc_gain, 5),
            "mean_fsc_gain_sigma": round(self.mean_fsc_sigma, 5),
            "gain_nats_by_series": {name: round(value, 2) for name, value in self.by_series.items()},
            "fsc_without": np.round(self.curve, 5).tolist(),
        }


@dataclass(frozen=True, slots=True)
class AblationResult:
    """What every correction bought."""

    rows: list[Row]
    table: Mapping[str, Any]
    """content of `ablation.json`"""
    outputs: Mapping[str, Path]


class Ablation:
    """Data and options of one run."""

    def __init__(self, options: AblateOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.optset = read_set(options, need_images=True)
        record(self.optset, job, progress)
        self.halves = half_sets(self.optset, options, job)
        self.threads = options.threads or default_threads()
        self.backend = load_backend(options.backend)
        source = source_of(options, self.optset)
        self.box, self.pixel_size = source.box, source.pixel_size
        self.mask = focus_mask(options.mask, options.particle_diameter, self.box, self.pixel_size, progress.note)
        self.count = affordable_folds(self.box, options.folds, allowed_bytes(options.memory))
        size = options.size_of_particle(self.pixel_size)
        self.folds = assign_folds(self.optset, self.halves, self.count, size, options.seed)
        poses = Poses.of(self.optset)
        self.seen, lost = source.leave_out_unseen(poses.displacement_angstrom)
        if lost:
            job.warn(lost)

        def load(particle: int) -> ParticleImages:
            return source.load(particle, poses.displacement_angstrom[particle])

        # weights are the same whatever is put back
        self.noise = initial_noise_power(source, load, self.threads, lambda n: None, NOISE_SAMPLE, self.seen)
        self.blocks = self._blocks(source)

    def _blocks(self, source: ParticleSource) -> NDArray[np.intp]:
        """(P,) spatial blocks of every series, numbered through."""
        result, last = np.full(len(self.optset.particles), -1, np.intp), 0
        for number in range(len(self.optset.series)):
            own = source.series_of == number
            blocks = spatial_blocks(self.optset.particles.coordinate_px[own], self.seen[own])
            result[own] = np.where(blocks >= 0, blocks + last, -1)
            last = int(result.max(initial=-1)) + 1
        return result

    def put_back(self) -> list[PutBack]:
        """What differs from before."""
        options = self.options

        def read(path: Path) -> OptimisationSet:
            return load_optimisation_set(path, need_images=False, coordinate_binning=options.coordinate_binning)

        found = changes(self.optset, read(options.before))
        if options.first_poses is not None:
            first = poses_back(self.optset, read(options.first_poses), "poses of the first search")
            found += [] if first is None else [first]
        return found

    def measure(self, optset: OptimisationSet, poses: Poses) -> Measured:
        """Maps from these values, and the likelihoods of all images.

        Raises
        ------
        DataError
            if the half maps do not agree.
        """
        source = source_of(self.options, optset)
        symmetry = symmetry_matrices(self.options.symmetry)
        fit = CrossFit(self.box, self.mask, self.backend, self.threads, symmetry, self.count)
        chunks = []
        for half, fold in fit.keys:
            for number in range(len(optset.series)):
                own = (source.series_of == number) & (self.halves == half) & (self.folds == fold) & self.seen
                members = np.flatnonzero(own)
                chunks += [((half, fold), number, members[i : i + CHUNK]) for i in range(0, len(members), CHUNK)]

        def load(particle: int) -> ParticleImages:
            return source.cut(particle, poses.displacement_angstrom[particle])

        asked = [[int(m) for m in members] for _, _, members in chunks]
        for (key, number, members), images in zip(chunks, map_ahead(load, asked, self.threads), strict=True):
            self.job.check_abort()
            noise = self.noise[number]
            fit.add(*key, optset.series[number], images, poses.rotation[members], noise, source.disc)
        fit.finish()
        shells = source.disc.n_shells
        cross, square = np.zeros((2, len(optset.particles), shells))
        seen = np.zeros((len(optset.particles), max(series.n_tilts for series in optset.series)), bool)
        volumes = dict(zip(fit.keys, ordered_map(lambda key: fit.reference(*key), fit.keys, self.threads), strict=True))
        used = source.disc.count(min(fit.shell + 1.0, self.box / 2))
        frequencies, shell = source.disc.frequencies3d(used), source.disc.shells[:used]
        for (key, number, members), images in zip(chunks, map_ahead(load, asked, self.threads), strict=True):
            self.job.check_abort()
            series, volume = optset.series[number], volumes[key]

            def compare(
                item: tuple[int, ParticleImages],
                series: TiltSeries = series,
                volume: NDArray[np.complex64] = volume,
                noise: F64 = self.noise[number],
            ) -> None:
                particle, image = item
                white = whiten(image, source.disc, noise, used)
                matrices = slice_matrices(series, image.tilts, poses.rotation[particle][None], float(PADDING))
                predicted = self.backend.project(volume, matrices, frequencies, len(volume) // 2, threads=1)
                shape = len(image.tilts), used
                own = (predicted.conj() * white.score_image.reshape(shape)).real.sum(axis=0)
                power = predicted.real**2 + predicted.imag**2
                cross[particle] = np.bincount(shell, own, shells)
                power *= white.score_power.reshape(shape)
                square[particle] = np.bincount(shell, power.sum(axis=0), shells)
                seen[particle, image.tilts] = True

            ordered_map(compare, zip(members.tolist(), images, strict=True), self.threads)
        return Measured(self.corrected(*fit.halves), self._without_folds(fit), calibrated(cross, square), seen)

    def corrected(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> F64:
        """FSC inside the mask, without what the mask adds."""
        return masked_fsc(first, second, self.mask).corrected

    def _without_folds(self, fit: CrossFit) -> F64:
        curves = []
        for fold in range(self.count):
            parts = [
                fit.totals[half].without(fit.sums[half, fold]) if (half, fold) in fit.sums else fit.totals[half]
                for half in HALVES
            ]
            first, second, _ = half_maps(parts[0], parts[1], self.threads)
            curves.append(fsc(first, second, self.mask))
        return np.array(curves)

    # ---- the run --------------------------------------------------------------------------------------------

    def run(self) -> AblationResult:
        """With everything, and without each family."""
        parts = self.put_back()
        rows: list[Row] = []
        with self.job.timing("sets"), self.progress.task("sets", 1 + len(parts)) as task:
            whole = self.measure(self.optset, Poses.of(self.optset))
            task.advance()
            for part in parts:
                try:
                    rows.append(self.row(part, whole, self.measure(part.optset, part.poses)))
                except DataError as error:
                    self.job.warn(f"without {part.family}: {str(error).splitlines()[0]}")
                task.advance()
        resolution = self.resolution(whole.curve)
        path = self.job.path("ablation.json")
        table = {
            "resolution_angstrom": round(resolution, 3),
            "mean_fsc": round(float(whole.curve[1:].mean()), 5),
            "fsc": np.round(whole.curve, 5).tolist(),
            "pixel_size_angstrom": self.pixel_size,
            "particles": int(self.seen.sum()),
            "folds": self.count,
            "rows": [row.plain() for row in rows],
        }
        write_text(path, json.dumps(table, indent=1, allow_nan=False) + "\n")
        self.job.add_output(path)
        self.job.metric("resolution_angstrom", resolution)
        for row in rows:
            self.job.metric(f"gain_nats_{row.family.replace(' ', '_')}", row.gain)
        return AblationResult(rows, table, {"table": path})

    def resolution(self, curve: F64) -> float:
        """FSC 0.143, Å."""
        return resolution_angstrom(curve, self.box, self.pixel_size, 0.143)

    def row(self, part: PutBack, whole: Measured, without: Measured) -> Row:
        """What a family bought."""
        # what one geometry shows and the other does not, at the edges of the images, says nothing
        same = (whole.seen == without.seen).all(axis=1)
        gains = np.where(same, whole.log_likelihood - without.log_likelihood, 0.0)
        gain, sigma, blocks = summed(gains, np.where(same, self.blocks, -1))
        mean = float(without.curve[1:].mean())
        lost = (whole.without_fold - without.without_fold)[:, 1:].mean(axis=1)
        names = np.array(self.optset.particles.tomogram)
        return Row(
            part.family,
            part.words,
            part.parameters,
            gain,
            sigma,
            blocks,
            self.resolution(without.curve),
            int((same & self.seen).sum()),
            mean,
            float(whole.curve[1:].mean()) - mean,
            jackknife(lost),
            without.curve,
            {series.name: float(gains[names == series.name].sum()) for series in self.optset.series},
        )


def calibrated(cross: F64, square: F64) -> F64:
    """(P,) log-likelihood from cross and quadratic terms (P, S) of every shell.

    Every shell of the references has the amplitude that fits all images best.  What regularisation takes from a
    reference depends on the FSC: without this, the set with the poorer maps may seem to predict better.
    """
    crosses, squares = cross.sum(axis=0), square.sum(axis=0)
    gain = np.maximum(np.divide(crosses, squares, out=np.zeros_like(crosses), where=squares > 0), 0.0)
    return np.asarray((2.0 * gain * cross - gain**2 * square).sum(axis=1))


def summed(gains: F64, block: NDArray[np.intp]) -> tuple[float, float, int]:
    """Sum of gains (P,), its standard deviation from blocks (P,) that are independent (-1: none), and their number.

    Raises
    ------
    DataError
        with fewer than two blocks, which tell no standard deviation.
    """
    known = block >= 0
    _, number = np.unique(block[known], return_inverse=True)
    sums = np.bincount(number, gains[known])
    n = len(sums)
    if n < 2:
        raise DataError(
            f"too few particles are seen by the same tilts with and without it ({int(known.sum())})",
            expected="at least two groups of particles, whose gains tell the error of their sum",
            fix="give a set with more particles; where tilts moved far, compare smaller steps",
        )
    return float(sums.sum()), float(np.sqrt(n) * sums.std(ddof=1)), n


def jackknife(values: F64) -> float:
    """Standard deviation of a number from its values (K,) without one of K parts of the data each."""
    n = len(values)
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))


def run(options: AblateOptions, job: Job, progress: Progress) -> AblationResult:
    """Put corrections back one by one; the entry point of `tiltwise ablate` and of Python scripts."""
    with blas_threads(1):
        return Ablation(options, job, progress).run()
