"""References for CTF refinement: cross-fitted ones, rebuilt from the poses in the set, or given half maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.kernels.api import C64, Backend
from tiltwise.maps.cross_fit import HALVES, CrossFit
from tiltwise.maps.given import GivenReferences
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.spectra import last_used_shell

CHUNK = 20
"""Particles whose images are held at once."""
NOISE_SAMPLE = 10
"""Particles per series whose images give the noise power: a weight of the reconstruction, so a rough value does."""


@dataclass(frozen=True, slots=True)
class References:
    """Padded Fourier volumes in the unit of unitary images of the extraction box, and who is predicted by which."""

    volumes: dict[tuple[int, int], C64]
    """by half set and fold of the particles they predict"""
    halves: NDArray[np.int64]
    """(P,) half set"""
    folds: NDArray[np.int64]
    """(P,) fold within the half set"""
    curve: NDArray[np.float64]
    """FSC of the half maps, shells of the cropped box, zero beyond what is used"""
    density: NDArray[np.float32]
    """mean of the half maps, for the report"""

    @property
    def shell(self) -> int:
        """Last shell in use."""
        return last_used_shell(self.curve)

    def volume(self, half: int, fold: int) -> C64:
        """Reference of a particle."""
        return self.volumes[half, fold]


def cross_fitted(
    source: ParticleSource,
    poses: Poses,
    halves: NDArray[np.int64],
    folds: NDArray[np.int64],
    mask: NDArray[np.float32],
    symmetry: NDArray[np.float64],
    backend: Backend,
    threads: int,
    advance: Callable[[int], None],
) -> References:
    """References from the poses in the set: a particle's own half without its own fold.

    Particles that no tilt shows are left out.

    Raises
    ------
    DataError
        if the half maps do not agree.
    """
    visible = source.visible(poses.displacement_angstrom)
    n_folds = 1 + int(folds.max(initial=0))
    fit = CrossFit(source.box, mask, backend, threads, symmetry, n_folds)

    def load(particle: int) -> ParticleImages:
        return source.load(particle, poses.displacement_angstrom[particle])

    noise = initial_noise_power(source, load, threads, lambda count: None, NOISE_SAMPLE, visible)
    for number, series in enumerate(source.optset.series):
        for half, fold in fit.sums:
            members = np.flatnonzero((source.series_of == number) & (halves == half) & (folds == fold) & visible)
            for start in range(0, len(members), CHUNK):
                chunk = [int(i) for i in members[start : start + CHUNK]]
                images = ordered_map(load, chunk, threads)
                fit.add(half, fold, series, images, poses.rotation[chunk], noise[number], source.disc)
                advance(len(chunk))
    fit.finish()
    keys = list(fit.sums)

    def reference(key: tuple[int, int]) -> C64:
        volume = fit.reference(*key)
        volume *= in_box(source)
        return volume

    volumes = dict(zip(keys, ordered_map(reference, keys, threads), strict=True))
    density = 0.5 * (fit.halves[0] + fit.halves[1])
    return References(volumes, halves, folds, fit.curve, density)


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
    return References(volumes, halves, np.zeros(len(halves), np.int64), given.curve, density)
