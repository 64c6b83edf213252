"""Start and iterations of a classification with alignment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.aligned import AlignedSteps, Found
from tiltwise.classes.average import Average
from tiltwise.classes.data import ClassData, Grid
from tiltwise.classes.final import NO_SYMMETRY, final_sums
from tiltwise.classes.fixed import JUNK, FixedIterations
from tiltwise.classes.given import refuse_alike
from tiltwise.classes.groups import PointGroups
from tiltwise.classes.mixture import posterior, proportions
from tiltwise.classes.state import Move, Search, State
from tiltwise.classes.whole import class_references
from tiltwise.em.expectation import Expectation
from tiltwise.em.greyscale import fit_greyscale
from tiltwise.em.schedule import MOSTLY_SHARP
from tiltwise.em.settings import Settings
from tiltwise.exec import Job, Progress
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.maps.initial import initial_noise_power, prepare_map
from tiltwise.maps.spectra import last_shell_above
from tiltwise.maps.volumes import PackedSums
from tiltwise.spectral.filters import EDGE_SHELLS

F64 = NDArray[np.float64]
Map = NDArray[np.float32]

ALIGNMENT = "alignment"
"""Checkpoint of alignment to one map."""
ROUNDS = 10
"""Alignments of all particles to one map before they are divided, at most."""
GROWTH = 4
"""Shells that are added where the average has signal up to the last one."""
OFFSET = 10.0
"""Width of the prior on displacements at first, Å."""


@dataclass(slots=True)
class AlignedRun:
    """Iterations that search poses."""

    data: ClassData
    job: Job
    progress: Progress
    steps: AlignedSteps = field(init=False)

    def __post_init__(self) -> None:
        self.steps = AlignedSteps(self.data, self.job.check_abort)

    def grid(self, state: State) -> Grid:
        """Box of the maps of an iteration."""
        return self.data.grid(state.shell)

    def shell(self, state: State) -> int:
        """See `Iterations`."""
        return state.shell

    # ---- start -----------------------------------------------------------------------------------------

    def from_fixed(self, state: State, work: FixedIterations, search: Search, grid: Grid, near: bool) -> State:
        """The state after iterations at poses that stay, with whole maps."""
        folds, _ = work.maps(state.posterior)
        state.search, state.shell, state.near = search, grid.shell, near
        state.maps = {
            fold: [work.average.without(fold) + difference[fold] for difference in folds]
            for fold in range(len(self.data.half_of))
        }
        return state

    def from_average(self, average: Average, search: Search, grid: Grid) -> State:
        """All particles in one class, that of their average."""
        return self._of_one({fold: average.without(fold) for fold in range(len(self.data.half_of))}, search, grid)

    def _of_one(self, maps: dict[int, Map], search: Search, grid: Grid) -> State:
        """All particles in one class, and few in that of junk if there is one."""
        share = np.array([1.0 - JUNK, JUNK] if self.data.options.junk else [1.0])
        count = len(self.data.folds)
        state = State(0, np.ones((count, 1)) * share, share, np.zeros(count), search=search, shell=grid.shell)
        state.maps = {fold: [density] for fold, density in maps.items()}
        return state

    def settle(self, state: State) -> None:
        """Aligns all particles to their average until poses move less than they are uncertain.

        Classes that are told at poses that are still wrong are classes of errors.
        """
        count, junk = len(self.data.folds), self.data.options.junk
        while state.iteration < ROUNDS and not state.converged:
            shell = state.shell
            found = self._step(state, -state.iteration, junk=junk, follow=state.iteration > 0)
            state.iteration += 1
            if junk:
                state.refuse_empty(junk)
                state.over_nothing = found.log_likelihood[:, 0] - found.log_likelihood[:, 1]
            move = state.move
            assert move is not None
            state.converged = move.still and state.shell <= shell
            sharp = sum(one.sharp for one in found.estimates) / count
            one_group = len(self.data.groups.kinds) == 1
            if self.data.options.align == "global" and one_group and not junk:
                # not with junk: noise has more evidence near the best pose than everywhere
                state.near = state.near or (sharp >= MOSTLY_SHARP and move.angle_deg <= 15.0 / 2.0**self.steps.order)
            self.progress.note(
                f"alignment {state.iteration} to the average: poses have moved by {move.angle_deg:.2f}° and "
                f"{move.angstrom:.2f} Å (medians)"
            )
            self.job.save_checkpoint(ALIGNMENT, *state.checkpoint())

    def from_references(self, paths: list[Path]) -> State:
        """All particles in one class with one given map, or aligned everywhere to a map for every class."""
        data, options = self.data, self.data.options
        grid = data.grid(data.shell_of(options.ini_high))
        poses = Poses.of(data.optset)

        def load(particle: int) -> ParticleImages:
            self.job.check_abort()
            return data.images.load(particle, poses.displacement_angstrom[particle], 0)

        with self.progress.task("noise", len(data.folds)) as task:
            noise = initial_noise_power(data.images, load, data.threads, task.advance)
        search = Search(poses, noise, OFFSET)
        maps = [prepare_map(path, data.box, data.pixel_size, options.ini_high, self.progress.note) for path in paths]
        refuse_alike(paths, maps)
        settings = self.steps.settings(search, grid, 0)
        factors = [self._greyscale(settings, search, density) for density in maps]
        maps = [density * np.float32(factor) for density, factor in zip(maps, factors, strict=True)]
        folds = range(len(data.half_of))
        if len(maps) < options.classes:
            return self._of_one(dict.fromkeys(folds, maps[0]), search, grid)
        share = np.full(len(maps), 1.0 / len(maps))
        state = State(0, np.ones((len(data.folds), len(maps))) * share, share, np.zeros(len(data.folds)))
        state.search, state.shell = search, grid.shell
        state.maps = dict.fromkeys(folds, maps)
        self._step(state, 0, junk=False)
        if options.junk:
            empty = np.zeros((len(data.folds), 1))
            state.posterior = np.concatenate([state.posterior, empty], axis=1)
            state.share = np.append((1.0 - JUNK) * state.share, JUNK)
        return state

    def _greyscale(self, settings: Settings, search: Search, density: Map) -> float:
        """Factor that brings a map to the grey scale of the images."""
        data, runner = self.data, self.steps.runner
        expectation = Expectation(runner.scorer(density), data.images.disc, settings)
        end = data.box * data.pixel_size / data.options.ini_high + EDGE_SHELLS / 2
        groups = []
        for number, power in enumerate(search.noise):
            members = np.flatnonzero(data.images.series_of == number)
            if len(members):
                groups.append(runner.group(number, members, search.poses, power, 1.0, expectation.map_count))
        return fit_greyscale(expectation, groups, end)

    # ---- iterations ------------------------------------------------------------------------------------

    def iterate(self, state: State) -> None:
        """See `Iterations`."""
        self._step(state, state.iteration + 1, junk=self.data.options.junk)

    def _search(self, state: State, settings: Settings, box: int, name: str, *, junk: bool) -> Found:
        assert state.search is not None
        with self.progress.task(name, len(self.data.folds)) as task:
            self.steps.advance = task.advance
            groups = self._groups(len(state.share) - junk)
            return self.steps.run(
                state.search, settings, box, state.share, lambda fold: state.maps[fold], groups, junk=junk
            )

    def _groups(self, classes: int) -> PointGroups:
        """Of the classes, or of the one map that all particles are aligned to first."""
        groups = self.data.groups
        return groups if classes == len(groups.kind_of) else groups.of_all()

    def _step(self, state: State, number: int, *, junk: bool, follow: bool = True) -> Found:
        """One E-step and M-step of `state`; negative numbers and zero are those before the first iteration."""
        data, grid = self.data, self.grid(state)
        assert state.search is not None
        settings = self.steps.settings(
            state.search, grid, number if number > 0 else 1000 - number, near=state.near, follow=follow
        )
        found = self._search(state, settings, grid.box, f"iteration {number}" if number > 0 else "alignment", junk=junk)
        self._take(state, found, junk=junk)
        sphere = data.small(data.sphere, grid)
        state.maps, average = class_references(
            found.sums,
            found.every,
            self._groups(len(state.share) - junk).kind_of,
            data.half_of,
            sphere,
            data.small(data.mask, grid) * sphere,
            grid.shell + 0.5,
            data.pixel_of(grid),
            data.options.tau2_fudge,
        )
        if data.options.strict_highres_exp is None:
            last = last_shell_above(average.curve[: grid.shell + 1], 0.143)
            wanted = grid.shell + GROWTH if last >= grid.shell else last + GROWTH
            state.shell = data.grid(wanted).shell
        else:
            state.shell = data.grid(data.shell_of(data.options.strict_highres_exp)).shell
        return found

    def _take(self, state: State, found: Found, *, junk: bool) -> None:
        """Posteriors, poses and noise power of an E-step."""
        assert state.search is not None
        state.share = proportions(found.log_likelihood, state.share)
        state.posterior, state.log_likelihood = posterior(found.log_likelihood, state.share)
        state.pose_probability = np.array([one.max_probability for one in found.estimates])
        before = state.search.poses
        state.search, lost = self.steps.next(state.search, found, junk=junk)
        state.move = Move.of(before, state.search.poses, found.estimates)
        if lost:
            self.job.warn(f"{lost} particles would leave every tilt image and keep their last position")

    def final(self, state: State) -> tuple[Poses, dict[tuple[int, int], PackedSums]]:
        """See `Iterations`: one E-step more, with sums up to Nyquist."""
        data, junk = self.data, self.data.options.junk
        assert state.search is not None
        settings = self.steps.settings(state.search, self.grid(state), 2000, near=state.near, nyquist=True)
        found = self._search(state, settings, data.box, "final maps", junk=junk)
        self._take(state, found, junk=junk)
        classes = len(state.share) - junk
        sums: dict[tuple[int, int], PackedSums] = {}
        for (fold, k), part in sorted(found.sums.items()):
            key = int(data.half_of[fold]), k
            if key in sums:
                sums[key].add(part)
            else:
                sums[key] = part.copy()
        if junk:
            poses, noise = state.search.poses, state.search.noise
            rest = final_sums(
                data, poses, noise, state.posterior[:, -1:], [NO_SYMMETRY], self.job.check_abort, lambda n: None
            )
            sums |= {(half, classes): part for (half, _), part in rest.items()}
        return state.search.poses, sums
