"""References for CTF refinement: cross-fitted ones, rebuilt from the poses in the set, or given half maps.

What a reference must not contain is the noise of the very pixels it is compared with, and their wrong CTF.  Without
the fold of a particle it contains neither noise of its images nor of those that overlap within the fold; but tilt f of
the other particles has the same wrong CTF.  Where orientations vary that is one tilt among many in every voxel; where
they do not (lattices), the tilts f of all particles fill one plane, which is the one that tilt f is compared with.  So
by default images are left out by their tilts: noise, neighbours and CTF of a tilt image are then in no reference that
it is compared with.  Or whole tilt series are left out, if there are enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import ordered_map
from tiltwise.extract.source import ParticleSource
from tiltwise.kernels.api import C64
from tiltwise.maps.cross_fit import HALVES, CrossFit
from tiltwise.maps.fit_poses import Partition
from tiltwise.maps.given import GivenReferences
from tiltwise.maps.spectra import last_used_shell

MOST_UNEQUAL = 2.0
"""Ratio of the amplitudes of two references beyond which it is noise."""


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
    fit: CrossFit,
    source: ParticleSource,
    halves: NDArray[np.int64],
    folds: NDArray[np.int64],
    partition: Partition,
    threads: int,
) -> References:
    """References from the sums `fit` of all parts: an image's own half without its own part."""

    def reference(key: tuple[int, int]) -> C64:
        volume = fit.reference(*key)
        volume *= in_box(source)
        return volume

    volumes = dict(zip(fit.keys, ordered_map(reference, fit.keys, threads), strict=True))
    if partition.tilt_parts is not None:
        level_amplitudes(volumes, partition.count)
    density = 0.5 * (fit.halves[0] + fit.halves[1])
    return References(volumes, halves, folds, partition, fit.curve, density)


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
