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

from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import Climber, Modes, PosePrior, climbing_radii, gaussian_poses
from tiltwise.em.likelihood import Scorer, WhitenedImages, shift_phases, whiten
from tiltwise.em.maximisation import Maximiser, NoiseSums, PosteriorPoses
from tiltwise.em.octree import GlobalSearch, Level, levels_of, mass_missed
from tiltwise.em.volumes import Accumulator
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.rotations import angular_distance_deg, nearest_rotation
from tiltwise.kernels.api import F32
from tiltwise.model import TiltSeries
from tiltwise.spectral.disc import FourierDisc

MOST_PEAKS = 24
"""A coarse posterior of more peaks than this is searched on the finer grid."""
PEAK_MASS = 0.99
"""Share of the coarse posterior that peaks must hold."""
LARGEST_DEFECT = 0.7
"""Nats by which a posterior may depart from a Gaussian two sigma off its mode."""
LARGEST_WIDTH = 1.0
"""Shells x radians: wider Gaussians smear the rim over more voxels than a few points stand for."""
SAME_MODE = 4.0
"""Squared distance in standard deviations within which two climbs have reached the same mode."""
TOGETHER = 16
"""Particles of a local search whose coarse scores are held at a time."""
AUDIT = 4
"""Particles of every batch of a global search that are searched in full, to know what it misses."""
CLIMBING = 24
"""Particles that climb together: few enough for the caches."""


@dataclass(slots=True)
class PoseEstimate:
    """Posterior of one particle in a few numbers."""

    rotation: NDArray[np.float64]
    """(3, 3) mean rotation of the main mode, reference to tomogram"""
    shift_angstrom: NDArray[np.float64]
    """(3,) mean shift of the main mode along tomogram axes"""
    log_evidence: float
    """log of the integral of likelihood x prior over rad^3 Å^3"""
    max_probability: float
    """share of the best pose of a grid, or of the main mode"""
    n_significant: int
    """poses of a grid, or modes"""
    std_deg: float
    """standard deviation of the main mode over one axis of rotation (rms of three)"""
    std_angstrom: float
    """the same over one axis of the shift"""
    square_offset: float
    """posterior mean of the squared displacement from the stored coordinate, Å^2"""
    sharp: bool
    """whether the posterior is a few Gaussians instead of a grid"""


@dataclass(slots=True)
class Settings:
    """What one E-step needs besides particles and references."""

    grid: PoseGrid
    coarse_radius: float
    fine_radius: float
    map_radius: float
    """cycles per box up to which images enter the reconstruction, at least `fine_radius`"""
    pixel_size: float
    offset_sigma_angstrom: float
    fraction: float = 0.999
    max_rotations: int = 4000
    """coarse cells kept for the second pass at most"""
    climb: bool = True
    """False searches every particle on the grid"""
    follow: bool = False
    """True climbs from the last poses without a coarse pass, where the posterior there is Gaussian"""
    threads: int = 1
    batch_bytes: int = 1 << 30

    def level_radius(self, order: int) -> float:
        """Radius at which a global search scores a level: what its steps resolve, at least 5 shells."""
        return min(max(self.coarse_radius / 2.0 ** (self.grid.order - order), 5.0), self.coarse_radius)


@dataclass(slots=True)
class Group:
    """Particles of one series and half set, with their present poses."""

    series: TiltSeries
    noise_power: NDArray[np.float64]
    """(F, S) sigma^2"""
    members: NDArray[np.intp]
    rotations: NDArray[np.float64]
    """(n, 3, 3) reference to tomogram"""
    displacements_angstrom: NDArray[np.float64]
    """(n, 3) present position minus stored coordinate, along tomogram axes"""
    load: Callable[[int], ParticleImages]
    """images of member i at its present position"""


@dataclass(slots=True)
class CoarseTerms:
    """Scores of one particle in the coarse pass."""

    angles: NDArray[np.float64]
    """(R, 3) grid angles"""
    rotations: NDArray[np.float64]
    """(R, 3, 3)"""
    shifts: NDArray[np.float64]
    """(T, 3) Å"""
    cross: F32
    """(R, T)"""
    quadratic: F32
    """(R,)"""


