"""`tiltwise refine`: poses and map from tilt series, gold-standard half sets, until nothing is gained.

One iteration: E-step of every tilt series and half (poses marginalised, Eqs. 1-4), M-step (Eq. 11) with the
prior from the FSC of the halves, noise power from the residuals (Eq. 12), then the sampling of the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.accuracy import median_accuracy
from tiltwise.em.data import data_model, diameter_of, load_set, orientation_of, refuse_search_of_mates
from tiltwise.em.e_step import add_units, units_left
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.focus import Focus, focused
from tiltwise.em.folds import HalfSums, wanted_folds
from tiltwise.em.from_poses import refuse_no_map, sums_at_poses
from tiltwise.em.greyscale import fit_greyscale
from tiltwise.em.half_fsc import HalfFsc, effect_of_mask
from tiltwise.em.kept_sums import KeptSums
from tiltwise.em.memory import plan_refine
from tiltwise.em.noise_power import noise_power
from tiltwise.em.options import RefineOptions
from tiltwise.em.relaxed import warn_of_unsettled_mates
from tiltwise.em.relion_files import Progressed, RelionFiles, shell_table
from tiltwise.em.remote import executor_of
from tiltwise.em.results import with_poses, write_results
from tiltwise.em.scale import series_scales
from tiltwise.em.schedule import MOSTLY_SHARP, Schedule
from tiltwise.em.settings import Group, Settings
from tiltwise.em.state import HALVES, State, checkpoint_of, fold_count, state_from
from tiltwise.em.step import PADDING, Step, UnitRunner
from tiltwise.em.symmetry_check import MOST_SHELLS, SymmetryCheck, SymmetryRelaxation
from tiltwise.em.units import Key, RunningSums, Unit, UnitSums, total_noise, units_of
from tiltwise.em.warnings import report_audit, report_drift, report_new_halves
from tiltwise.exec import Job, Progress
from tiltwise.exec.executors import Executor, InProcess
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.geometry.symmetry import distance_to_mates_deg, symmetry_matrices
from tiltwise.kernels.select import default_threads, load_backend
from tiltwise.maps.cross_fit import assign_folds
from tiltwise.maps.initial import initial_noise_power, prepare_map
from tiltwise.maps.inputs import record
from tiltwise.maps.masks import check_diameter, focus_mask
from tiltwise.maps.spectra import (
    half_maps,
    join_low_resolution,
    joined_fsc,
    prior_from_fsc,
    resolution_shell,
)
from tiltwise.maps.volumes import Accumulator, solve_map
from tiltwise.model import OptimisationSet
from tiltwise.spectral.filters import EDGE_SHELLS
from tiltwise.spectral.fsc import resolution_angstrom
from tiltwise.spectral.randomised import MaskedFsc

HALF_1: Key = 1, 0
MOSTLY_FLAT = 0.5
"""Share of sharp posteriors below which the spheres of the maps are not believed."""


@dataclass(frozen=True, slots=True)
class RefineResult:
    """What a refinement ends with."""

    map: NDArray[np.float32]
    """joined map, prior applied"""
    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    """unfiltered half maps"""
    fsc: NDArray[np.float64]
    """of the half maps inside the mask, corrected for it if asked"""
    resolution_angstrom: float
    pixel_size: float
    optset: OptimisationSet
    estimates: list[PoseEstimate]
    history: list[dict[str, float]]
    stop_reason: str
    outputs: Mapping[str, Path]
    masked: MaskedFsc | None = None
    """with a mask from a file: what the mask does to the FSC"""
    symmetry: SymmetryCheck | None = None
    """with a point group: whether the particle has it"""
    focus: Focus | None = None
    """with --focus: the part that was refined"""


class Refinement:
    """One run: data, options and the loop over iterations."""

    def __init__(self, options: RefineOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.threads = options.threads or default_threads()
        self.backend = load_backend(options.backend)
        read = load_set(options, job.warn)
        refuse_search_of_mates(options, read, job.warn)
        parts = options, read, self.backend, self.threads, job, progress
        self.saved = job.load_checkpoint("refine")
        kept = None if self.saved is None else self.saved.state.get("rest_folds")
        self.optset, self.halves, self.focus = focused(
            *parts, folds=options.folds, kept_folds=kept, subtract=options.subtract
        )
        frame = None if self.focus is None else self.focus.frame
        self.diameter = diameter_of(options, self.optset) if frame is None else frame.diameter_angstrom
        self.symmetry = symmetry_matrices(options.symmetry)
        orientation = orientation_of(options, self.optset)
        self.wanted_folds = wanted_folds(options.folds, len(self.symmetry), fixed=options.skip_align)
        if self.saved is not None:
            self.wanted_folds = fold_count(self.saved)
        self.images = data_model(
            options, self.optset, self.backend, self.threads, self._plan_memory, job.check_abort, self.focus
        )
        self.box, self.pixel_size = self.images.box, self.images.pixel_size
        check_diameter(options.particle_diameter, self.box, self.pixel_size)
        self.runner = UnitRunner(self.images, self.backend, self.threads, orientation, job.check_abort)
        self.executor: Executor[Step, Unit, UnitSums] = InProcess(self.runner.run)
        self.folds = assign_folds(self.optset, self.halves, self.memory.folds, self.diameter, options.seed)
        sizes = self.diameter, self.box, self.pixel_size
        self.mask = focus_mask(options.mask, *sizes, progress.note) if frame is None else frame.mask
        self.half_fsc = HalfFsc(self.mask, options.solvent_correct_fsc, options.seed)
        self.nyquist = self.box / 2
        self._share_out()
        record(self.optset, job, progress)
        progress.title(
            "refine",
            {
                "particles": len(self.optset.particles),
                "tilt series": len(self.optset.series),
                "box_px": self.box,
                "pixel_size_angstrom": self.pixel_size,
                "symmetry": options.symmetry,
            },
        )
        progress.note(str(self.memory))
        if self.memory.folds < self.wanted_folds:
            loud = options.folds is not None or self.saved is not None
            (job.warn if loud else progress.note)(self.memory.fewer(self.wanted_folds, began=self.saved is not None))

    def _plan_memory(self, box: int, images: int) -> int:
        """Plan for maps of `box` voxels; bytes, of `images` that all would take, in which images may be kept."""
        options = self.options
        self.memory = plan_refine(
            box,
            PADDING,
            options.memory,
            symmetric=len(self.symmetry) > 1,
            folds=self.wanted_folds,
            workers=options.workers,
            images=images,
            others=0 if self.focus is None else self.focus.bytes_kept * (1 + options.workers),
        )
        return self.memory.images

    def files(self) -> RelionFiles:
        """Writer of the files that RELION users look at while a refinement runs."""
        return RelionFiles(
            self.job, self.options, self.optset, self.halves, self.symmetry, self.diameter, self.pixel_size
        )

    def shell_of(self, angstrom: float) -> int:
        """Shell of a resolution."""
        return round(self.box * self.pixel_size / angstrom)

    def _share_out(self) -> None:
        """Particles into units of work."""
        self.units = units_of(self.halves, self.folds, self.images.series_of)

    # ---- start ------------------------------------------------------------------------------------------

    def start(self) -> State:
        """State before the first iteration, or the one a checkpoint holds."""
        saved, self.saved = self.saved, None
        if saved is not None:
            if saved.state["iteration"]:
                self.progress.note(f"continues after iteration {saved.state['iteration']}")
            state, self.halves, self.folds = state_from(saved, self.optset)
            self._share_out()
            return state
        self.files().clear()
        options, density = self.options, None
        if options.reference is not None:
            density = prepare_map(options.reference, self.box, self.pixel_size, options.ini_high, self.progress.note)
            if self.focus is not None:
                density = self.focus.start(density)
        poses = Poses.of(self.optset)
        with self.job.timing("noise power"), self.progress.task("noise", len(self.optset.particles)) as task:

            def load(particle: int) -> ParticleImages:
                return self.images.load(particle, poses.displacement_angstrom[particle], 0)

            noise = initial_noise_power(self.images, load, self.threads, task.advance)
        schedule = Schedule(
            order=options.healpix_order,
            local_order=options.auto_local_healpix_order,
            oversampling=options.oversampling,
            sigma_ang_deg=options.sigma_ang,
            offset_range_angstrom=options.offset_range_angstrom or options.offset_range_px * self.pixel_size,
            offset_step_angstrom=options.offset_step_px * self.pixel_size,
            resolution_shell=max(1, self.shell_of(options.ini_high)),
            climb=options.climb,
            fixed=options.skip_align,
        )
        curve, contrast = np.zeros(self.box // 2 + 1), np.ones(len(self.optset.series))
        state = State(0, {}, poses, noise, schedule, options.sigma_offset or 10.0, curve, contrast)
        if density is None:
            self._begin_at_poses(state)
        else:
            self._begin_at_map(state, density)
        self.save(state)
        return state

    def _begin_at_map(self, state: State, density: NDArray[np.float32]) -> None:
        """Both halves see one map, in the grey scale of the images."""
        state.maps = dict.fromkeys(HALVES, density)
        with self.job.timing("grey scale"):
            expectation = self.runner.expectation(self._step(state, 0, final=False), HALF_1)
            end = self.box * self.pixel_size / self.options.ini_high + EDGE_SHELLS / 2
            factor = fit_greyscale(expectation, self._groups(state, None, expectation.map_count), end)
            self.runner.forget()
        self.job.event("greyscale", factor=factor)
        state.maps = dict.fromkeys(HALVES, density * np.float32(factor))

    def _begin_at_poses(self, state: State) -> None:
        """Every half sees the map of its own particles."""
        if not np.array_equal(self.optset.particles.half_set, self.halves):
            report_new_halves(self.job, known=bool(self.optset.particles.half_set.any()))
        with self.job.timing("half maps"), self.progress.task("half maps", len(self.optset.particles)) as task:
            sums = sums_at_poses(self.units, self.runner, state, self.symmetry, task.advance)
        self.half_fsc.flat = False
        self.maximise(state, sums, self.nyquist)
        refuse_no_map(state.curve, self.shell_of(self.options.low_resol_join_halves))
        state.schedule.begin_near(state.curve)

    def save(self, state: State) -> None:
        """Checkpoint from which `start` continues."""
        rest = None if self.focus is None else self.focus.rest_folds
        self.job.save_checkpoint("refine", *checkpoint_of(state, self.halves, self.folds, rest))

    # ---- one iteration ----------------------------------------------------------------------------------

    def _step(self, state: State, number: int, *, final: bool) -> Step:
        """E-step of iteration `number` from here; both halves see the same grid."""
        schedule = state.schedule
        fine = schedule.fine_radius(self.nyquist)
        settings = Settings(
            grid=schedule.grid(np.random.default_rng([self.options.seed, number]), self.options.relax_symmetry),
            coarse_radius=schedule.coarse_radius(self.diameter, self.box * self.pixel_size, self.nyquist),
            fine_radius=fine,
            map_radius=self.nyquist if final else fine,
            pixel_size=self.pixel_size,
            offset_sigma_angstrom=state.offset_sigma_angstrom,
            symmetry=self.symmetry,
            climb=schedule.climb,
            fixed=schedule.fixed,
            follow=schedule.follows or (final and schedule.local and schedule.sharp >= MOSTLY_SHARP),
        )
        references = {unit.key: state.reference(unit.key) for unit in self.units}
        return Step(settings, state.poses, state.noise, references, state.contrast)

    def _groups(self, state: State, half: int | None, count: int) -> list[Group]:
        """Particles of one half, or of both, series by series, with the first `count` pixels of every tilt."""
        groups = []
        for number, noise in enumerate(state.noise):
            chosen = self.images.series_of == number
            if half is not None:
                chosen &= self.halves == half
            members = np.flatnonzero(chosen)
            if len(members):
                contrast = float(state.contrast[number])
                groups.append(self.runner.group(number, members, state.poses, noise, contrast, count))
        return groups

    def _sums(self, state: State, *, final: bool) -> dict[Key, RunningSums]:
        """Sums of the E-step of every half set and fold."""
        number = state.iteration + 1
        step = self._step(state, number, final=final)
        self.kept = KeptSums(self.job, {unit.key for unit in self.units}, {"iteration": number, "final": final})
        sums = self.kept.load(self.box)
        left = units_left(self.units, sums)
        if sums:
            self.progress.note(
                f"continues in iteration {number}, {len(self.units) - len(left)} of {len(self.units)} units done"
            )
        total = len(self.optset.particles)
        with self.progress.task(f"iteration {number}", total) as task:
            task.advance(total - sum(len(unit.particles) for unit in left))
            sums = add_units(left, sums, self.box, self.executor.results(step, left, task.advance), self.kept)
        self.runner.forget()
        return sums

    def iterate(self, state: State, *, final: bool) -> tuple[HalfSums, list[PoseEstimate]]:
        """E-step and M-step sums; moves `state` to the new poses, noise power and offset width."""
        sums = self._sums(state, final=final)
        report_audit(self.job, [share for part in sums.values() for share in part.missed])
        estimates = {particle: found for part in sums.values() for particle, found in part.estimates.items()}
        ordered = [estimates[i] for i in range(len(self.optset.particles))]
        moved = state.poses.displacement_angstrom + np.stack([e.shift_angstrom for e in ordered])
        lost = ~self.images.visible(moved)
        if lost.any():
            self.job.warn(f"{lost.sum()} particles would leave every tilt image and keep their last position")
        state.poses.rotation = np.stack([e.rotation for e in ordered])
        state.poses.displacement_angstrom = np.where(lost[:, None], state.poses.displacement_angstrom, moved)
        if self.options.sigma_offset is None:
            state.offset_sigma_angstrom = float(max(np.sqrt(np.mean([e.square_offset for e in ordered]) / 3.0), 1.5))
        disc, parts = self.images.disc, list(sums.values())
        totals = [total_noise(parts, i, *old.shape) for i, old in enumerate(state.noise)]
        if self.options.scale:
            counts = np.bincount(self.images.series_of, minlength=len(totals)).astype(np.float64)
            state.contrast = series_scales(totals, state.noise, state.contrast, state.curve, counts)
        state.noise = [
            noise_power(total, disc, self.images.area_ratio, old, pooled=self.images.pooled)
            for total, old in zip(totals, state.noise, strict=True)
        ]
        state.iteration += 1
        return HalfSums.of(sums, self.symmetry, self.backend), ordered

    def maximise(self, state: State, sums: HalfSums, radius: float) -> None:
        """New references of both halves: FSC, prior, map, solvent (Eq. 11)."""
        accumulators = sums.totals
        limit = self.shell_of(self.options.low_resol_join_halves)
        join = self.half_fsc.shared_shell(accumulators, limit, self.shell_of(self.options.ini_high), state.curve)
        join_low_resolution(accumulators[1], accumulators[2], join)
        first, second, _ = half_maps(accumulators[1], accumulators[2])
        curve = self.half_fsc.curve(first, second, state.iteration)
        if state.iteration == 1:
            self._effect_of_mask(first, second, state.iteration)
        curve[int(radius) + 1 :] = 0.0
        state.curve = curve
        for half in HALVES:
            prior = prior_from_fsc(accumulators[half], curve, self.options.tau2_fudge)

            def solve(part: Accumulator, prior: NDArray[np.float64] = prior) -> NDArray[np.float32]:
                density = solve_map(part, prior, radius)
                return density * self.mask if self.options.flatten_solvent else density

            state.maps[half] = solve(accumulators[half])
            state.folds |= {key: solve(sums.without(key, join)) for key in sums.folds if key[0] == half}

    def _flat(self, estimates: list[PoseEstimate]) -> bool:
        """Whether most posteriors are spread over so many poses that they make spheres of noise."""
        return not self.options.skip_align and float(np.mean([e.sharp for e in estimates])) < MOSTLY_FLAT

    def _effect_of_mask(
        self, first: NDArray[np.float32], second: NDArray[np.float32], iteration: int
    ) -> MaskedFsc | None:
        """What a mask from a file does to the FSC; warns if that is much and is not corrected."""
        if self.options.mask is None and self.focus is None:
            return None
        curves = self.half_fsc.curves(first, second, iteration)
        found = effect_of_mask(curves, self.box, self.pixel_size)
        if found is not None and not self.options.solvent_correct_fsc:
            self.job.warn(f"iteration {iteration}: {found}")
        return curves

    def accuracy(self, state: State) -> tuple[float, float]:
        """Median accuracy of poses (degrees, Å) over a few particles of every series and half set."""
        count = self.images.disc.count(state.schedule.fine_radius(self.nyquist))
        parts = ((self.runner.scorer(state.maps[half]), self._groups(state, half, count)) for half in HALVES)
        return median_accuracy(parts, self.images.disc, count, self.pixel_size)

    # ---- the loop ---------------------------------------------------------------------------------------

    def run(self) -> RefineResult:
        """Iterate until nothing is gained, then finish with all data."""
        state = self.start()
        reason = f"stopped after --iter {self.options.iterations}"
        while state.iteration < self.options.iterations and not state.schedule.converged:
            began = monotonic()
            before = state.poses.rotation, state.poses.displacement_angstrom
            schedule = state.schedule
            radius, step, local = schedule.fine_radius(self.nyquist), schedule.fine_step_deg(), schedule.local
            with self.job.timing("iterations"):
                sums, estimates = self.iterate(state, final=False)
                self.half_fsc.flat = self._flat(estimates)
                self.maximise(state, sums, radius)
            accuracy_deg, accuracy_angstrom = self.accuracy(state)
            report_drift(self.job, state, self.pixel_size, accuracy_deg, accuracy_angstrom)
            moved = state.poses.displacement_angstrom - before[1]
            shift_change = float(np.sqrt((moved**2).sum(axis=1).mean() / 3.0))
            row = {
                "iteration": state.iteration,
                "resolution_angstrom": resolution_angstrom(state.curve, self.box, self.pixel_size, 0.5),
                "fsc0143_angstrom": resolution_angstrom(state.curve, self.box, self.pixel_size, 0.143),
                "angular_step_deg": step,
                "local": local,
                "accuracy_deg": accuracy_deg,
                "accuracy_angstrom": accuracy_angstrom,
                "change_deg": float(np.mean(distance_to_mates_deg(state.poses.rotation, before[0], self.symmetry))),
                "change_angstrom": shift_change,
                "max_probability": float(np.mean([e.max_probability for e in estimates])),
                "sharp": float(np.mean([e.sharp for e in estimates])),
                "significant_poses": float(np.median([e.n_significant for e in estimates])),
                "seconds": monotonic() - began,
            }
            self.job.iteration(row)
            state.history.append(row)
            schedule.update(
                min(resolution_shell(state.curve), int(radius)),
                accuracy_deg,
                accuracy_angstrom,
                float(row["change_deg"]),
                shift_change,
                state.curve,
                float(row["sharp"]),
            )
            with self.job.timing("files"):
                self.files().iteration(
                    state,
                    sums.totals,
                    estimates,
                    Progressed.of(state.history, float(row["resolution_angstrom"]), radius),
                )
            self.save(state)
            self.kept.drop()
        if state.schedule.converged:
            reason = state.schedule.why_converged(state.history[-1])
        return self.finish(state, reason)

    def finish(self, state: State, reason: str) -> RefineResult:
        """Last E-step with all data to Nyquist; joined map, unfiltered half maps, files."""
        before = state.poses.rotation
        with self.job.timing("final iteration"):
            sums, estimates = self.iterate(state, final=True)
            warn_of_unsettled_mates(self.job, state.poses.rotation, before, self.options.relax_symmetry)
            self.half_fsc.flat = self._flat(estimates)
            accumulators = sums.totals
        first, second, _ = half_maps(accumulators[1], accumulators[2])
        raw = {1: first, 2: second}
        masked = self._effect_of_mask(first, second, state.iteration)
        curve = self.half_fsc.curve(first, second, state.iteration)
        joined = accumulators[1] + accumulators[2]
        density = solve_map(joined, prior_from_fsc(joined, joined_fsc(curve), self.options.tau2_fudge))
        resolution = resolution_angstrom(curve, self.box, self.pixel_size, 0.143)
        if resolution < 1.05 * 2 * self.pixel_size:
            binning = self.options.binning
            more = (
                f"refine again with --bin {max(1.0, binning / 2):g}" if binning > 1 else "the tilt images hold no more"
            )
            self.job.warn(f"the resolution is at Nyquist ({2 * self.pixel_size:.1f} Å): {more}")
        symmetry = self._check_symmetry(state, curve) if len(self.symmetry) > 1 else None
        optset = with_poses(self.optset, state.poses, self.halves)
        self.job.metric("resolution_angstrom", resolution)
        if self.options.scale:
            pairs = zip(self.optset.series, state.contrast, strict=True)
            self.progress.note("contrast: " + ", ".join(f"{series.name} {factor:.2f}" for series, factor in pairs))
        self.job.metric("stop_reason", reason)
        with self.job.timing("files"):
            outputs = write_results(self.job, density, raw, self.pixel_size, optset, estimates)
            table = shell_table(joined, curve, joined_fsc(curve))
            last = Progressed.of(state.history, resolution, self.nyquist)
            if self.focus is not None:
                outputs |= self.focus.write(self.job)
            outputs |= self.files().final(state, optset, estimates, table, outputs["map"], last)
        self.kept.drop()
        return RefineResult(
            density,
            (raw[1], raw[2]),
            curve,
            resolution,
            self.pixel_size,
            optset,
            estimates,
            state.history,
            reason,
            outputs,
            masked,
            symmetry,
            self.focus,
        )

    def _check_symmetry(self, state: State, curve: NDArray[np.float64]) -> SymmetryCheck:
        """Whether the final particles have the symmetry that was applied to them."""
        disc = self.images.disc
        shells = min(resolution_shell(curve, 0.143), MOST_SHELLS, int(disc.radius))
        groups = {half: self._groups(state, half, disc.count(shells)) for half in HALVES}
        with self.job.timing("symmetry check"):
            check = SymmetryRelaxation(
                self.backend, disc, self.pixel_size, self.symmetry, self.mask, shells, self.threads, self.options.seed
            ).run(groups)
        self.job.metric("symmetry_broken_sigmas", check.sigmas)
        if check.broken:
            self.job.warn(check.words(self.options.symmetry))
        return check


def run(options: RefineOptions, job: Job, progress: Progress) -> RefineResult:
    """Refine poses and map; the entry point of `tiltwise refine` and of Python scripts."""
    one = Refinement(options, job, progress)
    with closing(executor_of(options, one.runner, one.memory.images, one.focus, job, progress)) as executor:
        one.executor = executor
        return one.run()
