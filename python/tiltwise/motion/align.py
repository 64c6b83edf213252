"""`tiltwise align`: geometry of the tilts, positions and motion of the particles (Eqs. 31-42).

References are made from the particles as they are, every particle is predicted without itself, correlations of its
images with the predictions are tabulated, and tilts, positions and motion climb to the best sum of correlations.
The references of the next round are made from what was found.  At the end held-out data judge every family of
parameters, series by series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.exec import Job, Progress
from tiltwise.exec.threads import blas_threads, ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import refuse_nonrigid
from tiltwise.kernels.select import default_threads, load_backend
from tiltwise.maps.cross_fit import HALVES, CrossFit, assign_folds
from tiltwise.maps.given import GivenReferences, refuse_mirrored
from tiltwise.maps.half_sets import half_sets
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.inputs import read_set, record, source_of
from tiltwise.maps.masks import focus_mask
from tiltwise.maps.spectra import last_used_shell
from tiltwise.model import OptimisationSet
from tiltwise.motion.drift import common_drift
from tiltwise.motion.fits import Fits
from tiltwise.motion.geometry import Alignment
from tiltwise.motion.memory import AlignMemory, plan_align
from tiltwise.motion.objective import Evidence, Free
from tiltwise.motion.options import AlignOptions
from tiltwise.motion.priors import Priors
from tiltwise.motion.results import SeriesResult, after_search, write_results
from tiltwise.motion.series import Correlator, SeriesData, centred
from tiltwise.motion.shifts import tilt_sums
from tiltwise.motion.state import Fitted, State
from tiltwise.motion.tables import TableGrid
from tiltwise.motion.verdict import FAMILIES
from tiltwise.motion.whole_images import ImageSearch, WholeShifts, search_is_useful, shifted

F64 = NDArray[np.float64]

HAND_SAMPLE = 40
"""Particles that tell maps from their mirror images."""
NOISE_SAMPLE = 40
"""Particles per series whose images give the noise power."""
BYTES_OF_COMPONENT = 12
"""Of an image that is kept: its transform and CTF."""


@dataclass(frozen=True, slots=True)
class AlignResult:
    """What an alignment ends with."""

    optset: OptimisationSet
    """as written"""
    series: list[SeriesResult]
    priors: Priors
    curves: list[F64]
    """FSC of the references of every round, zero beyond the shells used"""
    pixel_size: float
    outputs: Mapping[str, Path]

    def words(self) -> list[str]:
        """What came out, in sentences."""
        changed = [one for one in self.series if not one.reason]
        lines = [f"{len(changed)} of {len(self.series)} tilt series aligned."]
        if changed:
            square = np.concatenate([(one.moved_angstrom**2).sum(axis=2).ravel() for one in changed])
            lines.append(f"Predicted positions in the images moved by {np.sqrt(square.mean()):.1f} Å (rms).")
        for family in FAMILIES:
            judged = [one for one in self.series if family in one.applied]
            if judged:
                used = [one for one in judged if one.applied[family]]
                better = sum(any(v.family == family and v.improved for v in one.verdicts) for one in used)
                forced = f"; --force applied them in {len(used)}" if len(used) > better else ""
                lines.append(f"Held-out data support new {family} in {better} of {len(judged)} series{forced}.")
        clipped = sum(int(one.shared.clipped.sum()) for one in self.series if one.shared is not None)
        if clipped:
            lines.append(f"{clipped} tilts lie at the limit of --range: they may be shifted further.")
        return lines


class Alignments:
    """Data and options of one run."""

    def __init__(self, options: AlignOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.optset = read_set(options, need_images=True)
        record(self.optset, job, progress)
        self.halves = half_sets(self.optset, options, job)
        self.poses = Poses.of(self.optset)
        self.threads = options.threads or default_threads()
        self.backend = load_backend(options.backend)
        self.source = source_of(options, self.optset)
        self.box, self.pixel_size, self.disc = self.source.box, self.source.pixel_size, self.source.disc
        self.mask = focus_mask(options.mask, options.particle_diameter, self.box, self.pixel_size, progress.note)
        self.symmetry = symmetry_matrices(options.symmetry)
        self.data = self.original = self._data()
        self._refuse_unfit()
        self.memory = self._plan_memory()
        self.folds = self.memory.folds
        if self.folds < options.folds:
            job.warn(f"memory for {self.folds} instead of {options.folds} folds: references are noisier; see --memory")
        size = options.size_of_particle(self.pixel_size)
        self.fold = assign_folds(self.optset, self.halves, self.folds, size, options.seed)
        self.free = Free(options.fit_angles, options.fit_shifts, options.fit_positions)
        if options.shift_only:
            self.free = Free(angles=False, shifts=True, positions=False)
        inside = max(1, self.threads // len(self.data))
        self.fits = Fits(options, self.free, self.halves, job.check_abort, self.threads, inside)
        self._images: dict[int, ParticleImages] = {}
        self.searched: list[WholeShifts] = []
        progress.title(
            "align",
            {
                "particles": len(self.optset.particles),
                "tilt series": len(self.optset.series),
                "box_px": self.box,
                "pixel_size_angstrom": self.pixel_size,
                "motion": options.motion,
                "deformation": options.deformation,
                "folds": self.folds,
            },
        )
        progress.note(str(self.memory))

    @property
    def reach_px(self) -> float:
        """Largest displacement that is looked for, in pixels of the images."""
        options = self.options
        reach = options.fit_range / self.pixel_size
        if options.range_px is not None:
            reach = options.range_px / options.binning
        return min(reach, 0.4 * self.box)

    def _plan_memory(self) -> AlignMemory:
        largest = TableGrid.create(self.disc, self.box / 2, self.reach_px)
        images = [int(data.seen.sum()) * data.series.n_tilts for data in self.data]
        return plan_align(
            self.options.memory,
            self.box,
            self.options.folds,
            images,
            4 * largest.size**2,
            BYTES_OF_COMPONENT * len(self.disc),
            self.threads,
        )

    def _data(self) -> list[SeriesData]:
        sigma = self.options.position_sigma
        return [SeriesData.of(self.source, self.poses, n, sigma) for n in range(len(self.optset.series))]

    def _refuse_unfit(self) -> None:
        """Raises DataError for data that cannot be aligned at all; warns of series that will stay as they are."""
        names = [one.series.name for one in self.data if not one.seen.any()]
        for name in names:
            self.job.warn(f"{name} has no particle that its tilt images show: it stays as it is")
        if len(names) == len(self.data):
            raise DataError(
                "no tilt series shows a particle",
                where="particles",
                fix="check coordinates and binning, or use a smaller --crop",
            )
        if self.options.fit_angles or self.options.fit_shifts or self.options.shift_only:
            refuse_nonrigid(self.optset, [one.series for one in self.data if one.seen.any()])
        unsized = [one.series.name for one in self.data if one.seen.any() and not all(one.series.image_size)]
        if self.options.deformation != "none" and unsized:
            raise DataError(
                "deformations need the tilt images",
                where=", ".join(unsized[:5]),
                found="extracted images alone: what they were cut from, and how large it was, is not known",
                fix="give tilt series whose images exist, or align without --deformation",
            )
        undosed = [one.series.name for one in self.data if not (one.dose > 0).any() and one.series.n_tilts > 1]
        if self.options.motion and undosed:
            raise DataError(
                "motion needs the order and dose of the tilts",
                where=", ".join(undosed[:5]),
                expected="different values of rlnMicrographPreExposure",
                found="the same value in all tilts",
                fix="write the dose before every tilt into the tilt series, or align without --motion",
            )

    # ---- images and references ---------------------------------------------------------------------------

    def image(self, particle: int) -> ParticleImages:
        """Images of a particle where it was at the start; kept if memory allows."""
        self.job.check_abort()
        kept = self._images.get(particle)
        if kept is not None:
            return kept
        images = self.source.load(particle, self.poses.displacement_angstrom[particle])
        size = images.data.nbytes + images.ctf2.nbytes
        if (len(self._images) + 1) * size <= self.memory.images:
            self._images[particle] = replace(images, masked=images.data)
        return images

    def references(self, noise: list[F64], fitted: list[Fitted]) -> CrossFit:
        """Sums of all folds from the alignments found so far."""
        fit = CrossFit(self.box, self.mask, self.backend, self.threads, self.symmetry, self.folds)
        with self.progress.task("references", len(self.optset.particles)) as task:
            turned, moved = [], []
            for data, now in zip(self.data, fitted, strict=True):
                turned.append(replace(data.series, projection=now.alignment.projection(now.specimen)[data.rank]))
                moved.append(now.alignment.predict(now.specimen)[:, data.rank] / self.options.binning)
            for half, fold in fit.keys:
                for data, series, power, shifts in zip(self.data, turned, noise, moved, strict=True):
                    of_fold = (self.halves[data.members] == half) & (self.fold[data.members] == fold) & data.seen
                    rows = np.flatnonzero(of_fold)

                    def load(row: int, data: SeriesData = data, shifts: F64 = shifts) -> ParticleImages:
                        images = self.image(int(data.members[row]))
                        return centred(images, shifts[row][images.tilts], self.disc)

                    images = ordered_map(load, [int(r) for r in rows], self.threads)
                    fit.add(half, fold, series, images, data.rotations[rows], power, self.disc)
                    task.advance(len(rows))
        fit.finish()
        return fit

    def _volumes(self, fit: CrossFit | GivenReferences) -> dict[tuple[int, int], NDArray[np.complex64]]:
        keys = [(half, fold) for half in HALVES for fold in range(self.folds)]
        alone = self.folds == 1
        made = ordered_map(lambda key: fit.reference(key[0], None if alone else key[1]), keys, min(self.threads, 2))
        return dict(zip(keys, made, strict=True))

    def noise(self) -> list[F64]:
        """sigma^2 (F, S) of every series."""
        seen = self.source.visible(self.poses.displacement_angstrom)
        return initial_noise_power(self.source, self.image, self.threads, lambda n: None, NOISE_SAMPLE, seen)

    # ---- shifts of any size ------------------------------------------------------------------------------

    @property
    def searches(self) -> bool:
        """Whether whole images are looked through first."""
        options = self.options
        if not options.shift_only or options.shift_by == "particles":
            return False
        if self.source.from_stacks and options.shift_by == "images":
            raise ConfigError(
                "there are no whole images to predict: particles come as stacks",
                where="--shift-by images",
                fix="use --shift-by particles, or give a tomogram set whose tilt images exist",
            )
        useful = not self.source.from_stacks and search_is_useful(self.data, options.size_of_particle(self.pixel_size))
        if options.shift_by == "auto":
            words = "whole images, then particles" if useful else "particles, which are crowded"
            self.progress.note(f"shifts are found from {words}: see --shift-by")
        return useful or options.shift_by == "images"

    def search(self, fit: CrossFit | GivenReferences, noise: list[F64]) -> list[WholeShifts]:
        """Shifts of all series by whole images, none where the halves contradict each other."""
        volumes, found = self._volumes(fit), []
        box_px = self.options.box * self.options.binning
        with self.progress.task("whole images", len(self.data)) as task:
            for data, power in zip(self.data, noise, strict=True):
                self.job.check_abort()
                halves, folds = self.halves[data.members], self.fold[data.members]
                shell, backend = fit.shell, self.backend
                one = ImageSearch.create(self.source, data, halves, folds, volumes, power, backend, shell, box_px)
                found.append(one.run(self.threads).accepted(self.options.force))
                task.advance()
        return found

    def move(self, found: list[WholeShifts]) -> list[SeriesData]:
        """Goes on with tilts that are shifted by what whole images say, if they were searched."""
        if not found:
            return self.data
        self.searched = found
        series = tuple(shifted(one, own.shift_px) for one, own in zip(self.optset.series, found, strict=True))
        self.source = source_of(self.options, replace(self.optset, series=series))
        self._images.clear()
        self.data = self._data()
        return self.data

    # ---- one round ---------------------------------------------------------------------------------------

    def drift(self, fitted: list[Fitted]) -> dict[int, F64]:
        """Of the maps that are made from the particles; given maps stay where they are."""
        if self.options.reference1 is not None or not self.free.positions:
            return {}
        return common_drift(self.data, [one.alignment.displacement_px for one in fitted], self.halves)

    def evidences(
        self,
        fit: CrossFit | GivenReferences,
        noise: Sequence[F64],
        fitted: Sequence[Fitted],
        series: Sequence[SeriesData] | None = None,
    ) -> list[Evidence]:
        """Correlations of all series, or of some."""
        series = self.data if series is None else series
        correlator = Correlator(
            self.disc,
            self.backend,
            self.threads,
            self.fits.inside,
            self.options.binning,
            min(fit.shell + 1.0, self.box / 2),
            self.reach_px,
        )
        volumes = self._volumes(fit)
        found = []
        with self.progress.task("correlations", len(series)) as task:
            for data, now, power in zip(series, fitted, noise, strict=True):
                keys = zip(self.halves[data.members], self.fold[data.members], strict=True)
                references = {row: volumes[int(half), int(fold)] for row, (half, fold) in enumerate(keys)}
                found.append(
                    correlator.evidence(data, now.alignment, now.specimen, self.image, references, power)
                    if data.seen.any()
                    else correlator.nothing()
                )
                task.advance()
        return found

    def fit(
        self, evidence: list[Evidence], fitted: list[Fitted], priors: Priors, number: int, *, last: bool
    ) -> tuple[list[Fitted], Priors]:
        """Alignments of all series in round `number`, and what was learned of the priors in the last round."""
        seen = [data.seen.any() for data in self.data]

        def rigid(i: int) -> Fitted:
            if not seen[i]:
                return fitted[i]
            return self.fits.rigid(self.data[i], evidence[i], fitted[i], self.free, number)

        with self.progress.task("fits", len(self.data)) as task:
            still = self.fits.each(rigid, len(self.data), task.advance)
        if not priors.families:
            return still, priors
        if last:  # the references of earlier rounds are too poor to learn from
            priors = self.fits.learn(self.data, evidence, still)

        def full(i: int) -> Fitted:
            if not seen[i]:
                return still[i]
            return self.fits.full(self.data[i], evidence[i], still[i], self.free, priors)[0]

        return self.fits.each(full, len(self.data), lambda done: None), priors

    def refuse_wrong_hand(self, given: GivenReferences, noise: list[F64], fitted: list[Fitted]) -> None:
        """Raises DataError if images look like mirror images of the maps that were given, at the alignment found."""
        number = int(np.argmax([data.seen.sum() for data in self.data]))
        data, now = self.data[number], fitted[number]
        sample = np.flatnonzero(data.seen)[:HAND_SAMPLE]
        data = replace(data, seen=np.isin(np.arange(len(data.seen)), sample))

        def correlation(maps: GivenReferences) -> F64:
            (one,) = self.evidences(maps, [noise[number]], [now], [data])
            found, _ = one.at(now.alignment.predict(now.specimen))
            return np.bincount(one.particle, found, len(data.seen))[sample].astype(np.float64)

        if len(sample) > 2:
            refuse_mirrored(correlation(given), [correlation(given.mirrored(axis)) for axis in range(3)])

    # ---- the run -----------------------------------------------------------------------------------------

    def run(self) -> AlignResult:
        """Rounds, verdicts, files."""
        options = self.options
        fitted, curves, done = self.start()
        with self.job.timing("noise power"):
            noise = self.noise()
        priors, given = self.fits.usual_priors, None
        if options.reference1 is not None and options.reference2 is not None:
            given = GivenReferences.read(
                (options.reference1, options.reference2), self.mask, self.pixel_size, options.opposite_half
            )
        if not done and self.searches:
            with self.job.timing("whole images"):
                self.move(self.search(given or self.references(noise, fitted), noise))
                noise = self.noise()
            fitted, _, _ = self.start()
        rounds = 1 if given is not None else options.rounds
        evidence: list[Evidence] = []
        for number in range(done, rounds):
            evidence.clear()  # tables of one round at a time
            with self.job.timing("references"):
                fit: CrossFit | GivenReferences = given or self.references(noise, fitted)
            curves.append(fit.curve)
            with self.job.timing("correlations"):
                evidence = self.evidences(fit, noise, fitted)
            del fit
            last = number == rounds - 1
            with self.job.timing("fits"):
                if given is not None:
                    evidence = [in_scale(one) for one in evidence]
                fitted, priors = self.fit(evidence, fitted, priors, number, last=last)
                if given is not None and not options.force:
                    self.refuse_wrong_hand(given, noise, fitted)
                if not last:
                    drift = self.drift(fitted)
                    settled = [self.fits.settled(data, one, drift) for data, one in zip(self.data, fitted, strict=True)]
                    fitted = [one.written_out() for one in settled]
                    State(number + 1, self.fold, self.folds, curves, fitted, self.searched).save(self.job)
            self._report_round(number, curves[-1], fitted, evidence, priors)
        with self.job.timing("verdicts"):
            drift = self.drift(fitted)
            parts = list(zip(self.data, evidence, fitted, strict=True))
            series = self.fits.each(lambda i: self.fits.conclude(*parts[i], priors, drift), len(parts), lambda n: None)
            for i, whole in enumerate(self.searched):
                series[i] = after_search(series[i], self.original[i], whole, evidence[i], self.free, options.seed)
        for one in series:
            if one.outlier_tilts or one.outlier_particles:
                self.job.warn(words_of_outliers(one))
        optset, outputs = write_results(self.job, self.optset, self.halves, series, priors)
        return AlignResult(optset, series, priors, curves, self.pixel_size, outputs)

    def start(self) -> tuple[list[Fitted], list[F64], int]:
        """Alignments to begin with, references so far, and rounds done: those of an earlier run if it was stopped."""
        state = State.load(self.job, self.move)
        if state is None:
            return [Fitted(data.specimen(), Alignment.none(data.specimen())) for data in self.data], [], 0
        self.progress.note(f"continues after round {state.rounds}")
        self.fold, self.folds = state.fold, state.folds
        return list(state.found), state.curves, state.rounds

    def _report_round(
        self, number: int, curve: F64, fitted: list[Fitted], evidence: list[Evidence], priors: Priors
    ) -> None:
        moved = [
            one.alignment.predict(one.specimen)[own.particle, own.tilt]
            for one, own in zip(fitted, evidence, strict=True)
        ]
        total = np.concatenate(moved) * self.optset.series[0].pixel_size_angstrom
        shell = last_used_shell(curve)
        self.job.iteration(
            {
                "round": number + 1,
                "reference_angstrom": self.box * self.pixel_size / max(shell, 1),
                "moved_rms_angstrom": float(np.sqrt((total**2).sum(axis=1).mean())),
                "moved_largest_angstrom": float(np.sqrt((total**2).sum(axis=1).max())),
                "velocity_angstrom_per_dose": priors.motion.velocity if priors.motion else 0.0,
                "length_angstrom": priors.motion.length_angstrom if priors.motion else 0.0,
                "deformation_angstrom": priors.deformation.sigma_angstrom if priors.deformation else 0.0,
            }
        )


def words_of_outliers(one: SeriesResult) -> str:
    """What is to be said of tilts and particles that stand out."""
    tilt = one.data.series.nominal_tilt_deg[one.data.order]
    blank = [f"{tilt[own.index]:.0f}°" for own in one.outlier_tilts if not own.signal]
    weak = [f"{tilt[own.index]:.0f}°" for own in one.outlier_tilts if own.signal]
    less = "less than half as well as the others"
    parts = []
    if blank:
        parts.append(f"no signal in tilts ({', '.join(blank)}), which stay where they were")
    if weak:
        parts.append(f"tilts ({', '.join(weak)}) agree {less}")
    if one.outlier_particles:
        count = len(one.outlier_particles)
        parts.append(f"{count} particle agrees {less}" if count == 1 else f"{count} particles agree {less}")
    return f"{one.data.series.name}: {'; '.join(parts)}: see outlier_tilts and outlier_particles in align.json"


def in_scale(evidence: Evidence) -> Evidence:
    """Evidence as from references in the grey scale of the images: `2 a cross - a^2 quadratic` is largest at a.

    From the maxima of the summed tables of the tilts, before anything is fitted.
    """
    cross = sum(float(total.max()) for _, total in tilt_sums(evidence))
    factor = cross / max(float(evidence.power.sum()), 1e-300)
    return evidence.scaled(factor) if factor > 0 else evidence


def run(options: AlignOptions, job: Job, progress: Progress) -> AlignResult:
    """Align tilt series; the entry point of `tiltwise align` and of Python scripts."""
    # what can be done at once is: images, particles and series, each on a thread of its own
    with blas_threads(1):
        return Alignments(options, job, progress).run()
