"""References for CTF refinement: cross-fitted ones, rebuilt from the poses in the set, or given half maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, ShapeError
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.io.mrc import read_map
from tiltwise.kernels.api import C64, Backend
from tiltwise.maps.cross_fit import HALVES, LEAST_FSC, PADDING, CrossFit
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.volumes import reference_volume
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.shells import spread

CHUNK = 20
"""Particles whose images are held at once."""
NOISE_SAMPLE = 10
"""Particles per series whose images give the noise power: a weight of the reconstruction, so a rough value does."""
PIXEL_SIZE_TOLERANCE = 1e-3


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
        return int(np.flatnonzero(self.curve > 0).max(initial=0))

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
    noise = initial_noise_power(source, poses, threads, lambda count: None, NOISE_SAMPLE)
    n_folds = 1 + int(folds.max(initial=0))
    fit = CrossFit(source.box, mask, backend, threads, symmetry, n_folds)

    def load(particle: int) -> ParticleImages:
        return source.load(particle, poses.displacement_angstrom[particle])

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
    volumes = ordered_map(lambda key: fit.reference(*key), keys, threads)
    density = 0.5 * (fit.halves[0] + fit.halves[1])
    scaled = {key: volume * in_box(source) for key, volume in zip(keys, volumes, strict=True)}
    return References(scaled, halves, folds, fit.curve, density)


def in_box(source: ParticleSource) -> np.float32:
    """Unitary transform of an image in the extraction box over that of its crop: the same pixels, a larger box."""
    return np.float32(np.sqrt(source.area_ratio))


def given_maps(
    source: ParticleSource,
    paths: tuple[Path, Path],
    halves: NDArray[np.int64],
    mask: NDArray[np.float32],
    curve: NDArray[np.float64] | None,
    *,
    opposite: bool,
) -> References:
    """Given half maps, weighted by their FSC: a particle is predicted from its own half, or from the other one.

    The own half contains the particle and pulls every estimate towards its present value.

    Raises
    ------
    ShapeError
        if a map has another box or pixel size than the images.
    DataError
        if the maps do not agree, or are empty.
    """
    maps = [_read_half(path, source) for path in paths]
    if curve is None:
        curve = fsc(maps[0], maps[1], mask)
    below = np.flatnonzero(~(curve[1:] >= LEAST_FSC))
    if len(below):
        curve = np.where(np.arange(len(curve)) > int(below[0]), 0.0, curve)
    if not (curve[1:3] > 0).all():
        raise DataError(
            "the half maps do not agree: there is nothing to fit with",
            where="--ref1, --ref2",
            expected=f"a Fourier shell correlation above {LEAST_FSC} in the first shells",
            found=", ".join(f"{value:.2f}" for value in curve[1:4]),
            fix="give the unfiltered half maps of one refinement",
        )
    weight = spread(np.clip(curve, 0.0, 1.0), source.box, 3).astype(np.float32)
    volumes = {}
    for half, density in zip(HALVES, maps, strict=True):
        filtered = irfft3(rfft3((density * mask).astype(np.float32)) * weight, source.box)
        volumes[3 - half if opposite else half, 0] = reference_volume(filtered, PADDING) * in_box(source)
    folds = np.zeros(len(halves), np.int64)
    return References(volumes, halves, folds, curve, np.asarray(0.5 * (maps[0] + maps[1]), np.float32))


def _read_half(path: Path, source: ParticleSource) -> NDArray[np.float32]:
    density, pixel_size = read_map(path)
    box = source.box
    if density.shape != (box,) * 3:
        raise ShapeError(
            "a half map has another box than the images",
            where=str(path),
            expected=f"{box} voxels along each side (--crop)",
            found=" x ".join(str(n) for n in density.shape[::-1]),
            fix="give the half maps of tiltwise reconstruct with the same --b, --crop and --bin, or leave them out",
        )
    if abs(pixel_size - source.pixel_size) > PIXEL_SIZE_TOLERANCE * source.pixel_size:
        raise ShapeError(
            "a half map has another pixel size than the images",
            where=str(path),
            expected=f"{source.pixel_size:g} Å",
            found=f"{pixel_size:g} Å",
            fix="choose --bin to match, or correct the pixel size in the header of the map",
        )
    if not np.isfinite(density).all() or not np.any(density):
        raise DataError("a half map cannot be used", where=str(path), expected="finite values, not all zero")
    return density
