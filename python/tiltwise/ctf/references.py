"""References for CTF refinement: cross-fitted ones, rebuilt from the poses in the set, or given half maps.

What a reference must not contain is the noise of the very pixels it is compared with, and their wrong CTF.  Without
the fold of a particle it contains neither noise of its images nor of those that overlap within the fold; but tilt f of
the other particles has the same wrong CTF.  Where orientations vary that is one tilt among many in every voxel; where
they do not (lattices), the tilts f of all particles fill one plane, which is the one that tilt f is compared with.  So
by default images are left out by their tilts: noise, neighbours and CTF of a tilt image are then in no reference that
it is compared with.  Or whole tilt series are left out, if there are enough of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import map_ahead, ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.kernels.api import C64, Backend
from tiltwise.maps.cross_fit import HALVES, CrossFit
from tiltwise.maps.given import GivenReferences
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.spectra import last_used_shell
from tiltwise.model import OptimisationSet

CHUNK_IMAGES = 600
"""Images that are held at once."""
NOISE_SAMPLE = 10
"""Particles per series whose images give the noise power: a weight of the reconstruction, so a rough value does."""
MOST_UNEQUAL = 2.0
"""Ratio of the amplitudes of two references beyond which it is noise."""

LeaveOut = Literal["particle", "tilt", "series"]


@dataclass(frozen=True, slots=True)
class Partition:
    """Parts of the images of each half set; an image is predicted from all parts but its own."""

    count: int
    tilt_parts: tuple[NDArray[np.int64], ...] | None
    """for each series (F,) the part of its tilts; None where the fold of a particle is its part"""

    @classmethod
    def create(cls, optset: OptimisationSet, folds: NDArray[np.int64], count: int, leave_out: LeaveOut) -> Partition:
        """Into `count` parts at most, by the folds (P,) of particles, by tilts, or by series.

        Tilts next to each other are in different parts, so that no gap is left in a reference.  Where there is nothing
        to divide (one series of one tilt), the folds of particles are parts.
        """
        if leave_out == "particle" or sum(one.n_tilts for one in optset.series) < 2:
            return cls(1 + int(folds.max(initial=0)), None)
        if leave_out == "series":
            parts = tuple(np.full(one.n_tilts, n % count) for n, one in enumerate(optset.series))
        else:
            parts = tuple((_rank(one.nominal_tilt_deg) + n) % count for n, one in enumerate(optset.series))
        return cls(1 + max(int(part.max(initial=0)) for part in parts), parts)

    def tilts(self, part: int, series: int, count: int) -> NDArray[np.bool_]:
        """(F,) tilts of a series, which has `count`, that have images in a part."""
        return np.ones(count, bool) if self.tilt_parts is None else self.tilt_parts[series] == part

    def split(self, fold: int, series: int, tilts: NDArray[np.intp]) -> list[tuple[int, NDArray[np.bool_]]]:
        """Parts of the images of particles of a fold in one series, each with those of `tilts` (n,) it has."""
        if self.tilt_parts is None:
            return [(fold, np.ones(len(tilts), bool))]
        own = self.tilt_parts[series][tilts]
        return [(int(part), own == part) for part in np.unique(own)]


def _rank(values: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.argsort(values, kind="stable")
    result = np.empty(len(values), np.int64)
    result[order] = np.arange(len(values))
    return result


@dataclass(frozen=True, slots=True)
class References:
    """Padded Fourier volumes in the unit of unitary images of the extraction box, and who is predicted by which."""

    volumes: dict[tuple[int, int], C64]
    """by half set and part of the images they predict"""
    halves: NDArray[np.int64]
    """(P,) half set"""
    folds: NDArray[np.int64]
    """(P,) fold within the half set: particles that are judged together"""
    partition: Partition
    curve: NDArray[np.float64]
    """FSC of the half maps, shells of the cropped box, zero beyond what is used"""
    density: NDArray[np.float32]
    """mean of the half maps, for the report"""

    @property
    def shell(self) -> int:
        """Last shell in use."""
        return last_used_shell(self.curve)

    @property
    def padded(self) -> int:
        """Voxels along each side of the padded volumes."""
        return int(next(iter(self.volumes.values())).shape[0])

    def of_images(
        self, half: int, fold: int, series: int, tilts: NDArray[np.intp]
    ) -> list[tuple[C64, NDArray[np.bool_]]]:
        """References of images of one series, half and fold, each with those of `tilts` (n,) it is for."""
        return [(self.volumes[half, part], chosen) for part, chosen in self.partition.split(fold, series, tilts)]


def cross_fitted(
    source: ParticleSource,
    poses: Poses,
    halves: NDArray[np.int64],
    folds: NDArray[np.int64],
    partition: Partition,
    mask: NDArray[np.float32],
    symmetry: NDArray[np.float64],
    backend: Backend,
    threads: int,
    advance: Callable[[int], None],
) -> References:
    """References from the poses in the set: an image's own half without its own part.

    Particles that no tilt shows are left out.

    Raises
    ------
    DataError
        if the half maps do not agree.
    """
    visible = source.visible(poses.displacement_angstrom)
    fit = CrossFit(source.box, mask, backend, threads, symmetry, partition.count)

    def load(asked: tuple[int, NDArray[np.bool_] | None]) -> ParticleImages:
        particle, tilts = asked
        return source.cut(particle, poses.displacement_angstrom[particle], tilts)

    noise = initial_noise_power(
        source, lambda i: load((i, None)), threads, lambda count: None, NOISE_SAMPLE, sample(source, visible)
    )
    batches: list[tuple[tuple[int, int], int, list[int], NDArray[np.bool_]]] = []
    for half, part in fit.keys:
        for number, series in enumerate(source.optset.series):
            tilts = partition.tilts(part, number, series.n_tilts)
            mine = (source.series_of == number) & (halves == half) & visible
            members = np.flatnonzero(mine if partition.tilt_parts is not None else mine & (folds == part))
            size = max(1, CHUNK_IMAGES // max(int(tilts.sum()), 1))
            for start in range(0, len(members) if tilts.any() else 0, size):
                batches.append(((half, part), number, [int(i) for i in members[start : start + size]], tilts))
    asked = ([(particle, tilts) for particle in chunk] for _, _, chunk, tilts in batches)
    loaded, told = 1e-6, 0  # particles
    for (key, number, chunk, tilts), images in zip(batches, map_ahead(load, asked, threads), strict=True):
        fit.add(*key, source.optset.series[number], images, poses.rotation[chunk], noise[number], source.disc)
        loaded += len(chunk) * float(tilts.mean())
        advance(int(loaded) - told)
        told = int(loaded)
    fit.finish()

    def reference(key: tuple[int, int]) -> C64:
        volume = fit.reference(*key)
        volume *= in_box(source)
        return volume

    volumes = dict(zip(fit.keys, ordered_map(reference, fit.keys, threads), strict=True))
    if partition.tilt_parts is not None:
        level_amplitudes(volumes, partition.count)
    density = 0.5 * (fit.halves[0] + fit.halves[1])
    return References(volumes, halves, folds, partition, fit.curve, density)


def sample(source: ParticleSource, visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(P,) some of the visible particles of every series, the same ones whatever their order in the file."""
    chosen = np.zeros(len(visible), bool)
    order = np.argsort(source.optset.particles.name, kind="stable")
    for number in range(len(source.optset.series)):
        own = order[(source.series_of[order] == number) & visible[order]]
        chosen[own[:NOISE_SAMPLE]] = True
    return chosen


