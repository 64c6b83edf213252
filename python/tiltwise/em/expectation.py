"""E-step of one group of particles (one tilt series, one half set), and their share of the M-step sums.

Two passes, as in RELION: all coarse cells at low resolution, then the children of the significant ones at
the current resolution.  In a global search the slices of a tile of rotations are shared by all particles
of the batch; posterior-weighted sums are formed per rotation and inserted once (Eq. 11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.grid import PoseGrid
from tiltwise.em.likelihood import Scorer, WhitenedImages, shift_phases, slice_matrices, whiten
from tiltwise.em.volumes import Accumulator
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.rotations import angular_distance_deg, nearest_rotation
from tiltwise.kernels.api import C64, F32, PosteriorSummary
from tiltwise.model import TiltSeries
from tiltwise.spectral.disc import FourierDisc

NOISE_ROTATIONS = 8
"""Rotations of largest weight that stand for all in the residual power: near-equivalent poses explain alike."""


@dataclass(slots=True)
class PoseEstimate:
    """Posterior of one particle in a few numbers."""

    rotation: NDArray[np.float64]
    """(3, 3) mean rotation of the main mode, reference to tomogram"""
    shift_angstrom: NDArray[np.float64]
    """(3,) mean shift of the main mode along tomogram axes"""
    log_evidence: float
    max_probability: float
    n_significant: int
    entropy: float
    square_offset: float
    """posterior mean of the squared displacement from the stored coordinate, Å^2"""


@dataclass(slots=True)
class NoiseSums:
    """Sums of Eq. 12 over the particles of one series, per tilt and shell."""

    power: NDArray[np.float64]
    """sum over particles of the mean power of one component of X, or of C X of premultiplied images"""
    explained: NDArray[np.float64]
    """sum over particles and components of 2 Re<CV, X> - |CV|^2, posterior-weighted; of premultiplied images
    2 Re<C^2 V, C X> - |C^2 V|^2"""
    weight: NDArray[np.float64]
    """sum over particles that see the tilt of the noise power of a component over sigma^2: 1, or the mean C^2"""

    @classmethod
    def empty(cls, n_tilts: int, n_shells: int) -> NoiseSums:
        """Zeros."""
        return cls(*(np.zeros((n_tilts, n_shells)) for _ in range(3)))


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
    threads: int = 1
    batch_bytes: int = 1 << 30


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
class Expectation:
    """Runs the E-step of a group; fills the accumulator of its half set."""

    scorer: Scorer
    disc: FourierDisc
    settings: Settings
    shifts: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.shifts = self.settings.grid.shifts()

    def run(
        self,
        group: Group,
        accumulator: Accumulator | None,
        noise: NoiseSums | None,
        advance: Callable[[int], None],
    ) -> list[PoseEstimate]:
        """Poses of all members, in their order; `advance(n)` is called after every n particles."""
        estimates: list[PoseEstimate] = []
        for batch in self.batches(group):
            images = ordered_map(group.load, batch, self.settings.threads)
            whitened = [whiten(i, self.disc, group.noise_power, self._map_count) for i in images]
            coarse = self.coarse_terms(group, batch, whitened)
            for local, image, raw, (angles, rotations, cross, quadratic) in zip(
                batch, whitened, images, coarse, strict=True
            ):
                likelihood = 2.0 * cross - quadratic[:, None]
                estimates.append(
                    self._particle(group, local, image, raw, angles, rotations, likelihood, accumulator, noise)
                )
                advance(1)
        return estimates

    @property
    def _map_count(self) -> int:
        return self.disc.count(self.settings.map_radius)

    def batches(self, group: Group, limit: int | None = None) -> list[range]:
        """Members, `limit` at most, in batches whose images and coarse likelihoods fit the memory allowed."""
        total = len(group.members) if limit is None else min(limit, len(group.members))
        n_coarse = len(self.settings.grid.rotations()[0]) if self.settings.grid.local_sigma_deg is None else 4096
        per_particle = 28 * self._map_count * group.series.n_tilts + 4 * n_coarse * len(self.shifts)
        size = max(1, int(self.settings.batch_bytes // per_particle))
        return [range(i, min(i + size, total)) for i in range(0, total, size)]

    def _phases(self, series: TiltSeries, shifts: NDArray[np.float64], count: int) -> NDArray[np.complex64]:
        """(T, F, K) for all tilts of the series."""
        tilts = np.arange(series.n_tilts)
        phases = shift_phases(series, tilts, shifts, self.disc, self.settings.pixel_size, count)
        return phases.reshape(len(shifts), series.n_tilts, count)

    @staticmethod
    def _of_tilts(array: NDArray[np.complex64], tilts: NDArray[np.intp]) -> C64:
        """(n, F, K) -> (n, F' K) of the tilts a particle is visible in, without a copy when that is all of them."""
        if len(tilts) == array.shape[1]:
            return array.reshape(len(array), -1)
        return np.ascontiguousarray(array[:, tilts]).reshape(len(array), -1)

    @property
    def coarse_count(self) -> int:
        """Pixels per tilt of the coarse pass."""
        return self.disc.count(self.settings.coarse_radius)

    def coarse_terms(
        self, group: Group, batch: range, whitened: Sequence[WhitenedImages]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64], F32, F32]]:
        """Grid angles, rotations, cross (R, T) and quadratic (R,) terms of the coarse pass, for every particle."""
        count, series, grid = self.coarse_count, group.series, self.settings.grid
        frequencies = self.disc.frequencies3d(count)
        phases = self._phases(series, self.shifts, count)
        low = [image.prefix(count) for image in whitened]
        own_phases = [self._of_tilts(phases, image.tilts) for image in low]
        if grid.local_sigma_deg is not None:
            result = []
            for local, image, own in zip(batch, low, own_phases, strict=True):
                angles, rotations = grid.near(group.rotations[local])
                result.append((angles, rotations, *self.scorer.terms(series, image, rotations, own, frequencies)))
            return result
        angles, rotations = grid.rotations()
        cross = np.empty((len(low), len(rotations), len(self.shifts)), np.float32)
        quadratic = np.empty((len(low), len(rotations)), np.float32)
        every = np.arange(series.n_tilts)
        for tile in self.scorer.tiles(len(rotations), series.n_tilts * count):
            # one set of slices serves all particles of the batch
            slices = self.scorer.slices(series, every, rotations[tile], frequencies)
            slices = slices.reshape(-1, series.n_tilts, count)
            for i, image in enumerate(low):
                cross[i, tile], quadratic[i, tile] = self.scorer.backend.score(
                    self._of_tilts(slices, image.tilts),
                    image.score_image,
                    image.score_power,
                    own_phases[i],
                    threads=self.settings.threads,
                )
        return [(angles, rotations, c, q) for c, q in zip(cross, quadratic, strict=True)]

    def _shift_prior(self, displacement: NDArray[np.float64], shifts: NDArray[np.float64]) -> F32:
        """(T,) Gaussian log prior on the total displacement from the stored coordinate, in Å."""
        square = ((displacement + shifts) ** 2).sum(axis=1)
        return np.asarray(-0.5 * square / self.settings.offset_sigma_angstrom**2, dtype=np.float32)

    def _particle(
        self,
        group: Group,
        local: int,
        image: WhitenedImages,
        raw: ParticleImages,
        angles: NDArray[np.float64],
        rotations: NDArray[np.float64],
        likelihood: F32,
        accumulator: Accumulator | None,
        noise: NoiseSums | None,
    ) -> PoseEstimate:
        """Second pass, posterior and M-step sums of one particle."""
        settings, grid, backend = self.settings, self.settings.grid, self.scorer.backend
        centre, displacement = group.rotations[local], group.displacements_angstrom[local]
        weights, summary = backend.posterior(
            likelihood,
            grid.log_prior(rotations, centre),
            self._shift_prior(displacement, self.shifts),
            settings.fraction,
        )
        shifts = self.shifts
        if grid.oversampling > 0 or settings.fine_radius > settings.coarse_radius:
            rows = np.flatnonzero(weights.sum(axis=1) > 0)
            if len(rows) > settings.max_rotations:
                rows = np.sort(np.argsort(-weights.sum(axis=1), kind="stable")[: settings.max_rotations])
            rotations = grid.children(angles[rows])
            shifts = grid.fine_shifts(self.shifts[np.flatnonzero(weights.sum(axis=0) > 0)])
            count = self.disc.count(settings.fine_radius)
            fine = image.prefix(count)
            phases = shift_phases(group.series, image.tilts, shifts, self.disc, settings.pixel_size, count)
            cross, quadratic = self.scorer.terms(group.series, fine, rotations, phases, self.disc.frequencies3d(count))
            weights, summary = backend.posterior(
                2.0 * cross - quadratic[:, None],
                grid.log_prior(rotations, centre),
                self._shift_prior(displacement, shifts),
                settings.fraction,
            )
        rows, columns = np.flatnonzero(weights.sum(axis=1) > 0), np.flatnonzero(weights.sum(axis=0) > 0)
        kept = np.ascontiguousarray(weights[np.ix_(rows, columns)])
        if accumulator is not None and len(rows):
            self._maximise(group, image, raw, rotations[rows], shifts[columns], kept, accumulator, noise)
        return self._estimate(rotations[rows], shifts[columns], kept, displacement, centre, summary)

    def _maximise(
        self,
        group: Group,
        image: WhitenedImages,
        raw: ParticleImages,
        rotations: NDArray[np.float64],
        shifts: NDArray[np.float64],
        weights: F32,
        accumulator: Accumulator,
        noise: NoiseSums | None,
    ) -> None:
        """Adds the posterior-weighted images of one particle to the accumulator and to the noise sums."""
        count, threads = self._map_count, self.settings.threads
        frequencies = self.disc.frequencies3d(count)
        phases = shift_phases(group.series, image.tilts, shifts, self.disc, self.settings.pixel_size, count)
        n_tilts, backend = len(image.tilts), self.scorer.backend
        for tile in self.scorer.tiles(len(rotations), n_tilts * count):
            part = np.ascontiguousarray(weights[tile])
            sums, totals = backend.backproject(part, image.map_image, image.map_power, phases, threads=threads)
            backend.insert(
                sums.reshape(-1, count),
                totals.reshape(-1, count),
                slice_matrices(group.series, image.tilts, rotations[tile], self.scorer.scale),
                frequencies,
                accumulator.padded // 2,
                accumulator.data,
                accumulator.weight,
                threads=threads,
            )
        if noise is not None:
            top = np.sort(np.argsort(-weights.sum(axis=1), kind="stable")[:NOISE_ROTATIONS])
            share = np.ascontiguousarray(weights[top] * (weights.sum() / weights[top].sum()))
            explained = self._explained(group, image, raw, rotations[top], share, phases, frequencies)
            noise.explained[image.tilts] += explained * group.noise_power[image.tilts]
            noise.power[image.tilts] += raw.power
            noise.weight[image.tilts] += self.disc.shell_means(raw.ctf2.astype(np.float64)) if raw.premultiplied else 1

    def _explained(
        self,
        group: Group,
        image: WhitenedImages,
        raw: ParticleImages,
        rotations: NDArray[np.float64],
        weights: F32,
        phases: C64,
        frequencies: F32,
    ) -> NDArray[np.float64]:
        """(F, S) posterior sum of what `NoiseSums.explained` holds, over sigma^2."""
        backend, threads, shells = self.scorer.backend, self.settings.threads, self.disc.shells[: len(frequencies)]
        slices = self.scorer.slices(group.series, image.tilts, rotations, frequencies)
        data, power = image.map_image, image.map_power
        if raw.premultiplied:
            ctf2 = np.ascontiguousarray(raw.ctf2[:, : len(frequencies)]).reshape(-1)
            data, power = data * ctf2, power * ctf2
        sums, totals = backend.backproject(weights, data, power, phases, threads=threads)
        flat = slices.reshape(-1, len(frequencies))
        # 2 Re<V, N> - <V, W V> = Re<V, 2 N - W V>: one pass over the shells
        other = np.asarray(2.0 * sums - totals * slices, np.complex64).reshape(flat.shape)
        values = backend.shell_sums(flat, other, None, shells, self.disc.n_shells, threads=threads)
        return np.asarray(values.reshape(-1, len(image.tilts), self.disc.n_shells).sum(axis=0))

    def _estimate(
        self,
        rotations: NDArray[np.float64],
        shifts: NDArray[np.float64],
        weights: F32,
        displacement: NDArray[np.float64],
        previous: NDArray[np.float64],
        summary: PosteriorSummary,
    ) -> PoseEstimate:
        """Mean of the main mode: poses within 2.5 fine steps of the best one, so the grid does not show."""
        if not weights.size:
            return PoseEstimate(
                previous, np.zeros(3), summary.log_evidence, 0.0, 0, 0.0, float(displacement @ displacement)
            )
        best, best_shift = np.unravel_index(int(np.argmax(weights)), weights.shape)
        grid = self.settings.grid
        near = angular_distance_deg(rotations, rotations[best]) <= 2.5 * grid.fine_step_deg
        close = np.linalg.norm(shifts - shifts[best_shift], axis=1) <= 2.5 * grid.fine_shift_step_angstrom
        mode = weights * np.outer(near, close)
        mode = mode / mode.sum()
        total = (displacement + shifts) ** 2
        return PoseEstimate(
            rotation=nearest_rotation(np.einsum("r,rij->ij", mode.sum(axis=1), rotations)),
            shift_angstrom=mode.sum(axis=0) @ shifts,
            log_evidence=summary.log_evidence,
            max_probability=summary.max_probability,
            n_significant=summary.n_significant,
            entropy=summary.entropy,
            square_offset=float(weights.sum(axis=0) @ total.sum(axis=1) / weights.sum()),
        )
