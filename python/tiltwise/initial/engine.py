"""Data of an initial model, and one iteration of expectation-maximisation on some of its particles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.data_model import StackModel
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.half_fsc import HalfFsc
from tiltwise.em.memory import plan_refine
from tiltwise.em.noise_power import noise_power
from tiltwise.em.schedule import Schedule
from tiltwise.em.settings import Settings
from tiltwise.em.step import PADDING, Step, UnitRunner
from tiltwise.em.units import RunningSums, total_noise, units_of
from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.extract.cache import ParticleCache
from tiltwise.extract.source import Poses
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.initial.options import InitialModelOptions
from tiltwise.initial.plan import Shells
from tiltwise.initial.state import HALVES, State
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.kernels.select import default_threads, load_backend
from tiltwise.maps.half_sets import DUPLICATE, half_sets
from tiltwise.maps.inputs import record, source_of
from tiltwise.maps.masks import check_diameter, focus_mask
from tiltwise.maps.spectra import half_maps, joined_fsc, prior_from_fsc
from tiltwise.maps.volumes import Accumulator, solve_map
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of

FEWEST = 40
"""Particles without which there is no point in starting."""

Maps = dict[int, NDArray[np.float32]]


@dataclass(slots=True)
class Sums:
    """What an E-step leaves: sums of both halves, completed, and an estimate of every particle."""

    running: dict[int, RunningSums]
    accumulators: dict[int, Accumulator]
    estimates: dict[int, PoseEstimate]

    @property
    def evidence(self) -> NDArray[np.float64]:
        """(n,) log evidence of the particles, in their order."""
        return np.array([self.estimates[particle].log_evidence for particle in sorted(self.estimates)])

    @property
    def sharp(self) -> float:
        """Share of particles whose posterior is a few peaks."""
        return float(np.mean([estimate.sharp for estimate in self.estimates.values()]))


class Engine:
    """Particles, images and maps of one run."""

    def __init__(self, options: InitialModelOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.threads = options.threads or default_threads()
        self.backend = load_backend(options.backend)
        self.group = symmetry_matrices(options.symmetry)
        self.optset = self._load()
        self.box, self.pixel_size = self.images.box, self.images.pixel_size
        self.count = len(self.optset.particles)
        check_diameter(options.particle_diameter, self.box, self.pixel_size)
        self.shells = Shells.of(self.box, self.pixel_size, options.particle_diameter, options.finest_angstrom)
        self.runner = UnitRunner(self.images, self.backend, self.threads, None, job.check_abort)
        self.mask = focus_mask(None, options.particle_diameter, self.box, self.pixel_size)
        self.half_fsc = HalfFsc(self.mask, False, options.seed)
        self.subset = self.drawn(np.random.default_rng([options.seed, 0]), options.subset)
        record(self.optset, job, progress)
        progress.title(
            "initial-model",
            {
                "particles": self.count,
                "tilt series": len(self.optset.series),
                "box_px": self.box,
                "pixel_size_angstrom": self.pixel_size,
                "symmetry": options.symmetry,
                "starts": options.starts,
            },
        )

    def _load(self) -> OptimisationSet:
        """Particles that any tilt shows; sets the images and the half sets."""
        options = self.options
        found = load_optimisation_set(
            options.input,
            tomograms=options.tomograms,
            particles=options.particles,
            trajectories=options.trajectories,
            need_images=None,
            coordinate_binning=options.coordinate_binning,
        )
        self.chosen = self.options.images(found.series[0].pixel_size_angstrom)
        seen, lost = source_of(self.chosen, found).leave_out_unseen(Poses.of(found).displacement_angstrom)
        if lost is not None:
            self.job.warn(lost)
            found = replace(found, particles=found.particles.take(np.flatnonzero(seen)))
        alone = one_mate_each(found, DUPLICATE * options.particle_diameter)
        if len(alone) < len(found.particles):
            self.job.warn(
                f"the set is expanded by its symmetry, and the angles in it are not used: one mate of each particle "
                f"takes part and is written, {len(alone)} of {len(found.particles)}"
            )
            found = replace(found, particles=found.particles.take(alone))
        if len(found.particles) < FEWEST:
            raise DataError(
                "too few particles for an initial model",
                where=str(self.options.particles or self.options.input),
                expected=f"at least {FEWEST}; a few hundred are better",
                found=str(len(found.particles)),
                fix="pick more particles, or start tiltwise refine from a map of something similar with --ref",
            )
        source = source_of(self.chosen, found, self.options.particle_diameter)
        every = int(ParticleCache.sizes(source).sum())
        plan = plan_refine(
            source.box, PADDING, self.options.memory, symmetric=len(self.group) > 1, folds=1, images=every
        )
        self.images = StackModel(ParticleCache(source, plan.images))
        self.halves = half_sets(found, self.chosen, self.job)
        return found

    def drawn(self, rng: np.random.Generator, most: int) -> NDArray[np.intp]:
        """Numbers of at most so many particles, sorted."""
        return np.sort(rng.permutation(self.count)[:most])

    def expect(
        self,
        label: str,
        schedule: Schedule,
        rng: np.random.Generator,
        members: NDArray[np.intp],
        halves: NDArray[np.int64],
        maps: Maps,
        poses: Poses,
        state: State,
        *,
        fixed: bool = False,
        map_radius: float | None = None,
    ) -> Sums:
        """E-step of some particles, with the map of the half (n,) that each is in."""
        fine = schedule.fine_radius(self.box / 2)
        settings = Settings(
            grid=schedule.grid(rng),
            coarse_radius=schedule.coarse_radius(
                self.options.particle_diameter, self.shells.box_angstrom, self.box / 2
            ),
            fine_radius=fine,
            map_radius=map_radius or fine,
            pixel_size=self.pixel_size,
            offset_sigma_angstrom=state.offset_sigma_angstrom,
            symmetry=self.group if state.choice else None,
            climb=schedule.climb,
            fixed=fixed,
        )
        half_of = np.zeros(self.count, np.int64)
        half_of[members] = halves
        units = units_of(half_of, np.zeros(self.count, np.int64), self.images.series_of)
        units = [replace(unit, audited=0) for unit in units if unit.key[0]]
        step = Step(
            settings,
            poses,
            state.noise,
            {(half, 0): density for half, density in maps.items()},
            np.ones(len(self.optset.series)),
        )
        running = {half: RunningSums(Accumulator.empty(self.box, PADDING)) for half in HALVES}
        with self.progress.task(label, len(members)) as task:
            for unit in units:
                running[unit.key[0]].add(unit, self.runner.run(step, unit, task.advance))
        self.runner.forget()
        estimates = {particle: found for part in running.values() for particle, found in part.estimates.items()}
        group = self.group if state.choice else self.group[:1]
        sums = {half: part.accumulator.complete().symmetrised(group, self.backend) for half, part in running.items()}
        return Sums(running, sums, estimates)

    def joined(self, sums: Sums, radius: float) -> NDArray[np.float32]:
        """Map of both halves, which have been compared with the same one."""
        first, second, _ = half_maps(sums.accumulators[1], sums.accumulators[2])
        curve = self.half_fsc.curve(first, second, 0)
        curve[int(radius) + 1 :] = 0.0
        total = sums.accumulators[1] + sums.accumulators[2]
        return solve_map(total, prior_from_fsc(total, joined_fsc(curve)), radius) * self.mask

    def take_poses(self, state: State, sums: Sums, poses: Poses) -> None:
        """New poses, noise power and width of offsets."""
        members = np.array(sorted(sums.estimates))
        found = [sums.estimates[int(i)] for i in members]
        moved = poses.displacement_angstrom.copy()
        moved[members] += np.stack([one.shift_angstrom for one in found])
        stay = ~self.images.visible(moved)
        moved[stay] = poses.displacement_angstrom[stay]
        rotation = poses.rotation.copy()
        rotation[members] = np.stack([one.rotation for one in found])
        state.poses = replace(poses, displacement_angstrom=moved, rotation=rotation)
        square = float(np.mean([one.square_offset for one in found]))
        state.offset_sigma_angstrom = max(float(np.sqrt(square / 3.0)), 1.5)
        parts = list(sums.running.values())
        state.noise = [
            noise_power(total_noise(parts, i, *old.shape), self.images.disc, self.images.area_ratio, old)
            for i, old in enumerate(state.noise)
        ]


def in_turn(members: NDArray[np.intp]) -> NDArray[np.int64]:
    """(n,) halves 1 and 2 in turn: particles compared with one map, whose halves tell signal from noise."""
    return 1 + np.arange(len(members), dtype=np.int64) % 2


def one_mate_each(optset: OptimisationSet, distance_angstrom: float) -> NDArray[np.intp]:
    """Numbers of particles without symmetry mates of earlier ones that are closer to them than `distance_angstrom`.

    Mates in one place are one particle where orientations are not known; parts of it that lie apart are not.
    """
    if not optset.particles.has_mates:
        return np.arange(len(optset.particles))
    sources, position = optset.particles.source_index, poses_of(optset)[1]
    kept: dict[int, list[int]] = {}
    for number, source in enumerate(sources):
        known = kept.setdefault(int(source), [])
        apart = np.linalg.norm(position[known] - position[number], axis=1)
        if not (apart < distance_angstrom).any():
            known.append(number)
    return np.sort(np.concatenate([np.array(known, np.intp) for known in kept.values()]))