Peaks = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Rotations (n, 3, 3) and shifts (n, 3) from which climbs start."""


@dataclass(slots=True)
class CoarsePosterior:
    """What the coarse pass leaves of a particle."""

    angles: NDArray[np.float64]
    """(R, 3) grid angles of the significant cells"""
    shifts: NDArray[np.float64]
    """(T, 3) significant shifts"""
    significant: NDArray[np.bool_]
    """(R, T) cells that hold 99.9 % of the posterior"""
    peaks: Peaks | None
    """None if they are too many"""


@dataclass(slots=True)
class Expectation:
    """Runs the E-step of a group; fills the accumulator of its half set."""

    scorer: Scorer
    disc: FourierDisc
    settings: Settings
    shifts: NDArray[np.float64] = field(init=False)
    missed: list[float] = field(init=False, default_factory=list)
    """posterior mass that the global search has missed, of every particle of the audit sets"""
    _levels: list[Level] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.shifts = self.settings.grid.shifts()
        if self.settings.grid.local_sigma_deg is None:
            self._levels = levels_of(self.settings.grid, self.settings.level_radius)

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
            maximiser = Maximiser(self.scorer, self.disc, group.series, group.noise_power, accumulator, noise)
        for batch in self.batches(group):
            images = ordered_map(group.load, batch, self.settings.threads)
            whitened = [whiten(i, self.disc, group.noise_power, self._map_count) for i in images]
            results = self._posteriors(group, list(batch), whitened)
            for image, raw, (poses, estimate) in zip(whitened, images, results, strict=True):
                # sums in the order of the particles
                estimates.append(estimate)
                if maximiser is not None and poses.weights.size:
                    maximiser.add(image, raw, poses)
                advance(1)
        return estimates

    def _posteriors(
        self, group: Group, batch: list[int], whitened: list[WhitenedImages]
    ) -> list[tuple[PosteriorPoses, PoseEstimate]]:
        """Posterior of every member of a batch."""
        found: list[tuple[PosteriorPoses, PoseEstimate] | None] = [None] * len(batch)
        if self.settings.follow:
            peaks = [(group.rotations[i][None], np.zeros((1, 3))) for i in batch]
            found = self._climb(group, batch, whitened, peaks, [self.settings.fine_radius])
        left = [i for i, one in enumerate(found) if one is None]
        images = [whitened[i] for i in left]
        coarse = [
            self._coarse_posterior(group, batch[i], terms)
            for i, terms in zip(left, self.coarse_terms(group, [batch[i] for i in left], images), strict=True)
        ]
        radii = climbing_radii(self.settings.grid.coarse_step_deg, self.settings.fine_radius)
        climbed = self._climb(group, [batch[i] for i in left], images, [low.peaks for low in coarse], radii)
        for i, low, one in zip(left, coarse, climbed, strict=True):
            found[i] = one or self._search(group, batch[i], whitened[i], low)
        return [one for one in found if one is not None]

    @property
    def _map_count(self) -> int:
        return self.disc.count(self.settings.map_radius)

    def batches(self, group: Group, limit: int | None = None) -> list[range]:
        """Members, `limit` at most, in batches whose images and coarse likelihoods fit the memory allowed."""
        total = len(group.members) if limit is None else min(limit, len(group.members))
        # local searches keep the likelihoods of one particle at a time
        shared = self.settings.grid.local_sigma_deg is None
        n_coarse = len(self.settings.grid.rotations()[0]) if shared else 0
        per_particle = 40 * self._map_count * group.series.n_tilts + 4 * n_coarse * len(self.shifts)
        size = max(1, int(self.settings.batch_bytes // per_particle))
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
        if grid.local_sigma_deg is not None:
            frequencies = self.disc.frequencies3d(count)
            # particles side by side, each on one thread: their grids are too small to be shared out
            scorer = replace(self.scorer, threads=1)

            def of_particle(task: tuple[int, WhitenedImages]) -> CoarseTerms:
                local, image = task
                angles, rotations = grid.near(group.rotations[local])
                low = image.prefix(count)
                phases = shift_phases(series, low.tilts, self.shifts, self.disc, self.settings.pixel_size, count)
                terms = scorer.terms(series, low, rotations, phases, frequencies)
                return CoarseTerms(angles, rotations, self.shifts, *terms)

            tasks = list(zip(batch, whitened, strict=True))
            for start in range(0, len(tasks), TOGETHER):
                yield from ordered_map(of_particle, tasks[start : start + TOGETHER], self.settings.threads)
            return
        levels = self._levels
        search = GlobalSearch(self.scorer, series, self.disc, self.settings.pixel_size, levels)
        displacements = group.displacements_angstrom[list(batch)]

        def prior(i: int, shifts: NDArray[np.float64]) -> F32:
            return self._shift_prior(displacements[i], shifts)

        last, found = levels[-1], search.run(whitened, prior, prune=prune)
        if prune:
            audited = range(0, len(whitened), max(1, len(whitened) // AUDIT))
            full = search.run([whitened[i] for i in audited], prior, prune=False)
            for i, everything in zip(audited, full, strict=True):
                self.missed.append(mass_missed(everything, found[i], partial(prior, i), last.shifts))
        for cells in found:
            rows = cells.rows
            yield CoarseTerms(
                last.angles[rows], last.rotations[rows], last.shifts[cells.columns], cells.cross, cells.quadratic
            )

    def _shift_prior(self, displacement: NDArray[np.float64], shifts: NDArray[np.float64]) -> F32:
        """(T,) Gaussian log prior on the total displacement from the stored coordinate, in Å."""
        square = ((displacement + shifts) ** 2).sum(axis=1)
        return np.asarray(-0.5 * square / self.settings.offset_sigma_angstrom**2, dtype=np.float32)

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
            grid.log_prior(rotations, group.rotations[local]),
            self._shift_prior(group.displacements_angstrom[local], shifts),
            settings.fraction,
        )
        by_rotation = weights.sum(axis=1)
        rows, columns = np.flatnonzero(by_rotation > 0), np.flatnonzero(weights.sum(axis=0) > 0)
        peaks = None
        if settings.climb:
            kept = weights[np.ix_(rows, columns)].astype(np.float64)
            peaks = find_peaks(kept, rotations[rows], shifts[columns], grid)
            if peaks is not None and grid.local_sigma_deg is not None:
                # where the particle was is worth a climb of its own
                before = group.rotations[local]
                peaks = np.concatenate([peaks[0], before[None]]), np.concatenate([peaks[1], np.zeros((1, 3))])
        if len(rows) > settings.max_rotations:
            rows = np.sort(np.argsort(-by_rotation, kind="stable")[: settings.max_rotations])
        return CoarsePosterior(angles[rows], shifts[columns], weights[np.ix_(rows, columns)] > 0, peaks)

    def _climb(
        self,
        group: Group,
        batch: list[int],
        whitened: list[WhitenedImages],
        peaks: Sequence[Peaks | None],
        radii: Sequence[float],
    ) -> list[tuple[PosteriorPoses, PoseEstimate] | None]:
        """Posterior of every particle as Gaussians; None where there are no peaks, or that does not describe them."""
        result: list[tuple[PosteriorPoses, PoseEstimate] | None] = []
        for start in range(0, len(batch), CLIMBING):
            part = slice(start, start + CLIMBING)
            result += self._climb_together(group, batch[part], whitened[part], peaks[part], radii)
        return result

    def _climb_together(
        self,
        group: Group,
        batch: list[int],
        whitened: list[WhitenedImages],
        peaks: Sequence[Peaks | None],
        radii: Sequence[float],
    ) -> list[tuple[PosteriorPoses, PoseEstimate] | None]:
        result: list[tuple[PosteriorPoses, PoseEstimate] | None] = [None] * len(batch)
        chosen = [i for i, found in enumerate(peaks) if found is not None]
        if not chosen:
            return result
        settings = self.settings
        starts = [found for found in peaks if found is not None]
        owner = np.repeat(np.arange(len(chosen)), [len(rotation) for rotation, _ in starts])
        members = np.array([batch[i] for i in chosen])
        sigma = settings.grid.local_sigma_deg
        prior = PosePrior(
            group.rotations[members],
            group.displacements_angstrom[members],
            None if sigma is None else np.radians(sigma),
            settings.offset_sigma_angstrom,
        )
        climber = Climber(
            self.scorer,
            group.series,
            self.disc,
            settings.pixel_size,
            [whitened[i] for i in chosen],
            owner,
            prior,
        )
        rotation, shift = (np.concatenate(part) for part in zip(*starts, strict=True))
        modes = climber.climb(rotation, shift, radii)
        defect = climber.defect(modes, settings.fine_radius)
        for number, i in enumerate(chosen):
            own = np.flatnonzero(owner == number)
            kept = distinct(modes, own)
            mass = modes.log_mass[kept]
            share = np.exp(mass - mass.max())
            kept, share = kept[share > 1e-3 * share.sum()], share[share > 1e-3 * share.sum()]
            narrow = modes.angular_width[kept] * settings.fine_radius <= LARGEST_WIDTH
            # NaN: to the grid as well
            if not (share.sum() > 0 and np.all(defect[kept] <= LARGEST_DEFECT) and np.all(narrow)):
                continue
            share = share / share.sum()
            displacement = group.displacements_angstrom[batch[i]]
            estimate = of_modes(modes, kept, share, displacement)
            poses = gaussian_poses(
                group.series,
                whitened[i].tilts,
                self.disc,
                settings.pixel_size,
                modes,
                kept,
                share,
                settings.map_radius,
                self.scorer.scale,
            )
            result[i] = poses, estimate
        return result

    def _search(
        self, group: Group, local: int, image: WhitenedImages, coarse: CoarsePosterior
    ) -> tuple[PosteriorPoses, PoseEstimate]:
        """Second pass over the children of the significant cells."""
        settings, grid, backend = self.settings, self.settings.grid, self.scorer.backend
        centre, displacement = group.rotations[local], group.displacements_angstrom[local]
        rotations, shifts = grid.children(coarse.angles), grid.fine_shifts(coarse.shifts)
        weights, summary = backend.posterior(
            self._fine_likelihood(group, image, coarse, rotations, shifts),
            grid.log_prior(rotations, centre),
            self._shift_prior(displacement, shifts),
            settings.fraction,
        )
        rows, columns = np.flatnonzero(weights.sum(axis=1) > 0), np.flatnonzero(weights.sum(axis=0) > 0)
        rotations, shifts = rotations[rows], shifts[columns]
        kept = np.ascontiguousarray(weights[np.ix_(rows, columns)])
        phases = shift_phases(group.series, image.tilts, shifts, self.disc, settings.pixel_size, self._map_count)
        poses = PosteriorPoses(rotations, kept, phases)
        log_evidence = summary.log_evidence + grid.log_cell_volume
        if not kept.size:
            square = float(displacement @ displacement)
            return poses, PoseEstimate(centre, np.zeros(3), log_evidence, 0.0, 0, np.nan, np.nan, square, False)
        return poses, self._estimate(
            rotations, shifts, kept, displacement, log_evidence, summary.max_probability, summary.n_significant
        )

    def _fine_likelihood(
        self,
        group: Group,
        image: WhitenedImages,
        coarse: CoarsePosterior,
        rotations: NDArray[np.float64],
        shifts: NDArray[np.float64],
    ) -> F32:
        """Log likelihood (R, T) of the children of significant cells; -inf for those of others."""
        count = self.disc.count(self.settings.fine_radius)
        low, frequencies = image.prefix(count), self.disc.frequencies3d(count)
        phases = shift_phases(group.series, image.tilts, shifts, self.disc, self.settings.pixel_size, count)
        of_rotation, of_shift = len(rotations) // len(coarse.angles), len(shifts) // len(coarse.shifts)
        result = np.full((len(rotations), len(shifts)), -np.inf, np.float32)
        for tile in self.scorer.tiles(len(coarse.angles), of_rotation * len(low.score_image)):
            children = slice(tile.start * of_rotation, tile.stop * of_rotation)
            slices = self.scorer.slices(group.series, image.tilts, rotations[children], frequencies)
            # cells with the same shifts are scored together
            patterns: dict[bytes, list[int]] = {}
            for row in range(tile.start, tile.stop):
                patterns.setdefault(coarse.significant[row].tobytes(), []).append(row)
            for same in patterns.values():
                own = np.concatenate([np.arange(row * of_rotation, (row + 1) * of_rotation) for row in same])
                chosen = np.flatnonzero(np.repeat(coarse.significant[same[0]], of_shift))
                cross, quadratic = self.scorer.backend.score(
                    slices,
                    low.score_image,
                    low.score_power,
                    phases,
                    (own - children.start).astype(np.int32),
                    chosen.astype(np.int32),
                    threads=self.settings.threads,
                )
                result[np.ix_(own, chosen)] = 2.0 * cross - quadratic[:, None]
        return result

    def _estimate(
        self,
        rotations: NDArray[np.float64],
        shifts: NDArray[np.float64],
        weights: F32,
        displacement: NDArray[np.float64],
        log_evidence: float,
        max_probability: float,
        n_significant: int,
    ) -> PoseEstimate:
        """Mean of the main mode: poses within 2.5 fine steps of the best one, so the grid does not show."""
        best, best_shift = np.unravel_index(int(np.argmax(weights)), weights.shape)
        grid = self.settings.grid
        near = angular_distance_deg(rotations, rotations[best]) <= 2.5 * grid.fine_step_deg
        close = np.linalg.norm(shifts - shifts[best_shift], axis=1) <= 2.5 * grid.fine_shift_step_angstrom
        mode = weights * np.outer(near, close)
        mode = mode / mode.sum()
        total = (displacement + shifts) ** 2
        rotation, shift = (
            nearest_rotation(np.einsum("r,rij->ij", mode.sum(axis=1), rotations)),
            mode.sum(axis=0) @ shifts,
        )
        # the cells are as wide as the steps
        variance_deg = (
            mode.sum(axis=1) @ angular_distance_deg(rotations, rotation) ** 2 / 3 + grid.fine_step_deg**2 / 12
        )
        variance = mode.sum(axis=0) @ ((shifts - shift) ** 2).sum(axis=1) / 3 + grid.fine_shift_step_angstrom**2 / 12
        return PoseEstimate(
            rotation=rotation,
            shift_angstrom=shift,
            log_evidence=log_evidence,
            max_probability=max_probability,
            n_significant=n_significant,
            std_deg=float(np.sqrt(variance_deg)),
            std_angstrom=float(np.sqrt(variance)),
            square_offset=float(weights.sum(axis=0) @ total.sum(axis=1) / weights.sum()),
            sharp=False,
        )


def find_peaks(
    weights: NDArray[np.float64], rotations: NDArray[np.float64], shifts: NDArray[np.float64], grid: PoseGrid
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Rotations and shifts of the compact peaks of a posterior (R, T) on the coarse grid; None if they are many.

    A peak is a best cell with its neighbours, up to 1.6 steps of rotation and 1.8 of shift away.
    """
    left, total = weights.copy(), weights.sum()
    found: list[tuple[int, int]] = []
    while left.sum() > (1.0 - PEAK_MASS) * total:
        if len(found) == MOST_PEAKS:
            return None
        row, column = np.unravel_index(int(np.argmax(left)), left.shape)
        near = angular_distance_deg(rotations, rotations[row]) <= 1.6 * grid.coarse_step_deg
        close = np.linalg.norm(shifts - shifts[column], axis=1) <= 1.8 * grid.shift_step_angstrom
        left[np.ix_(near, close)] = 0.0
        found.append((int(row), int(column)))
    if not found:
        return None
    rows, columns = (list(part) for part in zip(*found, strict=True))
    return rotations[rows], shifts[columns]


