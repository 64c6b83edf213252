"""Iterations of a classification in which particles are aligned to every class.

Every particle is searched against the map of every class that does not hold it, with the E-step of a refinement; the
evidence of a class is the integral over poses, so that class and pose are marginalised together.  Its images enter the
sums of a class at the poses of that class with the posterior of the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.data import ClassData, Grid
from tiltwise.classes.groups import PointGroups
from tiltwise.classes.mixture import posterior
from tiltwise.classes.residuals import PADDING, Portion, portions_of
from tiltwise.classes.state import Search
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.expectation import Expectation, refuse_unusable
from tiltwise.em.likelihood import Scorer
from tiltwise.em.maximisation import Maximiser, NoiseSums, PosteriorPoses
from tiltwise.em.noise_power import noise_power
from tiltwise.em.schedule import Schedule
from tiltwise.em.settings import Group, Settings
from tiltwise.em.step import UnitRunner
from tiltwise.em.units import UNIT
from tiltwise.exec.threads import ordered_map
from tiltwise.maps.volumes import Accumulator, PackedSums, reference_volume
from tiltwise.maps.whitening import noise_weight, whiten

F64 = NDArray[np.float64]
Map = NDArray[np.float32]

NONE = 1e-4
"""Posterior of a class below which a particle adds nothing to its sums."""
FAINT = 1e-6
"""Weight of a pose, over the largest, that is forgotten between scores and sums."""
GLOBAL_ORDER, LOCAL_ORDER = 2, 4
"""HEALPix orders of searches before oversampling."""


@dataclass(slots=True)
class Found:
    """What one E-step leaves."""

    log_likelihood: F64
    """(P, C) log evidence of every class; of junk that of nothing"""
    posterior: F64
    """(P, C)"""
    evidence: F64
    """(P,)"""
    estimates: list[PoseEstimate]
    """of the most likely class that is not junk"""
    sums: dict[tuple[int, int], PackedSums]
    """of every fold and class, completed"""
    every: dict[tuple[int, int], PackedSums]
    """of every fold and kind of symmetry, of all classes together"""
    noise: list[NoiseSums]
    """of every series"""


@dataclass(slots=True)
class AlignedSteps:
    """E-steps of all particles against the maps of all classes."""

    data: ClassData
    check_abort: Callable[[], None]
    advance: Callable[[int], None] = lambda n: None
    portions: list[Portion] = field(init=False)
    runner: UnitRunner = field(init=False)

    def __post_init__(self) -> None:
        data = self.data
        self.portions = portions_of(data.folds, data.images.series_of, UNIT)
        self.runner = UnitRunner(data.images, data.backend, data.threads, None, self.check_abort)

    @property
    def order(self) -> int:
        """HEALPix order of searches."""
        if self.data.options.healpix_order is not None:
            return self.data.options.healpix_order
        return LOCAL_ORDER if self.data.options.align == "local" else GLOBAL_ORDER

    def settings(
        self,
        search: Search,
        grid: Grid,
        number: int,
        *,
        near: bool = False,
        follow: bool = True,
        nyquist: bool = False,
    ) -> Settings:
        """What is searched, how finely; `number` seeds the grid.

        With `near` particles that were sought everywhere are sought near their last poses.  With `follow` poses are
        good, and local searches begin at the last ones alone.
        """
        options, data, order = self.data.options, self.data, self.order
        local = options.align == "local"
        pixel = data.pixel_size
        schedule = Schedule(
            order=order,
            local_order=99,
            oversampling=options.oversampling,
            sigma_ang_deg=options.sigma_ang if local else None,
            settled=near,
            offset_range_angstrom=options.offset_range_px * pixel,
            offset_step_angstrom=options.offset_step_px * pixel,
            resolution_shell=grid.shell,
            incr_size=0,
        )
        half = data.box / 2
        fine = schedule.fine_radius(half)
        return Settings(
            grid=schedule.grid(np.random.default_rng([options.seed, number])),
            coarse_radius=min(schedule.coarse_radius(data.diameter, data.box * pixel, half), fine),
            fine_radius=fine,
            map_radius=half if nyquist else fine,
            pixel_size=pixel,
            offset_sigma_angstrom=search.offset_sigma_angstrom,
            # evidences are integrals over the same orientations for all classes
            symmetry=data.groups.common,
            follow=(local or near) and follow,
            threads=data.threads,
        )

    def run(
        self,
        search: Search,
        settings: Settings,
        box: int,
        share: F64,
        maps: Callable[[int], list[Map]],
        groups: PointGroups,
        *,
        junk: bool,
    ) -> Found:
        """One E-step; `maps(fold)` are the maps of the classes for the particles of a fold, sums are for `box` voxels,
        `groups` those of the classes.

        With `junk` the last class is that of nothing.
        """
        data = self.data
        classes = len(share) - junk
        count = len(data.folds)
        log = np.zeros((count, len(share)))
        estimates: list[PoseEstimate | None] = [None] * count
        sums: dict[tuple[int, int], PackedSums] = {}
        every: dict[tuple[int, int], PackedSums] = {}
        noise = [NoiseSums.empty(*spectrum.shape) for spectrum in search.noise]
        running = [Accumulator.empty(box, PADDING) for _ in range(classes)]
        expectation: Expectation | None = None
        scorers: list[Scorer] = []
        for portion, following in zip(self.portions, [*self.portions[1:], None], strict=True):
            if not scorers:
                volumes = [reference_volume(density, PADDING) for density in maps(portion.fold)]
                scorers = [Scorer(data.backend, volume, float(PADDING), data.threads) for volume in volumes]
            if expectation is None:
                expectation = Expectation(scorers[0], data.images.disc, settings)
            power = search.noise[portion.series]
            group = self.runner.group(portion.series, portion.members, search.poses, power, 1.0, expectation.map_count)
            for batch in expectation.batches(group):
                members = portion.members[list(batch)]
                self._batch(
                    expectation,
                    scorers,
                    group,
                    batch,
                    members,
                    share,
                    junk,
                    log,
                    estimates,
                    running,
                    noise[portion.series],
                )
                self.advance(len(batch))
            if following is None or following.fold != portion.fold:
                scorers = []
                unit = next(iter(sums.values())).unit if sums else None
                for k, part in enumerate(running):
                    own = part.complete().symmetrised(groups[k], data.backend)
                    sums[portion.fold, k] = PackedSums.of(own, unit)
                    unit = sums[portion.fold, k].unit
                    if k:
                        running[0].add(part)
                        part.clear()
                for kind, operators in enumerate(groups.kinds):
                    every[portion.fold, kind] = PackedSums.of(running[0].symmetrised(operators, data.backend), unit)
                running[0].clear()
        weights, evidence = posterior(log, share)
        done = [one for one in estimates if one is not None]
        assert len(done) == count
        return Found(log, weights, evidence, done, sums, every, noise)

    def _batch(
        self,
        expectation: Expectation,
        scorers: list[Scorer],
        group: Group,
        batch: range,
        members: NDArray[np.intp],
        share: F64,
        junk: bool,
        log: F64,
        estimates: list[PoseEstimate | None],
        running: list[Accumulator],
        noise: NoiseSums,
    ) -> None:
        """Scores and sums of particles whose images are held together."""
        disc, settings = expectation.disc, expectation.settings
        images = ordered_map(group.load, batch, settings.threads)
        for local, raw in zip(batch, images, strict=True):
            refuse_unusable(raw, f"{group.series.name}, particle {int(group.members[local]) + 1}")
        whitened = [whiten(image, disc, group.noise_power, expectation.map_count) for image in images]
        found: list[list[tuple[PosteriorPoses, PoseEstimate]]] = []
        for k, scorer in enumerate(scorers):
            if share[k] <= 0:
                log[members, k] = -np.inf
                found.append([])
                continue
            expectation.scorer = scorer
            found.append([(_strong(p), e) for p, e in expectation.posteriors(group, list(batch), whitened)])
            log[members, k] = [estimate.log_evidence for _, estimate in found[k]]
        if junk:
            log[members, -1] = [log_empty(settings, group.displacements_angstrom[local]) for local in batch]
        weights, _ = posterior(log[members], share)
        for i, member in enumerate(members):
            real = [(weights[i, k], k) for k in range(len(scorers)) if found[k]]
            best = found[max(real)[1]][i][1]
            estimates[member] = best if group.frames is None else best.turned(group.frames[batch[i]])
            noise.power[images[i].tilts] += images[i].power
            noise.weight[images[i].tilts] += noise_weight(images[i], disc)
        for k, scorer in enumerate(scorers):
            own = NoiseSums.empty(*noise.power.shape)
            maximiser = Maximiser(scorer, disc, settings.pixel_size, group.series, group.noise_power, running[k], own)
            for i in range(len(members)):
                if found[k] and weights[i, k] > NONE and found[k][i][0].weights.size:
                    poses = found[k][i][0]
                    maximiser.add(
                        whitened[i], images[i], replace(poses, weights=poses.weights * np.float32(weights[i, k]))
                    )
            noise.explained += own.explained
            noise.quadratic += own.quadratic

    def next(self, search: Search, found: Found, *, junk: bool) -> tuple[Search, int]:
        """Poses and noise power of the next iteration, and how many particles would have left all images."""
        data = self.data
        moved = search.poses.displacement_angstrom + np.stack([one.shift_angstrom for one in found.estimates])
        lost = ~data.images.visible(moved)
        displacement = np.where(lost[:, None], search.poses.displacement_angstrom, moved)
        rotation = np.stack([one.rotation for one in found.estimates])
        square = np.array([one.square_offset for one in found.estimates])
        real = found.posterior[:, : found.posterior.shape[1] - junk].sum(axis=1)
        width = float(np.sqrt((real @ square) / max(real.sum(), 1e-30) / 3.0))
        poses = replace(search.poses, displacement_angstrom=displacement, rotation=rotation)
        noise = [
            noise_power(total, data.images.disc, data.images.area_ratio, old, pooled=data.images.pooled)
            for total, old in zip(found.noise, search.noise, strict=True)
        ]
        return Search(poses, noise, max(width, 1.5)), int(lost.sum())


def _strong(poses: PosteriorPoses) -> PosteriorPoses:
    """Without rotations that hold next to nothing."""
    if len(poses.rotations) < 2:
        return poses
    by_rotation = poses.weights.sum(axis=1)
    kept = by_rotation > FAINT * by_rotation.max(initial=0.0)
    if kept.all():
        return poses
    return replace(poses, rotations=poses.rotations[kept], weights=np.ascontiguousarray(poses.weights[kept]))


def log_empty(settings: Settings, displacement: F64) -> float:
    """Log evidence of nothing: the integral of the prior over the poses that are searched, in rad^3 Å^3.

    `displacement` (3,) Å is where the search of the particle begins.
    """
    grid = settings.grid
    shifts = grid.shifts()
    inside = np.exp(settings.shift_prior(displacement, shifts).astype(np.float64))
    volume = float(inside.sum()) * grid.shift_step_angstrom**3
    # everywhere is one asymmetric unit
    rotations = 8.0 * np.pi**2 / (1 if settings.symmetry is None else len(settings.symmetry))
    if grid.local_sigma_deg is not None:
        rotations = min(8.0 * np.pi**2, float((2.0 * np.pi) ** 1.5 * np.radians(grid.local_sigma_deg) ** 3))
    return float(np.log(volume * rotations)) + settings.log_prior_of_no_shift(displacement)