def level_amplitudes(volumes: dict[tuple[int, int], C64], count: int) -> None:
    """Gives the references of all parts of a half the amplitude that they have on average, in place.

    Tilts of less contrast than the metadata say weaken the references they are part of, and not the others: scales of
    tilts would be measured with different rods.  Amplitudes are told by the correlation with the other half, whose
    noise is independent.
    """
    factors = {}
    for half in HALVES:
        other = volumes[3 - half, 0].copy()
        for part in range(1, count):
            other += volumes[3 - half, part]
        own = np.array([np.vdot(other, volumes[half, part]).real for part in range(count)])
        factors[half] = np.clip(own / own.mean(), 1.0 / MOST_UNEQUAL, MOST_UNEQUAL)
    for (half, part), volume in volumes.items():
        volume /= np.float32(factors[half][part])


def in_box(source: ParticleSource) -> np.float32:
    """Unitary transform of an image in the extraction box over that of its crop: the same pixels, a larger box."""
    return np.float32(np.sqrt(source.area_ratio))


def given_maps(
    source: ParticleSource,
    paths: tuple[Path, Path],
    halves: NDArray[np.int64],
    mask: NDArray[np.float32],
    *,
    opposite: bool,
) -> References:
    """Given half maps: a particle is predicted from its own half, which contains it, or from the other one.

    Raises
    ------
    ShapeError
        if a map has another box than the images.
    DataError
        if its pixel size is another, or the maps do not agree.
    """
    given = GivenReferences.read(paths, mask, source.pixel_size, opposite)
    volumes = {(half, 0): given.reference(half, 0) * in_box(source) for half in HALVES}
    density = np.asarray(0.5 * (given.maps[0] + given.maps[1]), np.float32)
    folds = np.zeros(len(halves), np.int64)
    return References(volumes, halves, folds, Partition(1, None), given.curve, density)
