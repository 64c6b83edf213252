"""`tiltwise initial-model`: a map from tilt series whose particles have unknown orientations.

The images of one particle at many tilts are nearly its whole transform, so that a few particles put together at random
orientations are a first map that others can be told apart by.  Expectation-maximisation over all orientations, of some
particles at a time and in few shells, makes a map of it within some ten iterations; a few starts side by side show
whether they agree, and the likeliest one goes on.  It is compared with its mirror image, put into the axes of its
point group, and then refined in half sets, with more shells as the halves come to agree in them.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.em.schedule import MOSTLY_SHARP
from tiltwise.exec import Job, Progress
from tiltwise.exec.protocols import Scalar
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.initial.choice import choose, doubts
from tiltwise.initial.engine import Engine, Sums, in_turn
from tiltwise.initial.options import InitialModelOptions
from tiltwise.initial.plan import FIRST_PARTICLES, START, START_ORDER, WIDE_ORDER, March
from tiltwise.initial.results import InitialModelResult, write_results
from tiltwise.initial.state import HALVES, Frame, Start, State, checkpoint_of, state_from
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.spectra import half_maps, join_low_resolution, prior_from_fsc
from tiltwise.maps.volumes import solve_map
from tiltwise.spectral.fsc import resolution_angstrom


class InitialModel:
    """One run: the steps, and what they hand to each other."""

    def __init__(self, options: InitialModelOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.engine = Engine(options, job, progress)

    def save(self, state: State) -> None:
        """Checkpoint from which `begin` continues."""
        self.job.save_checkpoint("initial", *checkpoint_of(state))

    def begin(self) -> State:
        """State before the first start, or the one a checkpoint holds."""
        stored = self.engine.optset.particles.coordinate_px.copy()
        saved = self.job.load_checkpoint("initial")
        if saved is not None:
            state = state_from(saved, stored)
            self.progress.note(f"continues after {len(state.starts)} starts and {state.march.iteration} iterations")
            return state
        poses = Poses.of(self.engine.optset)
        with self.job.timing("noise power"), self.progress.task("noise", self.engine.count) as task:

            def load(particle: int) -> ParticleImages:
                self.job.check_abort()
                return self.engine.images.load(particle, poses.displacement_angstrom[particle], 0)

            noise = initial_noise_power(self.engine.images, load, self.engine.threads, task.advance)
        return State(self.options.first_offset_sigma_angstrom, noise=noise)

    # ---- starts ------------------------------------------------------------------------------------------

    def start(self, state: State, number: int) -> Start:
        """From random orientations to a map that has `Shells.of_start`."""
        options, stored = self.options, Poses.of(self.engine.optset)
        own = np.random.default_rng([options.seed, 1, number])
        rotations = Rotation.random(self.engine.count, random_state=own).as_matrix()
        poses = replace(stored, rotation=rotations)
        nothing = dict.fromkeys(HALVES, np.zeros((self.engine.box,) * 3, np.float32))
        members, label = self.engine.drawn(own, FIRST_PARTICLES), f"start {number + 1}"
        schedule = self.engine.shells.schedule(self.engine.shells.first, START_ORDER, 0, options.reach_angstrom)
        sums = self.engine.expect(label, schedule, own, members, in_turn(members), nothing, poses, state, fixed=True)
        density = self.engine.joined(sums, self.engine.shells.first)
        film, evidence = [Frame.of("random", density)], []
        for iteration, stage in enumerate(START):
            # the same particles and grids in all starts, so that they can be compared
            began, rng = monotonic(), np.random.default_rng([options.seed, 2, iteration])
            members = self.engine.drawn(rng, stage.particles)
            radius = self.engine.shells.first + stage.more_shells
            schedule = self.engine.shells.schedule(radius, START_ORDER, stage.oversampling, options.reach_angstrom)
            maps = dict.fromkeys(HALVES, density)
            sums = self.engine.expect(label, schedule, rng, members, in_turn(members), maps, stored, state)
            density = self.engine.joined(sums, radius)
            evidence.append(float(sums.evidence.mean()))
            film.append(Frame.of(f"{iteration + 1}", density))
            self._row(state, label, iteration + 1, radius, sums, None, began)
        return Start(density, evidence, film)

    def _row(
        self,
        state: State,
        label: str,
        iteration: int,
        radius: float,
        sums: Sums,
        resolution: float | None,
        began: float,
    ) -> None:
        found = sums.estimates.values()
        row: dict[str, Scalar] = {
            "stage": label,
            "iteration": iteration,
            "particles": len(found),
            "limit_angstrom": self.engine.shells.box_angstrom / radius,
            "resolution_angstrom": resolution,
            "log_evidence": float(sums.evidence.mean()),
            "effective_poses": float(np.median([one.n_effective for one in found])),
            "max_probability": float(np.mean([one.max_probability for one in found])),
            "seconds": monotonic() - began,
        }
        self.job.iteration(row)
        state.history.append({key: value for key, value in row.items() if key != "seconds"})

    def choose(self, state: State) -> None:
        """The likeliest start, its hand and its axes; halves go on from there."""
        density, state.choice = choose(self.engine, state)
        state.maps = dict.fromkeys(HALVES, density)
        state.poses = Poses.of(self.engine.optset)
        state.film = [Frame.of("chosen", density)]
        state.curve = np.zeros(self.engine.box // 2 + 1)
        state.march = March(min(self.engine.shells.of_start + 1, self.engine.shells.last))

    # ---- half sets ---------------------------------------------------------------------------------------

    def refine(self, state: State) -> None:
        """One iteration in half sets."""
        assert state.poses is not None
        began, march = monotonic(), state.march
        rng = np.random.default_rng([self.options.seed, 3, march.iteration])
        radius, label = march.radius, f"refinement {march.iteration + 1}"
        schedule = self.engine.shells.schedule(radius, march.order, 1, self.options.reach_angstrom)
        members = self.engine.subset
        of_half = self.engine.halves[members]
        sums = self.engine.expect(label, schedule, rng, members, of_half, state.maps, state.poses, state)
        self.engine.half_fsc.flat = sums.sharp < 1.0 - MOSTLY_SHARP
        halves = sums.accumulators
        join_low_resolution(halves[1], halves[2], self.engine.shells.of_start)
        first, second, _ = half_maps(halves[1], halves[2])
        curve = self.engine.half_fsc.curve(first, second, 0)
        curve[radius + 1 :] = 0.0
        for half in HALVES:
            state.maps[half] = solve_map(halves[half], prior_from_fsc(halves[half], curve), radius) * self.engine.mask
        self.engine.take_poses(state, sums, state.poses)
        state.curve = curve
        march.update(curve, self.engine.shells.last)
        state.film.append(Frame.of(f"{march.iteration}", 0.5 * (state.maps[1] + state.maps[2])))
        resolution = resolution_angstrom(curve, self.engine.box, self.engine.pixel_size, 0.143)
        self._row(state, "refinement", march.iteration, radius, sums, resolution, began)

    def run(self) -> InitialModelResult:
        """All steps."""
        state = self.begin()
        with self.job.timing("starts"):
            while len(state.starts) < self.options.starts:
                state.starts.append(self.start(state, len(state.starts)))
                self.save(state)
        if not state.choice:
            with self.job.timing("choice"):
                self.choose(state)
                self.save(state)
        for text in doubts(state.choice, self.options.symmetry):  # of a run that continues as well
            self.job.warn(text)
        with self.job.timing("refinement"):
            while not state.march.done:
                self.refine(state)
                self.save(state)
        return self.finish(state)

    def finish(self, state: State) -> InitialModelResult:
        """Last E-step with all particles; maps and files."""
        assert state.poses is not None
        others = np.setdiff1d(np.arange(self.engine.count), self.engine.subset)
        reach, radius = self.options.reach_angstrom, state.march.radius
        with self.job.timing("final iteration"):
            poses, rng = state.poses, np.random.default_rng([self.options.seed, 4])
            if len(others):
                wide = self.engine.shells.schedule(min(self.engine.shells.of_start + 1, radius), WIDE_ORDER, 1, reach)
                found = self.engine.expect(
                    "other particles", wide, rng, others, self.engine.halves[others], state.maps, poses, state
                )
                self.engine.take_poses(state, found, poses)
                poses = state.poses
            schedule = self.engine.shells.schedule(radius, state.march.order, 1, reach)
            sums = self.engine.expect(
                "all particles",
                schedule,
                rng,
                np.arange(self.engine.count),
                self.engine.halves,
                state.maps,
                poses,
                state,
                map_radius=self.engine.box / 2,
            )
            self.engine.half_fsc.flat = sums.sharp < 1.0 - MOSTLY_SHARP
            self.engine.take_poses(state, sums, poses)
        return write_results(self.engine, state, sums)


def run(options: InitialModelOptions, job: Job, progress: Progress) -> InitialModelResult:
    """A map from nothing; the entry point of `tiltwise initial-model` and of Python scripts."""
    return InitialModel(options, job, progress).run()
