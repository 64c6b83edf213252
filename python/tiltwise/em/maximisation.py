"""M-step sums of one particle: images at its poses into the accumulator (Eq. 11), residual power (Eq. 12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.likelihood import PhaseTiles, Scorer, shift_phases
from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.api import C64, F32
from tiltwise.maps.volumes import Accumulator
from tiltwise.maps.whitening import WhitenedImages, noise_weight, slice_matrices
from tiltwise.model import Views
from tiltwise.spectral.components import FourierComponents

NOISE_ROTATIONS = 3
"""Rotations of largest weight that stand for all in the residual power: near-equivalent poses explain alike."""


@dataclass(slots=True)
class NoiseSums:
    """Sums of Eq. 12 over the particles of one series, per tilt and shell."""

    power: NDArray[np.float64]
    """sum over particles of the mean power of one component of X, or of C X of premultiplied images"""
    explained: NDArray[np.float64]
    """sum over particles and components of 2 Re<CV, X> - |CV|^2, posterior-weighted; of premultiplied images
    2 Re<C^2 V, C X> - |C^2 V|^2"""
    weight: NDArray[np.float64]
    """sum over particles that see the tilt of the noise power of a component over sigma^2, see `noise_weight`"""
    quadratic: NDArray[np.float64]
    """the second term of `explained` without its sign"""

    @classmethod
    def empty(cls, n_tilts: int, n_shells: int) -> NoiseSums:
        """Zeros."""
        return cls(*(np.zeros((n_tilts, n_shells)) for _ in range(4)))

    def add(self, other: NoiseSums) -> None:
        """Adds the sums over other particles, in place."""
        self.power += other.power
        self.explained += other.explained
        self.weight += other.weight
        self.quadratic += other.quadratic

    def pooled(self) -> NoiseSums:
        """The same sums over all tilts for every tilt."""
        parts = self.power, self.explained, self.weight, self.quadratic
        return NoiseSums(*(np.broadcast_to(part.sum(axis=0), part.shape) for part in parts))


@dataclass(slots=True)
class ShiftSpread:
    """Gaussian spread of shifts about the T that are listed."""

    covariance: NDArray[np.float64]
    """(M, 3, 3) Å^2"""
    of_shift: NDArray[np.intp]
    """(T,) which of them a shift has"""


@dataclass(slots=True)
class PosteriorPoses:
    """The posterior of one particle as the M-step needs it: weights over R rotations and T shifts."""

    rotations: NDArray[np.float64]
    """(R, 3, 3)"""
    weights: F32
    """(R, T); sums to what the posterior of these poses holds"""
    shifts: NDArray[np.float64]
    """(T, 3) Å"""
    spread: ShiftSpread | None = None
    """None for shifts that are points"""

    def of_shifts(self, chosen: slice) -> PosteriorPoses:
        """The part of some of the shifts."""
        spread = self.spread and ShiftSpread(self.spread.covariance, self.spread.of_shift[chosen])
        return PosteriorPoses(self.rotations, self.weights[:, chosen], self.shifts[chosen], spread)

    def phases(
        self, series: Views, tilts: NDArray[np.intp], disc: FourierComponents, pixel_size: float, count: int
    ) -> C64:
        """(T, F K) that move images back; the mean of exp(i k.t) over Gaussian shifts is exact."""
        phases = shift_phases(series, tilts, self.shifts, disc, pixel_size, count)
        if self.spread is None:
            return phases
        rows, columns = np.triu_indices(disc.dimensions)
        in_image = series.projection[tilts, : disc.dimensions, :3] * (2.0 * np.pi / (disc.box * pixel_size))
        widths = np.einsum("fai,mij,fbj->mfab", in_image, self.spread.covariance, in_image)
        k = disc.frequencies[:count].T
        products = (np.where(rows == columns, 1, 2)[:, None] * k[rows] * k[columns]).astype(np.float32)
        upper = widths[..., rows, columns].astype(np.float32)
        damping = np.exp(np.float32(-0.5) * (upper @ products)).reshape(len(widths), -1)
        phases *= damping[self.spread.of_shift]
        return phases


@dataclass(slots=True)
class Maximiser:
    """Adds particles of one series to the sums of their half set."""

    scorer: Scorer
    disc: FourierComponents
    pixel_size: float
    series: Views
    noise_power: NDArray[np.float64]
    """(F, S) sigma^2"""
    accumulator: Accumulator
    noise: NoiseSums | None

    def add(self, image: WhitenedImages, raw: ParticleImages, poses: PosteriorPoses) -> None:
        """Adds the posterior-weighted images of one particle to the accumulator and to the noise sums."""
        n_tilts = len(image.tilts)
        count = len(image.map_image) // n_tilts
        frequencies = self.disc.frequencies3d(count)

        def phases_of(tile: slice) -> C64:
            return poses.of_shifts(tile).phases(self.series, image.tilts, self.disc, self.pixel_size, count)

        phases = PhaseTiles(self.scorer.tiles(len(poses.shifts), n_tilts * count), phases_of)
        for tile in self.scorer.tiles(len(poses.rotations), n_tilts * count):
            sums, totals = self._moved_back(poses.weights[tile], image.map_image, image.map_power, phases)
            self.scorer.backend.insert(
                sums.reshape(-1, count),
                totals.reshape(-1, count),
                slice_matrices(self.series, image.tilts, poses.rotations[tile], self.scorer.scale),
                frequencies,
                self.accumulator.padded // 2,
                self.accumulator.data,
                self.accumulator.weight,
                threads=self.scorer.threads,
            )
        if self.noise is not None:
            tilts, noise = image.tilts, self.noise
            cross, quadratic = self._explained(image, raw, poses, phases, frequencies) * self.noise_power[tilts]
            noise.explained[tilts] += 2.0 * cross - quadratic
            noise.quadratic[tilts] += quadratic
            noise.power[tilts] += raw.power
            noise.weight[tilts] += noise_weight(raw, self.disc)

    def _moved_back(self, weights: F32, data: C64, power: F32, phases: PhaseTiles) -> tuple[C64, F32]:
        """Sums over shifts of images and powers, moved back and weighted by (R, T); both (R, F K)."""
        backend, total = self.scorer.backend, None
        for tile, part in phases:
            chosen = np.ascontiguousarray(weights[:, tile])
            found = backend.backproject(chosen, data, power, part, threads=self.scorer.threads)
            total = found if total is None else (total[0] + found[0], total[1] + found[1])
        assert total is not None
        return total

    def _explained(
        self, image: WhitenedImages, raw: ParticleImages, poses: PosteriorPoses, phases: PhaseTiles, frequencies: F32
    ) -> NDArray[np.float64]:
        """(2, F, S) posterior sums of Re<CV, X> and |CV|^2 as in `NoiseSums.explained`, over sigma^2."""
        weights = poses.weights
        top = np.sort(np.argsort(-weights.sum(axis=1), kind="stable")[:NOISE_ROTATIONS])
        share = np.ascontiguousarray(weights[top] * (weights.sum() / weights[top].sum()))
        backend, threads, shells = self.scorer.backend, self.scorer.threads, self.disc.shells[: len(frequencies)]
        slices = self.scorer.slices(self.series, image.tilts, poses.rotations[top], frequencies)
        data, power = image.map_image, image.map_power
        if raw.premultiplied:
            ctf2 = np.ascontiguousarray(raw.ctf2[:, : len(frequencies)]).reshape(-1)
            data, power = data * ctf2, power * ctf2
        sums, totals = self._moved_back(share, data, power, phases)
        flat = slices.reshape(-1, len(frequencies))
        parts = [
            backend.shell_sums(flat, other.reshape(flat.shape), None, shells, self.disc.n_shells, threads=threads)
            for other in (sums, np.asarray(totals * slices, np.complex64))
        ]
        return np.stack([part.reshape(-1, len(image.tilts), self.disc.n_shells).sum(axis=0) for part in parts])
