"""Images less the average map, at poses that do not change: what classes have to explain.

Poses and noise power are given, so the slices of a particle lie where they lie, and what the average of all particles
leaves of its images is computed once.  A class is then a *difference* from the average: a map D whose slice explains
`2 Re<D, R> - B |D|^2` of the residual R (Eq. 4, expanded about the average).  Its first components, up to the
resolution limit, are small and stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.data_model import DataModel, in_views
from tiltwise.em.expectation import refuse_unusable
from tiltwise.em.maximisation import NoiseSums
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.kernels.api import C64, F32, Backend
from tiltwise.maps.volumes import Accumulator
from tiltwise.maps.whitening import inverse_noise, noise_weight, slice_matrices
from tiltwise.spectral.components import FourierComponents

F64 = NDArray[np.float64]

TOGETHER = 32
"""Particles of one series and fold that are worked on together."""
PADDING = 2


@dataclass(frozen=True, slots=True)
class Portion:
    """Particles of one series and fold."""

    fold: int
    series: int
    members: NDArray[np.intp]


def portions_of(folds: NDArray[np.int64], series_of: NDArray[np.intp], size: int = TOGETHER) -> list[Portion]:
    """All particles, (P,) fold and series of each, fold by fold; what shares a portion depends on the data alone."""
    result = []
    for fold in np.unique(folds):
        for series in np.unique(series_of[folds == fold]):
            members = np.flatnonzero((folds == fold) & (series_of == series))
            starts = range(0, len(members), size)
            result += [Portion(int(fold), int(series), members[i : i + size]) for i in starts]
    return result


@dataclass(frozen=True, slots=True)
class Residuals:
    """Of the particles of a portion; rows are images, particle by particle."""

    starts: NDArray[np.intp]
    """(n,) first row of every particle"""
    owner: NDArray[np.intp]
    """(rows,) particle of the portion an image belongs to"""
    matrices: F32
    """(rows, 3, 3)"""
    scored: C64
    """(rows, K) masked Y - B V, zero at DC"""
    mapped: C64
    """(rows, K) unmasked Y - B V, zero at DC; the same array without a mask"""
    power: F32
    """(rows, K) B, zero at DC"""
    average: F64
    """(n,) log likelihood of the average over that of nothing there, `2 Re<V, Y> - B |V|^2`"""

    @property
    def bytes(self) -> int:
        """Memory they take."""
        parts = [self.scored.nbytes, self.power.nbytes, self.matrices.nbytes]
        return sum(parts) + (0 if self.mapped is self.scored else self.mapped.nbytes)


@dataclass(slots=True)
class ResidualImages:
    """Makes residuals, and keeps those of as many portions as fit in `limit_bytes`."""

    images: DataModel
    backend: Backend
    threads: int
    poses: Poses
    noise: list[F64]
    """sigma^2 (F, S) of every series"""
    count: int
    """components of an image up to the resolution limit"""
    average: Callable[[int], C64]
    """padded volume of the average that does not hold the particles of a fold"""
    limit_bytes: int
    before_load: Callable[[], None] = lambda: None
    _kept: dict[int, Residuals] = field(init=False, default_factory=dict)
    _left: int = field(init=False)

    def __post_init__(self) -> None:
        self._left = self.limit_bytes

    def __call__(self, number: int, portion: Portion) -> Residuals:
        """Residuals of portion `number`."""
        found = self._kept.get(number)
        if found is None:
            found = self._make(portion)
            if found.bytes <= self._left:
                self._left -= found.bytes
                self._kept[number] = found
        return found

    def raw(self, portion: Portion) -> tuple[list[ParticleImages], F32, C64]:
        """Images of a portion, matrices of their slices and the slices of the average."""
        disc, series = self.images.disc, self.images.views[portion.series]

        def load(member: int) -> ParticleImages:
            self.before_load()
            images = self.images.load(member, self.poses.displacement_angstrom[member], self.count)
            refuse_unusable(images, f"{series.name}, particle {member + 1}")
            return images

        images = ordered_map(load, [int(m) for m in portion.members], self.threads)
        rotations = in_views(self.images, self.poses.rotation, portion.members)
        matrices = np.concatenate(
            [
                slice_matrices(series, image.tilts, rotation[None], float(PADDING))
                for image, rotation in zip(images, rotations, strict=True)
            ]
        )
        volume = self.average(portion.fold)
        frequencies = disc.frequencies3d(self.count)
        slices = self.backend.project(volume, matrices, frequencies, len(volume) // 2, threads=self.threads)
        return images, matrices, slices

    def _make(self, portion: Portion) -> Residuals:
        images, matrices, slices = self.raw(portion)
        tilts = np.concatenate([image.tilts for image in images])
        inverse = inverse_noise(self.noise[portion.series], tilts, self.images.disc, self.count)
        inverse[:, 0] = 0.0
        power = np.concatenate([image.ctf2[:, : self.count] for image in images]) * inverse
        predicted = power * slices
        scored = np.concatenate([image.masked[:, : self.count] for image in images]) * inverse - predicted
        mapped = scored
        if any(image.masked is not image.data for image in images):
            mapped = np.concatenate([image.data[:, : self.count] for image in images]) * inverse - predicted
        counts = np.array([len(image.tilts) for image in images])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        cross, quadratic = explained(slices, scored, power, starts)
        # <V, Y> = <V, R> + B |V|^2
        return Residuals(
            starts=starts,
            owner=np.repeat(np.arange(len(images)), counts),
            matrices=matrices,
            scored=np.ascontiguousarray(scored, np.complex64),
            mapped=np.ascontiguousarray(mapped, np.complex64),
            power=np.ascontiguousarray(power, np.float32),
            average=2.0 * cross + quadratic,
        )


def explained(slices: C64, residual: C64, power: F32, starts: NDArray[np.intp]) -> tuple[F64, F64]:
    """(n,) `Re<V, R>` and `sum B |V|^2` of n particles whose images (rows, K) begin at rows `starts`."""
    pairs, other = (np.ascontiguousarray(part).view(np.float32) for part in (slices, residual))
    cross = np.einsum("rk,rk->r", pairs, other, dtype=np.float32)
    square = slices.real**2 + slices.imag**2
    quadratic = np.einsum("rk,rk->r", power, square, dtype=np.float32)
    sums = [np.add.reduceat(part.astype(np.float64), starts) for part in (cross, quadratic)]
    return sums[0], sums[1]


def residual_power(images: Sequence[ParticleImages], slices: C64, disc: FourierComponents, sums: NoiseSums) -> None:
    """Adds what the average explains of the images of a portion (Eq. 12) to `sums` of its series."""
    count = slices.shape[1]
    begins = np.flatnonzero(np.diff(disc.shells[:count], prepend=-1))
    shells = disc.shells[begins]
    first = 0
    for image in images:
        part = slices[first : first + len(image.tilts)]
        first += len(image.tilts)
        cross = (part.real * image.data[:, :count].real + part.imag * image.data[:, :count].imag).astype(np.float64)
        square = image.ctf2[:, :count] * (part.real**2 + part.imag**2).astype(np.float64)
        by_shell = [np.add.reduceat(values, begins, axis=1) for values in (cross, square)]
        sums.explained[np.ix_(image.tilts, shells)] += 2.0 * by_shell[0] - by_shell[1]
        sums.quadratic[np.ix_(image.tilts, shells)] += by_shell[1]
        sums.power[image.tilts] += image.power
        sums.weight[image.tilts] += noise_weight(image, disc)


@dataclass(slots=True)
class FixedScores:
    """Scores and sums of all particles for maps that are differences from the average."""

    residuals: ResidualImages
    portions: Sequence[Portion]
    check_abort: Callable[[], None]

    @property
    def _tools(self) -> tuple[Backend, F32, int]:
        images = self.residuals
        return images.backend, images.images.disc.frequencies3d(images.count), images.threads

    def _everything(self) -> Iterator[tuple[Portion, Residuals]]:
        for number, portion in enumerate(self.portions):
            self.check_abort()
            yield portion, self.residuals(number, portion)

    def score(self, volumes: Callable[[int], Sequence[C64]], count: int) -> tuple[F64, F64]:
        """(P, J) `Re<D_j, R>` and `sum B |D_j|^2`; `volumes(fold)` are J padded volumes for the particles of a fold."""
        backend, frequencies, threads = self._tools
        total = len(self.residuals.poses.rotation)
        cross, quadratic = np.zeros((total, count)), np.zeros((total, count))
        fold, references = None, list[C64]()
        for portion, found in self._everything():
            if portion.fold != fold:
                fold, references = portion.fold, list(volumes(portion.fold))
            for j, volume in enumerate(references):
                slices = backend.project(volume, found.matrices, frequencies, len(volume) // 2, threads=threads)
                cross[portion.members, j], quadratic[portion.members, j] = explained(
                    slices, found.scored, found.power, found.starts
                )
        return cross, quadratic

    def sums(
        self,
        weights: F64,
        box: int,
        done: Callable[[int, list[Accumulator]], None],
        beyond: Callable[[int], Mapping[int, C64]] = lambda fold: {},
    ) -> None:
        """Residuals and powers times `weights` (P, J) on the grids of J maps of `box` voxels.

        `done(fold, sums)` takes the sums of the particles of every fold; they are cleared afterwards.  Residuals of a
        map are relative to the average and a padded volume more, if `beyond(fold)` has one for the number of the map.
        """
        backend, frequencies, threads = self._tools
        sums = [Accumulator.empty(box, PADDING) for _ in range(weights.shape[1])]
        fold = self.portions[0].fold
        more = beyond(fold)
        for portion, found in self._everything():
            if portion.fold != fold:
                done(fold, sums)
                for part in sums:
                    part.clear()
                fold = portion.fold
                more = beyond(fold)
            slices = {
                id(volume): backend.project(volume, found.matrices, frequencies, len(volume) // 2, threads=threads)
                for volume in more.values()
            }
            for j, part in enumerate(sums):
                # particles that have no share are not inserted
                weight = weights[portion.members, j].astype(np.float32)[found.owner]
                used = np.flatnonzero(weight > 0)
                if not len(used):
                    continue
                every = len(used) == len(weight)
                residual = found.mapped
                if j in more:
                    residual = residual - found.power * slices[id(more[j])]
                mapped, power, matrices = (
                    array if every else array[used] for array in (residual, found.power, found.matrices)
                )
                backend.insert(
                    mapped * weight[used, None],
                    power * weight[used, None],
                    np.ascontiguousarray(matrices),
                    frequencies,
                    part.padded // 2,
                    part.data,
                    part.weight,
                    threads=threads,
                )
        done(fold, sums)

    def average(self) -> F64:
        """(P,) log likelihood of the average over that of nothing there."""
        result = np.zeros(len(self.residuals.poses.rotation))
        for portion, found in self._everything():
            result[portion.members] = found.average
        return result
