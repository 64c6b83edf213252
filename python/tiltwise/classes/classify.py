"""`tiltwise classify`: which of several maps every particle shows.

At poses that stay: average of all particles, noise power and residuals once; then, in every iteration, maps of the
classes from the posteriors and posteriors from the maps, every particle being compared with maps that do not hold it.
With alignment this comes first, and iterations that search poses follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.aligned_run import ALIGNMENT, OFFSET, AlignedRun
from tiltwise.classes.average import Average, Beyond, Inserter, residual_noise
from tiltwise.classes.data import ClassData, Grid
from tiltwise.classes.final import NO_SYMMETRY, ClassMap, class_maps, final_sums
from tiltwise.classes.fixed import FixedIterations
from tiltwise.classes.given import given_differences, reference_paths
from tiltwise.classes.mixture import posterior, proportions
from tiltwise.classes.moved import LAST_SHELL, MOST, moved_shares
from tiltwise.classes.options import ClassifyOptions
from tiltwise.classes.residuals import FixedScores, ResidualImages
from tiltwise.classes.results import write_results
from tiltwise.classes.state import Search, State
from tiltwise.em.results import with_poses
from tiltwise.errors import ConfigError, DataError
from tiltwise.exec import Job, Progress
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.spectra import last_shell_above
from tiltwise.maps.volumes import PackedSums
from tiltwise.model import OptimisationSet
from tiltwise.spectral.filters import resample
from tiltwise.spectral.fsc import fsc

F64 = NDArray[np.float64]

SETTLED = 1e-3
"""Mean change of the posterior of a particle below which nothing happens any more."""
GAIN = 0.01
"""The same of the log likelihood of all particles, where no particle changes its class."""
QUIET, CALM = 2, 5e-3
"""Iterations in a row, in which posteriors change by no more than that and poses stand still, after which particles are
aligned no further."""
TRIAL = 4
"""Iterations of every start before one is chosen."""
FIRST = 25
"""Iterations at poses that stay, at most, before particles are aligned to classes."""
MOST_ARRANGEMENTS = 12
"""Ways to give point groups to clusters of particles that are tried."""
FLAT = 0.1
"""Share of the uncertainty about classes that the images must take away, or they tell nothing."""


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """What a classification ends with."""

    maps: list[ClassMap]
    """of every class, that of junk last"""
    optset: OptimisationSet
    state: State
    pixel_size: float
    halves: NDArray[np.int64]
    shell: int
    """last that was compared"""
    stop_reason: str
    outputs: Mapping[str, Path]


NOWHERE = "nowhere do particles differ beyond noise"


class Iterations(Protocol):
    """What an iteration does, with or without alignment."""

    def iterate(self, state: State) -> None:
        """Moves `state` to the next posteriors."""
        ...

    def final(self, state: State) -> tuple[Poses, dict[tuple[int, int], PackedSums]]:
        """Poses, and completed sums of every half set and class up to Nyquist."""
        ...

    def shell(self, state: State) -> int:
        """Last shell that is compared."""
        ...


class Classification:
    """One run: data, options and the loop over iterations."""

    def __init__(self, options: ClassifyOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.data = data = ClassData(options, job, progress)
        self.poses = Poses.of(data.optset)
        self.paths = self._references()
        progress.title(
            "classify",
            {
                "particles": len(data.optset.particles),
                "tilt series": len(data.optset.series),
                "classes": options.classes + options.junk,
                "box_px": data.box,
                "pixel_size_angstrom": data.pixel_size,
                "symmetry": options.symmetry,
            },
        )

    def _references(self) -> list[Path]:
        options = self.options
        one = options.align == "global"
        paths = [] if options.references is None else reference_paths(options.references, options.classes, or_one=one)
        if len(paths) == options.classes:
            options.refuse_without_effect(
                ("starts",), because="classes start from the maps of --ref", fix="leave out --starts, or --ref"
            )
        arrangements = self.data.groups.arrangements
        if len(paths) != options.classes and arrangements > MOST_ARRANGEMENTS:
            raise ConfigError(
                "without references there are too many ways to give the point groups to the classes",
                where="--sym",
                expected=f"{MOST_ARRANGEMENTS} ways at most: all of them are tried",
                found=f"{arrangements}",
                fix="give a map for every class with --ref, in the order of --sym, or fewer classes",
            )
        for path in paths:
            self.job.add_input(path)
        return paths

    # ---- what does not change --------------------------------------------------------------------------

    def measure(self) -> Average:
        """The average at the present poses, and how finely it is resolved; sets noise power and grid."""
        data, options, count = self.data, self.options, len(self.data.folds)
        inserter = self._inserter(data.groups.common)

        def load(particle: int) -> ParticleImages:
            self.job.check_abort()
            return data.images.load(particle, self.poses.displacement_angstrom[particle], 0)

        with self.progress.task("noise", count) as task:
            noise = self.noise = initial_noise_power(data.images, load, data.threads, task.advance)
        if options.strict_highres_exp is None:
            whole = data.grid(data.box // 2)
            average = self._average(inserter.folds(noise, whole.box, whole.count), whole)
            self._refuse_empty(average, whole)
            self.grid = data.grid(last_shell_above(average.curve, 0.143))
        else:
            self.grid = data.grid(data.shell_of(options.strict_highres_exp))
        grid = self.grid
        average = self._average(inserter.folds(noise, grid.box, grid.count), grid)
        self._refuse_empty(average, grid)
        return average

    def prepare(self, over_nothing: F64 | None = None) -> FixedIterations:
        """The average at the present poses, noise power, and residuals.

        `over_nothing` (P,) is the log evidence of the average over that of nothing if poses were sought: at the best
        one alone noise looks like a particle.
        """
        data, options, count = self.data, self.options, len(self.data.folds)
        average, grid, noise = self.measure(), self.grid, self.noise
        beyond = {
            kind: Beyond.of(self._average(self._inserter(group).folds(noise, grid.box, grid.count), grid), average)
            for kind, group in enumerate(data.groups.kinds[1:], 1)
        }
        self.progress.note(
            f"particles and maps are compared up to {data.box * data.pixel_size / grid.shell:.1f} Å, in maps of "
            f"{grid.box} voxels"
        )
        residuals = ResidualImages(
            data.images,
            data.backend,
            data.threads,
            self.poses,
            noise,
            grid.count,
            partial(average.volume, surroundings=not options.junk),
            data.spare_bytes // 2,
            self.job.check_abort,
        )
        with self.progress.task("residual noise", count) as task:
            residuals.noise = self.noise = residual_noise(residuals, data.portions, task.advance)
        scores = FixedScores(residuals, data.portions, self.job.check_abort)
        return FixedIterations(
            scores=scores,
            average=average,
            over_nothing=scores.average() if over_nothing is None else over_nothing,
            backend=data.backend,
            groups=data.groups,
            beyond=beyond,
            mask=data.small(data.mask, grid) * average.sphere,
            pixel_size=data.pixel_of(grid),
            classes=options.classes,
            junk=options.junk,
            tau2_fudge=options.tau2_fudge,
        )

    def _inserter(self, group: F64) -> Inserter:
        """Sums of all particles at the present poses, with a point group."""
        data = self.data
        return Inserter(data.images, data.backend, data.threads, self.poses, group, data.portions, self.job.check_abort)

    def _average(self, sums: dict[int, PackedSums], grid: Grid) -> Average:
        return Average.of(sums, self.data.half_of, self.data.small(self.data.sphere, grid), grid.shell + 0.5)

    def _refuse_empty(self, average: Average, grid: Grid) -> None:
        """Raises DataError if the half sets have nothing in common, in the sphere or in the mask."""
        places = {"particle-diameter": self.data.sphere}
        if self.options.mask is not None:
            places["mask"] = self.data.mask
        for name, mask in places.items():
            curve = fsc(*average.halves, self.data.small(mask, grid))
            if last_shell_above(curve, 0.143) >= 2:
                continue
            what = (
                "inside the mask the average of the particles shows nothing"
                if name == "mask"
                else ("the average of the particles shows nothing")
            )
            raise DataError(
                what,
                where=f"--{name}",
                expected="half sets that agree in the first shells (FSC above 0.143)",
                found=", ".join(f"{value:.2f}" for value in curve[1:4]),
                fix="does the mask miss the particle? compare it with the map of tiltwise reconstruct"
                if name == "mask"
                else "refine the poses first (tiltwise refine), or check them with tiltwise reconstruct",
            )

    # ---- start -----------------------------------------------------------------------------------------

    def start(self, work: FixedIterations) -> State:
        """First posteriors, from given maps or from the differences between particles."""
        options = self.options
        total = options.classes + options.junk
        if len(self.paths) == options.classes:
            pixel = self.data.pixel_of(self.grid)
            maps = given_differences(
                self.paths, work.average.map, work.mask, pixel, options.ini_high, self.progress.note
            )
            log = work.log_likelihoods(lambda fold: maps)
            share = proportions(log, np.full(total, 1.0 / total))
            return State(0, *posterior_and_share(log, share))
        return self._best_start(work)

    def _best_start(self, work: FixedIterations) -> State:
        """Of `--starts`, the one whose maps predict particles best that they do not hold."""
        best: State | None = None
        orders = list(work.groups.orders())
        several = self.options.starts * len(orders) > 1
        for number in range(self.options.starts):
            guess, found = work.guess(self.options.seed, number)
            said = [str(place) for place in found]
            if not found and self.options.classes > 1:
                said = [NOWHERE]
            for text in said:
                self.progress.note(f"start {number + 1}: {text}")
            for place in found:
                told = {"significance": place.significance, "centre_angstrom": place.centre_angstrom}
                self.job.event("start", number=number, radius_angstrom=place.radius_angstrom, **told)
            for order in orders:
                # junk stays the last
                weights = guess[:, [*order, *range(len(order), guess.shape[1])]]
                # equal shares: where maps do not differ they stay so
                share = np.full(weights.shape[1], 1.0 / weights.shape[1])
                state = State(0, weights, share, np.full(len(weights), -np.inf), places=said)
                if several:
                    for _ in range(TRIAL):
                        self.iterate(work, state)
                    tried = f"start {number + 1}"
                    if len(orders) > 1:
                        tried += f", clusters {', '.join(str(one + 1) for one in order)} as the classes"
                    self.progress.note(f"{tried}: log likelihood {state.log_likelihood.sum():.1f}")
                if best is None or state.log_likelihood.sum() > best.log_likelihood.sum():
                    best = state
        assert best is not None
        return best

    def save(self, state: State) -> None:
        """Checkpoint from which `start` continues."""
        self.job.save_checkpoint("classify", *state.checkpoint())

    # ---- iterations ------------------------------------------------------------------------------------

    def iterate(self, work: FixedIterations, state: State) -> None:
        """Maps from posteriors, posteriors from maps."""
        log = work.step(state.posterior)
        state.posterior, state.share, state.log_likelihood = posterior_and_share(log, proportions(log, state.share))

    def _resumed(self) -> State | None:
        """State of a checkpoint."""
        saved = self.job.load_checkpoint("classify")
        if saved is None:
            return None
        self.progress.note(f"continues after iteration {saved.state['iteration']}")
        return State.load(saved, self.data.optset.particles.coordinate_px)

    def _begin(self) -> tuple[State, Iterations]:
        """Where the iterations start, and what they are."""
        state = self._resumed()
        if self.options.align != "none":
            aligned = AlignedRun(self.data, self.job, self.progress)
            with self.job.timing("start"):
                return state or self._start_aligned(aligned), aligned
        with self.job.timing("preparation"):
            work = self.prepare()
        with self.job.timing("start"):
            state = state or self.start(work)
        return state, FixedRun(self, work)

    def _start_aligned(self, aligned: AlignedRun) -> State:
        """Poses by one map for all, given or the average, then classes at poses that stay."""
        saved = self.job.load_checkpoint(ALIGNMENT)
        if saved is not None:
            state = State.load(saved, self.data.optset.particles.coordinate_px)
        elif self.options.align == "global" and self.paths:
            state = aligned.from_references(self.paths)
            if len(self.paths) == self.options.classes:
                return state
        else:
            state = aligned.from_average(self.measure(), Search(self.poses, self.noise, OFFSET), self.grid)
        aligned.settle(state)
        assert state.search is not None
        self.poses = state.search.poses
        work = self.prepare(state.over_nothing)
        near, width = state.near, state.search.offset_sigma_angstrom
        state = self.start(work)
        for _ in range(FIRST):
            before = state.posterior
            self.iterate(work, state)
            if change_of(before, state.posterior) < SETTLED:
                break
        places = state.places
        state = aligned.from_fixed(state, work, Search(self.poses, self.noise, width), self.grid, near)
        state.places = places
        return state

    def run(self) -> ClassifyResult:
        """Iterate until posteriors stand still, then make the maps with all data."""
        state, iterations = self._begin()
        self.save(state)
        self.job.drop_checkpoint(ALIGNMENT)
        while state.iteration < self.options.iterations and not state.converged:
            began = monotonic()
            before, classes, likelihood = state.posterior, state.classes, state.log_likelihood.sum()
            shell = state.shell
            with self.job.timing("iterations"):
                iterations.iterate(state)
            state.iteration += 1
            change = change_of(before, state.posterior)
            switched = float((state.classes != classes).mean())
            row: dict[str, float] = {
                "iteration": state.iteration,
                "log_likelihood": float(state.log_likelihood.sum()),
                "switched": switched,
                "change": change,
                "max_probability": float(state.posterior.max(axis=1).mean()),
                **{f"share_{k}": float(share) for k, share in enumerate(state.share, 1)},
                "seconds": monotonic() - began,
            }
            if state.move is not None:
                row |= {"moved_deg": state.move.angle_deg, "moved_angstrom": state.move.angstrom}
                row["still"] = float(state.move.still)
            self.job.iteration(row)
            state.history.append(row)
            for text in state.bury(self.options.junk):
                self.job.warn(text)
            still = switched == 0.0 and abs(row["log_likelihood"] - likelihood) < GAIN
            state.converged = bool(change < SETTLED or still)
            if state.search is not None:
                state.converged = long_settled(state, shell)
            self.save(state)
        return self.finish(state, iterations)

    def _warn_of_moves(self, state: State, maps: list[ClassMap]) -> None:
        """Warns of classes that differ as the particle does when it moves."""
        data, classes = self.data, self.options.classes
        grid = data.grid(min(self.grid.shell, LAST_SHELL))

        def small(half: NDArray[np.float32]) -> NDArray[np.float32]:
            return half if grid.box == data.box else resample(half, data.pixel_size, data.pixel_of(grid), grid.box)

        halves = [(small(one.halves[0]), small(one.halves[1])) for one in maps[:classes]]
        # of the sphere, not of the mask: inside that a part which moves would look the same
        shares = moved_shares(halves, state.share[:classes], data.small(data.sphere, grid), grid.shell)
        self.job.metric("moved_share", float(shares.max()))
        if moved := [f"{k} ({share:.0%} of the difference)" for k, share in enumerate(shares, 1) if share >= MOST]:
            self.job.warn(
                f"{'class' if len(moved) == 1 else 'classes'} {', '.join(moved)} "
                f"{'differs' if len(moved) == 1 else 'differ'} from the average as the whole particle does when it is "
                "turned and shifted: errors of poses are sorted here, whatever the posteriors say. Refine the poses "
                "first, or use --align local"
            )

    def finish(self, state: State, iterations: Iterations) -> ClassifyResult:
        """Maps of all classes to Nyquist, and all files."""
        data, count = self.data, len(self.data.folds)
        reason = f"stopped after --iter {self.options.iterations}"
        if state.converged:
            reason = f"converged in iteration {state.iteration}: posteriors stand still"
        certain = state.posterior.max(axis=1)
        left = float((1.0 - certain).sum()) / max(count * (1.0 - float(state.share.max())), 1e-30)
        alone = self.options.classes > 1 and len(np.unique(state.classes)) == 1 and not state.dead
        if left > 1.0 - FLAT or alone:
            why = "posteriors are hardly better than the shares of the classes"
            if not left > 1.0 - FLAT:
                why = "one has taken all particles"
            self.job.warn(
                f"the images do not tell these classes apart: {why}. Use more particles, a --mask of the place where "
                "they may differ, or better poses"
            )
        with self.job.timing("final maps"):
            poses, sums = iterations.final(state)
            maps = class_maps(data, sums)
        if self.options.align == "none" and self.options.classes > 1:
            self._warn_of_moves(state, maps)
        certain = state.posterior.max(axis=1)
        optset = with_poses(data.optset, poses, data.halves)
        for k, one in enumerate(maps, 1):
            self.job.metric(f"class_{k}_share", float(state.share[k - 1]))
            self.job.metric(f"class_{k}_resolution_angstrom", one.resolution_angstrom)
        self.job.metric("expected_errors", float((1.0 - certain).sum()))
        self.job.metric("stop_reason", reason)
        with self.job.timing("files"):
            outputs = write_results(self.job, data, optset, state, maps, iterations.shell(state))
        shell = iterations.shell(state)
        return ClassifyResult(maps, optset, state, data.pixel_size, data.halves, shell, reason, outputs)


@dataclass(slots=True)
class FixedRun:
    """Iterations at poses that stay."""

    run: Classification
    work: FixedIterations

    def iterate(self, state: State) -> None:
        """See `Iterations`."""
        with self.run.progress.task(f"iteration {state.iteration + 1}", 1) as task:
            self.run.iterate(self.work, state)
            task.advance(1)

    def final(self, state: State) -> tuple[Poses, dict[tuple[int, int], PackedSums]]:
        """See `Iterations`."""
        run = self.run
        with run.progress.task("final maps", len(run.data.folds)) as task:
            groups = [run.data.groups[k] for k in range(run.data.options.classes)]
            if run.data.options.junk:
                groups.append(NO_SYMMETRY)
            sums = final_sums(
                run.data, run.poses, run.noise, state.posterior, groups, run.job.check_abort, task.advance
            )
        return run.poses, sums

    def shell(self, state: State) -> int:
        """See `Iterations`."""
        return self.run.grid.shell


def long_settled(state: State, shell: int) -> bool:
    """Whether aligned particles may rest: classes may be told at once, but poses and resolution take longer.

    `shell` is the last one that was compared before the last iteration.
    """
    quiet = [row["change"] < CALM and row["still"] == 1.0 for row in state.history[-QUIET:]]
    return len(quiet) == QUIET and all(quiet) and state.shell <= shell


def change_of(before: F64, after: F64) -> float:
    """Mean over particles of the probability (P, C) that has moved to other classes."""
    return 0.5 * float(np.abs(after - before).sum(axis=1).mean())


def posterior_and_share(log: F64, share: F64) -> tuple[F64, F64, F64]:
    """Posterior (P, C), shares (C,) and log evidence (P,) as `State` takes them."""
    weights, evidence = posterior(log, share)
    return weights, share, evidence


def run(options: ClassifyOptions, job: Job, progress: Progress) -> ClassifyResult:
    """Classify; the entry point of `tiltwise classify` and of Python scripts."""
    return Classification(options, job, progress).run()
