"""E-step (Eqs. 1-4) of the particles of one series: coarse pass, then modes or a finer grid, then M-step sums.

The coarse pass scores a grid of rotations and shifts at low resolution.  Where its posterior is a few compact
peaks, each is climbed at full resolution and becomes a Gaussian (`tiltwise.em.laplace`); where it is not, or a
Gaussian does not describe a peak, the children of all significant cells are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.climbs import Climbs
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.fine_grid import FineGrid
from tiltwise.em.fixed import FixedPoses
from tiltwise.em.laplace import climbing_radii
from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.em.maximisation import Maximiser, NoiseSums, PosteriorPoses
from tiltwise.em.octree import GlobalSearch, Level, levels_of, mass_missed, of_tilts
from tiltwise.em.peaks import CoarsePosterior, CoarseTerms, find_peaks
from tiltwise.em.settings import Group, Settings
from tiltwise.errors import DataError
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.api import F32
from tiltwise.maps.volumes import Accumulator
from tiltwise.maps.whitening import WhitenedImages, whiten
from tiltwise.spectral.components import FourierComponents

TOGETHER = 16
"""Particles of a local search whose coarse scores are held at a time."""
BATCH_BYTES = 512 << 20
"""Images and coarse likelihoods that are held at a time.  Particles of a batch share slices and the first look at a
grid, so batches must not depend on the machine."""


@dataclass(slots=True)
class Expectation:
    """Runs the E-step of a group; fills the accumulator of its half set."""

    scorer: Scorer
    disc: FourierComponents
    settings: Settings
    shifts: NDArray[np.float64] = field(init=False)
    missed: list[float] = field(init=False, default_factory=list)
    """posterior mass that the global search has missed, of every audited particle"""
    _levels: list[Level] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.settings = self.settings.within(self.disc.radius)
        self.shifts = self.settings.grid.shifts()
        if self._everywhere:
            self._levels = levels_of(self.settings.grid, self.settings.level_radius, self.settings.symmetry)

    @property
    def _everywhere(self) -> bool:
        """Whether all orientations are searched."""
        return self.settings.grid.local_sigma_deg is None and not self.settings.fixed

    def run(
        self,
        group: Group,
        accumulator: Accumulator | None,
        noise: NoiseSums | None,
        advance: Callable[[int], None],
    ) -> list[PoseEstimate]:
        """Poses of all members, in their order; `advance(n)` is called after every n particles."""
        estimates: list[PoseEstimate] = []
        maximiser = None
        if accumulator is not None:
            maximiser = Maximiser(
                self.scorer,
                self.disc,
                self.settings.pixel_size,
                group.series,
                group.noise_power,
                accumulator,
                noise,
            )
        for batch in self.batches(group):
            images = ordered_map(group.load, batch, self.settings.threads)
            for local, raw in zip(batch, images, strict=True):
                refuse_unusable(raw, f"{group.series.name}, particle {int(group.members[local]) + 1}")
            whitened = [whiten(i, self.disc, group.noise_power, self.map_count) for i in images]
            results = self.posteriors(group, list(batch), whitened)
            for image, raw, (poses, estimate) in zip(whitened, images, results, strict=True):
                # sums in the order of the particles
                frames, local = group.frames, len(estimates)
                estimates.append(estimate if frames is None else estimate.turned(frames[local]))
                if maximiser is not None and poses.weights.size:
                    maximiser.add(image, raw, poses)
                advance(1)
        return estimates

    def posteriors(
        self, group: Group, batch: list[int], whitened: list[WhitenedImages]
    ) -> Iterator[tuple[PosteriorPoses, PoseEstimate]]:
        """Posterior of every member of a batch, in their order; those on a grid are large and made one by one."""
        if self.settings.fixed:
            yield from FixedPoses(self.scorer, self.disc, self.settings).run(group, batch, whitened)
            return
        climbs = Climbs(self.scorer, self.disc, self.settings)
        grid = FineGrid(self.scorer, self.disc, self.settings)
        found: list[tuple[PosteriorPoses, PoseEstimate] | None] = [None] * len(batch)
        if self.settings.follow:
            mates = self.settings.grid.mates
            peaks = [(group.rotations[i] @ mates, np.zeros((len(mates), 3))) for i in batch]
            found = climbs.run(group, batch, whitened, peaks, [self.settings.fine_radius])
        left = [i for i, one in enumerate(found) if one is None]
        images = [whitened[i] for i in left]
        coarse = [
            self._coarse_posterior(group, batch[i], terms)
            for i, terms in zip(left, self.coarse_terms(group, [batch[i] for i in left], images), strict=True)
        ]
        radii = climbing_radii(self.settings.grid.coarse_step_deg, self.settings.fine_radius)
        climbed = climbs.run(group, [batch[i] for i in left], images, [low.peaks for low in coarse], radii)
        cells = dict(zip(left, coarse, strict=True))
        for i, one in zip(left, climbed, strict=True):
            found[i] = one
        for i, one in enumerate(found):
            yield one or grid.search(group, batch[i], whitened[i], cells[i])

    @property
    def map_count(self) -> int:
        """Pixels per tilt that enter the reconstruction, no fewer than are scored."""
        return self.disc.count(self.settings.map_radius)

    def batches(self, group: Group, limit: int | None = None) -> list[range]:
        """Members, `limit` at most, in batches whose images and coarse likelihoods fit `BATCH_BYTES`."""
        total = len(group.members) if limit is None else min(limit, len(group.members))
        # local searches keep the likelihoods of one particle at a time
        n_coarse = len(self.settings.grid.rotations()[0]) if self._everywhere else 0
        per_particle = 44 * self.map_count * group.series.n_tilts + 4 * n_coarse * len(self.shifts)
        size = max(1, int(BATCH_BYTES // per_particle))
        return [range(i, min(i + size, total)) for i in range(0, total, size)]

    @property
    def coarse_count(self) -> int:
        """Pixels per tilt of the coarse pass."""
        return self.disc.count(self.settings.coarse_radius)

    def coarse_terms(
        self, group: Group, batch: Sequence[int], whitened: Sequence[WhitenedImages], *, prune: bool = True
    ) -> Iterator[CoarseTerms]:
        """Scores of the coarse pass, particle by particle; `prune` False scores every cell of a global search."""
        count, series, grid = self.coarse_count, group.series, self.settings.grid
        frequencies = self.disc.frequencies3d(count)
        if self.settings.fixed:
            still = np.zeros((1, 3))
            for local, image in zip(batch, whitened, strict=True):
                low, rotation = image.prefix(count), group.rotations[local][None]
                phases = shift_phases(series, low.tilts, still, self.disc, self.settings.pixel_size, count)
                terms = self.scorer.terms(series, low, rotation, phases, frequencies)
                yield CoarseTerms(np.zeros((1, 3)), rotation, still, *terms)
            return
        if not self._everywhere:
            # particles side by side, each on one thread: their grids are too small to be shared out
            scorer = replace(self.scorer, threads=1)
            every = np.arange(series.n_tilts)
            phases = shift_phases(series, every, self.shifts, self.disc, self.settings.pixel_size, count)
            phases = phases.reshape(len(self.shifts), series.n_tilts, count)

            def of_particle(task: tuple[int, WhitenedImages]) -> CoarseTerms:
                local, image = task
                angles, rotations = grid.near(group.rotations[local])
                low = image.prefix(count)
                terms = scorer.terms(series, low, rotations, of_tilts(phases, low.tilts), frequencies)
                return CoarseTerms(angles, rotations, self.shifts, *terms)

            tasks = list(zip(batch, whitened, strict=True))
            for start in range(0, len(tasks), TOGETHER):
                yield from ordered_map(of_particle, tasks[start : start + TOGETHER], self.settings.threads)
            return
        levels = self._levels
        search = GlobalSearch(self.scorer, series, self.disc, self.settings.pixel_size, levels)
        displacements = group.displacements_angstrom[list(batch)]
        stored = None if group.orientation is None else group.orientation.take(np.array(batch))

        def prior(i: int, shifts: NDArray[np.float64]) -> F32:
            return self.settings.shift_prior(displacements[i], shifts)

        last, found = levels[-1], search.run(whitened, prior, stored, prune=prune)
        if prune:
            audited = [i for i, local in enumerate(batch) if local < group.audited]
            of_audited = None if stored is None else stored.take(np.array(audited, np.intp))
            full = search.run([whitened[i] for i in audited], prior, of_audited, prune=False)
            for i, everything in zip(audited, full, strict=True):
                one = None if stored is None else stored.take(np.array([i]))
                self.missed.append(mass_missed(everything, found[i], partial(prior, i), last, one))
        for cells in found:
            rows = cells.rows
            yield CoarseTerms(
                last.angles[rows], last.rotations[rows], last.shifts[cells.columns], cells.cross, cells.quadratic
            )

    def _coarse_posterior(
        self,
        group: Group,
        local: int,
        terms: CoarseTerms,
    ) -> CoarsePosterior:
        """Significant cells of the coarse pass, and its peaks."""
        settings, grid = self.settings, self.settings.grid
        angles, rotations, shifts = terms.angles, terms.rotations, terms.shifts
        weights, _ = self.scorer.backend.posterior(
            2.0 * terms.cross - terms.quadratic[:, None],
            group.rotation_prior(grid, local, rotations),
            self.settings.shift_prior(group.displacements_angstrom[local], shifts),
            settings.fraction,
        )
        by_rotation = weights.sum(axis=1)
        rows, columns = np.flatnonzero(by_rotation > 0), np.flatnonzero(weights.sum(axis=0) > 0)
        peaks = None
        if settings.climb:
            kept = weights[np.ix_(rows, columns)].astype(np.float64)
            peaks = find_peaks(kept, rotations[rows], shifts[columns], grid, settings.symmetry)
            if peaks is not None and grid.local_sigma_deg is not None:
                # where the particle was is worth a climb of its own
                before = group.rotations[local] @ grid.mates
                peaks = np.concatenate([peaks[0], before]), np.concatenate([peaks[1], np.zeros((len(before), 3))])
        if len(rows) > settings.max_rotations:
            rows = np.sort(np.argsort(-by_rotation, kind="stable")[: settings.max_rotations])
        return CoarsePosterior(angles[rows], shifts[columns], weights[np.ix_(rows, columns)] > 0, peaks)


def refuse_unusable(raw: ParticleImages, where: str) -> None:
    """Raises DataError for images that would spoil the sums of all particles."""
    if not len(raw.tilts):
        raise DataError(
            "a particle is visible in no tilt",
            where=where,
            fix="take the particle out of the set, or use a smaller --crop",
        )
    if not all(np.isfinite(array).all() for array in (raw.data, raw.masked, raw.ctf2, raw.power)):
        raise DataError(
            "images hold NaN or infinite values",
            where=where,
            expected="finite images, CTFs and noise power",
            fix="check the tilt images, the CTF parameters and the scale factors of this tilt series",
        )
