"""What a refinement starts from: the map as it will be used, and the noise power of every tilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ImageSource
from tiltwise.io.mrc import read_map
from tiltwise.maps.spectra import smoothed
from tiltwise.maps.whitening import noise_weight
from tiltwise.spectral.filters import low_pass, resample


def prepare_map(
    path: Path, box: int, pixel_size: float, resolution: float, note: Callable[[str], None]
) -> NDArray[np.float32]:
    """Starting map, resampled to the box and pixel size of the images and low-passed at `resolution` Å.

    `note` is told in words what has been changed.

    Raises
    ------
    FormatError
        if the file cannot be read.
    DataError
        if the map is not cubic, has no pixel size, is empty or holds NaN.
    """
    density, own_pixel_size = read_map(path)
    if len(set(density.shape)) != 1:
        raise DataError(
            "the reference map is not cubic",
            where=f"--ref {path}",
            expected="as many columns as rows and sections",
            found=" x ".join(str(n) for n in density.shape[::-1]) + " voxels",
            fix="pad or cut the map to a cube around the particle, or check that this is the right file",
        )
    if not own_pixel_size > 0:
        raise DataError(
            "the reference map has no pixel size",
            where=f"--ref {path}",
            expected="the cell in Å in the header",
            found=f"{own_pixel_size:g} Å per voxel",
            fix="set the pixel size in the header of the map",
        )
    if not np.isfinite(density).all() or not np.any(density):
        raise DataError(
            "the reference map cannot be used",
            where=f"--ref {path}",
            expected="finite values, not all zero",
            found="NaN or infinite voxels" if not np.isfinite(density).all() else "only zeros",
            fix="give another --ref",
        )
    if density.shape != (box,) * 3 or abs(own_pixel_size - pixel_size) > 1e-3 * pixel_size:
        note(
            f"the reference of {len(density)} voxels of {own_pixel_size:g} Å is resampled to {box} voxels of "
            f"{pixel_size:g} Å, those of the images"
        )
        if 2 * own_pixel_size > resolution:
            note(f"its voxels hold no detail finer than {2 * own_pixel_size:g} Å, --ini-high {resolution:g} adds none")
        density = resample(density, own_pixel_size, pixel_size, box)
    return np.asarray(low_pass(density, pixel_size, resolution), dtype=np.float32)


def initial_noise_power(
    source: ImageSource,
    load: Callable[[int], ParticleImages],
    threads: int,
    advance: Callable[[int], None],
    limit: int = 200,
    seen: NDArray[np.bool_] | None = None,
) -> list[NDArray[np.float64]]:
    """sigma^2 (F, S) of the views of every series before any model is known: the power of the images themselves.

    Averages over up to `limit` particles of a series, of those `seen` (P,); `load(i)` gives the images of particle
    i of all.  Of premultiplied images only C X is known; its power is C^2 sigma^2 where noise dominates.
    """
    disc = source.disc
    spectra = []
    for number, series in enumerate(source.views):
        own = source.series_of == number
        members = np.flatnonzero(own if seen is None else own & seen)[:limit]
        total = np.zeros((series.n_tilts, disc.n_shells))
        if not len(members):
            spectra.append(np.ones_like(total))  # nobody asks
            continue
        norm = np.zeros_like(total)

        def measure(particle: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
            images = load(particle)
            return images.tilts, images.power, noise_weight(images, disc)

        for tilts, power, weight in ordered_map(measure, [int(m) for m in members], threads):
            total[tilts] += power
            norm[tilts] += weight
            advance(1)
        if source.pooled:
            total, norm = (np.broadcast_to(part.sum(axis=0), part.shape) for part in (total, norm))
        spectrum = np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)
        spectra.append(_positive(smoothed(spectrum), series.name))
    return spectra


def _positive(spectrum: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Fills shells and tilts without evidence with the median of their shell, or of everything."""
    known = spectrum > 0
    if not known.any():
        raise DataError(
            "images are empty: their power is zero in all tilts",
            where=name,
            expected="images with signal or noise",
            found="only zeros, or one grey value",
            fix="check the tilt images and the positions of the particles",
        )
    typical = float(np.median(spectrum[known]))
    column = np.array([np.median(s[k]) if k.any() else typical for s, k in zip(spectrum.T, known.T, strict=True)])
    return np.where(known, spectrum, column)