def distinct(modes: Modes, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of the modes `chosen`, those that are not reached twice, best first."""
    kept: list[int] = []
    chosen = chosen[np.isfinite(modes.log_posterior[chosen])]
    for i in chosen[np.argsort(-modes.log_posterior[chosen], kind="stable")]:
        if all(modes.square_distance(int(i), j) > SAME_MODE for j in kept):
            kept.append(int(i))
    return np.array(kept, dtype=np.intp)


def of_modes(
    modes: Modes, kept: NDArray[np.intp], share: NDArray[np.float64], displacement: NDArray[np.float64]
) -> PoseEstimate:
    """Estimate from the Gaussians `kept`, which hold `share` of the posterior, the best first."""
    main = int(kept[np.argmax(share)])
    covariance = modes.covariance
    spread = np.trace(covariance[:, 3:, 3:], axis1=1, axis2=2)[kept]
    square = ((displacement + modes.shift[kept]) ** 2).sum(axis=1)
    return PoseEstimate(
        rotation=modes.rotation[main],
        shift_angstrom=modes.shift[main],
        log_evidence=float(np.logaddexp.reduce(modes.log_mass[kept])),
        max_probability=float(share.max()),
        n_significant=len(kept),
        std_deg=float(np.degrees(np.sqrt(np.trace(covariance[main, :3, :3]) / 3))),
        std_angstrom=float(np.sqrt(np.trace(covariance[main, 3:, 3:]) / 3)),
        square_offset=float(share @ (square + spread)),
        sharp=True,
    )
