"""Particle images at known poses, added to the sums of a map (Eqs. 8-11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.api import Backend
from tiltwise.maps.volumes import Accumulator
from tiltwise.maps.whitening import slice_matrices, whiten
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

    Images are centred on their particles.  The sums are not completed.
    """
    if not images:
        return
    whitened = [whiten(image, disc, noise_power, len(disc)) for image in images]
    scale = accumulator.padded / accumulator.box
    matrices = [
        slice_matrices(series, image.tilts, rotation[None], scale)
        for rotation, image in zip(rotations, images, strict=True)
    ]
    backend.insert(
        np.concatenate([w.map_image.reshape(-1, len(disc)) for w in whitened]),
        np.concatenate([w.map_power.reshape(-1, len(disc)) for w in whitened]),
        np.concatenate(matrices),
        disc.frequencies3d(),
        accumulator.padded // 2,
        accumulator.data,
        accumulator.weight,
        threads=threads,
    )
