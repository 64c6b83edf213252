"""Subtraction in the forward model: what tilt images show besides the part of interest is predicted and taken off.

With P the rest of the map, position x and orientation R of a particle as they were when the map was made, image f is

    X_f - C_f exp(-2 pi i k.d_f) P(A_f^T k),    A_f = (rotation of tilt f) R,

C being CTF and damage at the depth of x, and d_f where x appears, with its motion, less where the box is centred.
Differences are taken of whole boxes, before images are multiplied by their CTF, cropped and masked.  P is made from
the half set of the particle without its own fold: it holds neither the noise of the images it is taken from nor that
of the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.extract.images import ImageExtractor, Prediction
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.kernels.api import C64, Backend
from tiltwise.maps.cross_fit import HALVES, PADDING
from tiltwise.maps.fit_poses import Partition, fit_poses
from tiltwise.maps.volumes import reference_volume
from tiltwise.maps.whitening import slice_matrices
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import irfft2, rfft2
from tiltwise.spectral.phases import phase_ramps

Key = tuple[int, int]
"""Half set and fold."""

MOST_OFF = 0.25
"""Of the scale of a prediction from 1, beyond which users are warned."""
SAME = 0.5
"""Distance over the radius of the particle within which two are the same one."""
CERTAIN = 5.0
"""Standard deviations from which on a scale is off by more than chance."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """Maps from the poses in a set, and who is predicted from which."""

    optset: OptimisationSet
    keys: list[Key]
    """of all particles"""
    rest: dict[Key, NDArray[np.float32]]
    """(N, N, N) of every half set without one fold: what is to be taken off, in the grey scale of images"""
    whole: dict[Key, NDArray[np.float32]]
    """(N, N, N) the same of the whole particle, which neighbours are predicted from; empty if they are left alone"""
    curve: NDArray[np.float64]
    """FSC of the half maps inside the mask of the particle"""
    density: NDArray[np.float32] | None = None
    """mean of the half maps inside that mask, filtered; for pictures"""

    @classmethod
    def of(
        cls,
        source: ParticleSource,
        halves: NDArray[np.int64],
        folds: NDArray[np.int64],
        particle: NDArray[np.float32],
        rest: NDArray[np.float32],
        symmetry: NDArray[np.float64],
        backend: Backend,
        threads: int,
        advance: Callable[[int], None],
        *,
        neighbours: bool = False,
    ) -> Consensus:
        """Maps from the images of `source` at the poses of its set, which must all be visible.

        Parameters
        ----------
        halves, folds
            (P,) half set of every particle, and its fold in it.
        particle, rest
            (N, N, N) masks of the whole particle and of what is to be taken off.
        advance
            called after every n particles.
        neighbours
            whether particles are to be taken off the images of those beside them, too.

        Raises
        ------
        DataError
            if the half maps do not agree.
        """
        poses, count = Poses.of(source.optset), 1 + int(folds.max(initial=0))
        partition = Partition(count, None)
        fit = fit_poses(source, poses, halves, folds, partition, particle, symmetry, backend, threads, advance)
        keys = [(int(half), int(fold)) for half, fold in zip(halves, folds, strict=True)]
        densities = {key: fit.density(*key) for key in sorted(set(keys))}
        return cls(
            source.optset,
            keys,
            {key: density * rest for key, density in densities.items()},
            densities if neighbours else {},
            fit.curve,
            np.asarray(np.mean([fit.density(half, None) for half in HALVES], axis=0), np.float32),
        )

    def take(self, rows: NDArray[np.intp]) -> Consensus:
        """The same for some of the particles, by number; the others are no neighbours any more."""
        optset = replace(self.optset, particles=self.optset.particles.take(rows))
        return replace(self, optset=optset, keys=[self.keys[row] for row in rows])

    def subtraction(self, source: ParticleSource, backend: Backend) -> Subtraction:
        """What takes the rest off the images of `source`, which has the same particles, displaced or not."""
        return Subtraction(source, self.optset, self.keys, self.rest, backend, self.whole)


@dataclass(frozen=True, slots=True)
class Removal:
    """What subtraction does to images, in shells of the map: means of a component of the un-multiplied box."""

    before: NDArray[np.float64]
    """(S,) power of images as they are"""
    after: NDArray[np.float64]
    """(S,) without what was predicted"""
    predicted: NDArray[np.float64]
    """(S,) power of what was predicted"""
    scale: float
    """factor on the prediction that fits the images best; 1 if grey scale and poses are right"""
    scale_error: float
    """standard deviation of that from noise"""
    images: int
    """that were looked at"""

    @property
    def wrong(self) -> bool:
        """Whether the images hold surely less, or more, of the prediction than was taken off."""
        off = abs(self.scale - 1.0)
        return off > MOST_OFF and off > CERTAIN * self.scale_error


@dataclass(slots=True)
class Subtraction:
    """Predicts the rest of every particle; a `tiltwise.extract.source.Rest` of `source`.

    Particles have the same numbers in `source` and `optset`, and may be displaced in it: boxes are centred where they
    are in `source`, and the rest is where the particle is in `optset`.
    """

    source: ParticleSource
    optset: OptimisationSet
    """with the poses that the maps were made with"""
    keys: list[Key]
    """of all particles"""
    densities: Mapping[Key, NDArray[np.float32]]
    """(N, N, N) of every half set without one fold: what is taken off, in the grey scale of images"""
    backend: Backend
    whole: Mapping[Key, NDArray[np.float32]] = field(default_factory=dict)
    """(N, N, N) of the whole particle: what is taken off where neighbours are; empty leaves them alone"""
    _volumes: dict[Key, C64] = field(init=False)
    _rotation: NDArray[np.float64] = field(init=False)
    _position: NDArray[np.float64] = field(init=False)
    _source: NDArray[np.intp] = field(init=False)
    """(P,) the same number for all symmetry mates of a particle"""
    _disc: FourierDisc = field(init=False)
    _wholes: dict[Key, C64] = field(init=False)
    _reach: float = field(init=False)
    """Å from the centre of the particle to its farthest voxel"""

    def __post_init__(self) -> None:
        if self.source.from_stacks:
            raise DataError(
                "what particles are not part of can only be subtracted from tilt images",
                where="particles",
                expected="tilt series whose images exist",
                found="images that were extracted before",
                fix="give the tilt series that the particles were extracted from",
            )
        self._rotation, self._position = poses_of(self.optset)
        self._source = self.optset.particles.source_index
        window = self._loader(0).window
        self._disc = FourierDisc.create(window.box)
        # the same pixels in a larger box: unitary transforms are smaller
        in_box = np.float32(window.crop / window.box)
        self._volumes = {key: reference_volume(part, PADDING) * in_box for key, part in self.densities.items()}
        self._wholes = {key: reference_volume(part, PADDING) * in_box for key, part in self.whole.items()}
        self._reach = max(map(farthest, self.whole.values()), default=0.0) * self.source.pixel_size

    def _loader(self, particle: int) -> ImageExtractor:
        loader = self.source.loader(particle)
        assert isinstance(loader, ImageExtractor)
        return loader

    def of(self, particle: int) -> Prediction:
        """What to subtract from the images of one particle."""

        def predict(tilts: NDArray[np.intp], points: NDArray[np.float64]) -> NDArray[np.complex64]:
            volume = self._volumes[self.keys[particle]]
            centre, slices = self._slices(volume, particle, tilts)
            slices *= self._ramps(centre - points)
            spectra = self._half_planes(slices)
            if self._wholes:
                spectra += self._neighbours(particle, tilts, points)
            return spectra

        return predict

    def _half_planes(self, slices: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """(n, K) at the pixels of the disc -> (n, b, b // 2 + 1)."""
        box = self._disc.box
        spectra = np.zeros((len(slices), box, box // 2 + 1), np.complex64)
        spectra[:, self._disc.rows, self._disc.columns] = slices
        # of the redundant column the disc has one half
        spectra[:, box - 1 : box // 2 : -1, 0] = spectra[:, 1 : (box + 1) // 2, 0].conj()
        return spectra

    def _ramps(self, displaced_px: NDArray[np.float64]) -> NDArray[np.complex64]:
        """(n, K) phases of displacements (n, 2) in unbinned pixels."""
        return phase_ramps(self._disc.frequencies, displaced_px * (-2.0 * np.pi / self._loader(0).cut_px))

    def _neighbours(self, particle: int, tilts: NDArray[np.intp], points: NDArray[np.float64]) -> NDArray[np.complex64]:
        """(n, b, b // 2 + 1) of all other particles that images of one show, from its own half and without its fold.

        Boxes of neighbours are laid over that of the particle in real space: what leaves it does not come in again.
        """
        box, binning = self._disc.box, self._loader(particle).binning
        volume = self._wholes[self.keys[particle]]
        images = np.zeros((len(tilts), box, box), np.float32)
        for other in self._beside(particle):
            loader = self._loader(other)
            centre = self._seen(loader, other)[tilts]
            away = (centre - points) / binning
            near = np.flatnonzero((np.abs(away) < box / 2 + self._reach / self.source.pixel_size).all(axis=1))
            if not len(near):
                continue
            _, slices = self._slices(volume, other, tilts[near])
            whole = np.rint(away[near]).astype(np.int64)
            slices *= self._ramps((away[near] - whole) * binning)
            own = np.fft.fftshift(irfft2(self._half_planes(slices), box), axes=(1, 2))
            for row, image, (x, y) in zip(near, own, whole, strict=True):
                to = tuple(slice(max(0, d), max(0, min(box, box + d))) for d in (y, x))
                back = tuple(slice(max(0, -d), max(0, min(box, box - d))) for d in (y, x))
                images[row][to] += image[back]
        return np.asarray(rfft2(np.fft.ifftshift(images, axes=(1, 2))), np.complex64)

    def _beside(self, particle: int) -> NDArray[np.intp]:
        """Particles of the same series that are not the same thing, as copies under a symmetry are.

        Of symmetry mates one is enough: each would take off all that the others do.
        """
        source = self._source
        same = np.flatnonzero((self.source.series_of == self.source.series_of[particle]) & (source != source[particle]))
        distance = np.linalg.norm(self._position[same] - self._position[particle], axis=1)
        other = same[distance > SAME * self._reach]
        return np.asarray(np.sort(other[np.unique(source[other], return_index=True)[1]]))

    def _seen(self, loader: ImageExtractor, body: int) -> NDArray[np.float64]:
        """(F, 2) where a particle was seen when the maps were made, unbinned pixels."""
        pixel = loader.series.pixel_size_angstrom
        motion = self.optset.trajectories.get(self.optset.particles.name[body])
        return loader.project(self._position[body] / pixel, None if motion is None else motion / pixel)[:, :2]

    def _slices(
        self, volume: C64, body: int, tilts: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.complex64]]:
        """Where `body` is seen, (n, 2), and (n, K) what a volume adds to images centred there."""
        loader, disc = self._loader(body), self._disc
        series = loader.series
        matrices = slice_matrices(series, tilts, self._rotation[body][None], len(volume) / disc.box)
        values = self.backend.project(volume, matrices, disc.frequencies3d(), len(volume) // 2, threads=1)
        position = self._position[body] / series.pixel_size_angstrom
        values *= disc.take(loader.box_plan.evaluate(loader.depth_defocus(position, tilts), tilts))
        return self._seen(loader, body)[tilts], values

    def removal(self, particles: Sequence[int], shell: int) -> Removal:
        """What subtraction does to images of particles, at their coordinates in `source`, up to a shell of maps."""
        window = self._loader(0).window
        shells = np.rint(np.hypot(*self._disc.frequencies.T) * window.crop / window.box).astype(np.int64)
        count = min(shell, window.crop // 2) + 1
        members = np.maximum(np.bincount(shells, minlength=count)[:count], 1)
        totals, images = np.zeros((4, count)), 0
        for particle in particles:
            loader = self._loader(particle)
            series = loader.series
            motion = self.source.optset.trajectories.get(self.source.optset.particles.name[particle])
            motion = None if motion is None else motion / series.pixel_size_angstrom
            position = self.source.optset.particles.coordinate_px[particle]
            tilts, spectra, _ = loader.transforms(position, motion)
            found = self._disc.take(spectra)
            rest = self._disc.take(self.of(particle)(tilts, loader.project(position, motion)[tilts, :2]))
            parts = (abs2(found), abs2(found - rest), (found * rest.conj()).real, abs2(rest))
            for total, values in zip(totals, parts, strict=True):
                total += np.bincount(shells, values.sum(axis=0, dtype=np.float64), count)[:count]
            images += len(tilts)
        before, after, cross, power = totals
        weight = np.divide(members * images, before, out=np.zeros(count), where=before > 0)  # 1 / noise power
        information = float((power * weight)[1:].sum())
        scale = float((cross * weight)[1:].sum()) / information if information > 0 else 0.0
        error = 1.0 / np.sqrt(2.0 * information) if information > 0 else np.inf
        per = 1.0 / (members * max(images, 1))
        return Removal(before * per, after * per, power * per, scale, float(error), images)


def farthest(density: NDArray[np.float32]) -> float:
    """Distance in voxels of the farthest voxel that is not zero from the centre."""
    voxels = np.argwhere(density) - len(density) // 2
    return float(np.sqrt((voxels**2).sum(axis=1).max(initial=0)))


def abs2(values: NDArray[np.complex64]) -> NDArray[np.float32]:
    """|values|^2."""
    return np.asarray(values.real**2 + values.imag**2)
