"""The average of all particles at given poses, noise power, and how far they are resolved: what classes start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.residuals import PADDING, Portion, ResidualImages, residual_power
from tiltwise.em.data_model import DataModel, in_views
from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.noise_power import noise_power
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.kernels.api import C64, Backend
from tiltwise.maps.insertion import insert_images
from tiltwise.maps.spectra import half_maps, joined_fsc, prior_from_fsc
from tiltwise.maps.volumes import Accumulator, PackedSums, added, reference_volume, solve_map
from tiltwise.spectral.fsc import fsc

F64 = NDArray[np.float64]


@dataclass(slots=True)
class Inserter:
    """Sums of all particles at their poses (Eq. 11), fold by fold."""

    images: DataModel
    backend: Backend
    threads: int
    poses: Poses
    symmetry: F64
    portions: list[Portion]
    before_load: Callable[[], None]

    def folds(self, noise: list[F64], box: int, count: int) -> dict[int, PackedSums]:
        """Completed and symmetrised sums of every fold for maps of `box` voxels, of the first `count` components."""
        result: dict[int, PackedSums] = {}
        running = Accumulator.empty(box, PADDING)
        for portion, following in zip(self.portions, [*self.portions[1:], None], strict=True):

            def load(member: int) -> ParticleImages:
                self.before_load()
                return self.images.load(member, self.poses.displacement_angstrom[member], count)

            insert_images(
                running,
                self.images.views[portion.series],
                ordered_map(load, [int(m) for m in portion.members], self.threads),
                in_views(self.images, self.poses.rotation, portion.members),
                noise[portion.series],
                self.images.disc,
                self.backend,
                self.threads,
            )
            if following is None or following.fold != portion.fold:
                unit = next(iter(result.values())).unit if result else None
                part = running.complete().symmetrised(self.symmetry, self.backend)
                result[portion.fold] = PackedSums.of(part, unit)
                running.clear()
        return result


@dataclass(slots=True)
class Average:
    """The average without the particles of every fold."""

    folds: dict[int, PackedSums]
    half_of: NDArray[np.int64]
    """(F,) half set of every fold"""
    sphere: NDArray[np.float32]
    """(N, N, N) soft mask of the particle"""
    radius: float
    curve: F64
    """(N // 2 + 1,) FSC of the half sets inside the sphere"""
    total: PackedSums
    map: NDArray[np.float32]
    """of all particles"""
    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    """unfiltered half maps"""
    _prior: F64
    _last: tuple[int, C64] | None = None

    @classmethod
    def of(
        cls, folds: dict[int, PackedSums], half_of: NDArray[np.int64], sphere: NDArray[np.float32], radius: float
    ) -> Average:
        """From the sums of the folds."""
        halves = [added(folds, [f for f in sorted(folds) if half_of[f] == half]) for half in (1, 2)]
        first, second, _ = half_maps(halves[0], halves[1])
        curve = fsc(first, second, sphere)
        total = added(folds, sorted(folds))
        prior = prior_from_fsc(total, joined_fsc(curve))
        density = solve_map(total, prior, radius) * sphere
        return cls(folds, half_of, sphere, radius, curve, total, density, (first, second), prior)

    def without(self, fold: int) -> NDArray[np.float32]:
        """The average without a fold."""
        return np.asarray(self._everywhere(fold) * self.sphere, np.float32)

    def _everywhere(self, fold: int) -> NDArray[np.float32]:
        return solve_map(self.total.without(self.folds[fold]), self._prior, self.radius)

    def volume(self, fold: int, *, surroundings: bool) -> C64:
        """Its padded transform, with what particles have about them on average or without.

        Neighbours lie in the images of a particle, and shift the scores of what is at its rim.  Over nothing, however,
        they are no part of it.
        """
        if self._last is None or self._last[0] != fold:
            self._last = fold, reference_volume(self._everywhere(fold) if surroundings else self.without(fold))
        return self._last[1]


@dataclass(frozen=True, slots=True)
class Beyond:
    """What the average with the symmetry of some classes has beyond the average of all."""

    folds: dict[int, NDArray[np.float32]]
    """without the particles of every fold"""
    whole: NDArray[np.float32]

    @classmethod
    def of(cls, symmetric: Average, average: Average) -> Beyond:
        """Their difference."""
        folds = {fold: symmetric.without(fold) - average.without(fold) for fold in average.folds}
        return cls(folds, symmetric.map - average.map)


def residual_noise(residuals: ResidualImages, portions: list[Portion], advance: Callable[[int], None]) -> list[F64]:
    """sigma^2 (F, S) of every series from what the average leaves of the images (Eq. 12)."""
    images, old = residuals.images, residuals.noise
    sums = [NoiseSums.empty(*spectrum.shape) for spectrum in old]
    for portion in portions:
        raw, _, slices = residuals.raw(portion)
        residual_power(raw, slices, images.disc, sums[portion.series])
        advance(len(portion.members))
    return [
        noise_power(total, images.disc, images.area_ratio, spectrum, pooled=images.pooled)
        for total, spectrum in zip(sums, old, strict=True)
    ]
