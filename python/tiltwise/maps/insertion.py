"""Particle images at known poses, added to the sums of a map (Eqs. 8-11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.api import Backend
from tiltwise.maps.volumes import Accumulator
from tiltwise.maps.whitening import inverse_noise, slice_matrices
from tiltwise.model import Views
from tiltwise.spectral.components import FourierComponents


def insert_images(
    accumulator: Accumulator,
    series: Views,
    images: Sequence[ParticleImages],
    rotations: NDArray[np.float64],
    noise_power: NDArray[np.float64],
    disc: FourierComponents,
    backend: Backend,
    threads: int,
) -> None:
    """Adds particles of one series with rotations (n, 3, 3), weighted by the noise power (F, S), in place.

    Images are centred on their particles, and may hold the first components alone.  The sums are not completed.
    """
    if not images:
        return
    scale = accumulator.padded / accumulator.box
    ends = np.cumsum([len(image.tilts) for image in images])
    count = images[0].data.shape[1]
    slices, weights = np.empty((ends[-1], count), np.complex64), np.empty((ends[-1], count), np.float32)
    matrices = np.empty((ends[-1], 3, 3), np.float32)

    def whiten(number: int) -> None:
        image = images[number]
        own = slice(ends[number] - len(image.tilts), ends[number])
        inverse = inverse_noise(noise_power, image.tilts, disc, count)
        np.multiply(image.data, inverse, out=slices[own])
        np.multiply(image.ctf2[:, :count], inverse, out=weights[own])
        matrices[own] = slice_matrices(series, image.tilts, rotations[number][None], scale)

    ordered_map(whiten, range(len(images)), threads)
    backend.insert(
        slices,
        weights,
        matrices,
        disc.frequencies3d(count),
        accumulator.padded // 2,
        accumulator.data,
        accumulator.weight,
        threads=threads,
    )
