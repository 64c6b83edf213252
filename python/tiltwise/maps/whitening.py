"""Particle images divided by their noise power, and where their pixels lie in a padded volume (Eqs. 4, 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.api import C64, F32
from tiltwise.model import Views
from tiltwise.spectral.components import FourierComponents

FEWEST_SAMPLES = 0.01
"""Components with fewer samples than this do not count in RELION's likelihood, as in RELION."""
SMALLEST_NOISE = 1e-30
"""The inverse, times images and CTFs, must be a number of single precision."""


@dataclass(frozen=True, slots=True)
class WhitenedImages:
    """Images of one particle divided by the noise power of their tilt and shell, tilts concatenated along K.

    For RELION's likelihood, `|C X - C^2 V|^2 / (M sigma^2)` (Eq. 7), what is scored carries a factor C^2 / M more than
    what enters the map.
    """

    tilts: NDArray[np.intp]
    score_image: C64
    """(F K,) masked Y, zero at DC"""
    score_power: F32
    """(F K,) B, zero at DC"""
    map_image: C64
    """(F K,) unmasked Y"""
    map_power: F32
    """(F K,) B"""

    def prefix(self, count: int) -> WhitenedImages:
        """The first `count` pixels of every tilt (lower frequencies only)."""

        def low(array: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(array.reshape(len(self.tilts), -1)[:, :count]).reshape(-1)

        return WhitenedImages(
            self.tilts, low(self.score_image), low(self.score_power), low(self.map_image), low(self.map_power)
        )


def refuse_noise(noise_power: NDArray[np.float64]) -> None:
    """DataError unless all numbers of an array can be divided by in single precision."""
    if not ((noise_power > SMALLEST_NOISE) & np.isfinite(noise_power)).all():
        raise DataError(
            "noise power is not a positive number",
            expected=f"finite sigma^2 above {SMALLEST_NOISE:g} in every tilt and shell",
            found=f"{noise_power.min():g} to {noise_power.max():g}",
            fix="check the tilt images: is one of them blank, or its contrast out of range?",
        )


def inverse_noise(
    noise_power: NDArray[np.float64], tilts: NDArray[np.intp], disc: FourierComponents, count: int
) -> F32:
    """(len(tilts), count) 1 / sigma^2 of the first components of some tilts; `noise_power` (F, S).

    Raises
    ------
    DataError
        if the noise power is not positive.
    """
    used = noise_power[tilts][:, : int(disc.shells[:count].max(initial=0)) + 1]
    refuse_noise(used)
    return np.asarray((1.0 / used).astype(np.float32).take(disc.shells[:count], axis=1))


def whiten(
    images: ParticleImages, disc: FourierComponents, noise_power: NDArray[np.float64], count: int
) -> WhitenedImages:
    """`noise_power` (F_series, S) is sigma^2 of every tilt and shell; `count` limits the pixels per tilt.

    Raises
    ------
    DataError
        if the noise power is not positive.
    """
    inverse = inverse_noise(noise_power, images.tilts, disc, count)
    no_dc = inverse.copy()
    no_dc[:, 0] = 0.0
    if images.samples is not None:
        samples = images.samples[:, :count]
        few = samples < FEWEST_SAMPLES
        no_dc *= np.where(few, 0.0, images.ctf2[:, :count] / np.where(few, 1.0, samples))
    return WhitenedImages(
        images.tilts,
        np.ascontiguousarray(images.masked[:, :count] * no_dc).reshape(-1),
        np.ascontiguousarray(images.ctf2[:, :count] * no_dc).reshape(-1),
        np.ascontiguousarray(images.data[:, :count] * inverse).reshape(-1),
        np.ascontiguousarray(images.ctf2[:, :count] * inverse).reshape(-1),
    )


def noise_weight(images: ParticleImages, disc: FourierComponents) -> NDArray[np.float64]:
    """(F, S) noise power of a component over sigma^2: 1, mean C^2 of premultiplied images, or RELION's mean M."""
    if images.samples is not None:
        return disc.shell_means(images.samples.astype(np.float64))
    if images.premultiplied:
        return disc.shell_means(images.ctf2.astype(np.float64))
    return np.ones_like(images.power)


def slice_matrices(series: Views, tilts: NDArray[np.intp], rotations: NDArray[np.float64], scale: float) -> F32:
    """(R F, 3, 3) maps from image frequency to padded volume coordinate, `scale * (P_f R)^T` (Eq. 6).

    `rotations` (R, 3, 3) take the reference into the tomogram, A_sub A_part.
    """
    forward = np.einsum("fij,rjk->rfik", series.projection[tilts, :3, :3], rotations)
    transposed = scale * np.swapaxes(forward, -1, -2)
    return np.ascontiguousarray(transposed.reshape(-1, 3, 3), dtype=np.float32)
