"""Smallest pose errors the data can notice, from the curvature of the likelihood at the present poses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.likelihood import Scorer
from tiltwise.em.settings import Group
from tiltwise.geometry.rotations import rotation_x, rotation_y, rotation_z
from tiltwise.kernels.api import F32
from tiltwise.maps.whitening import WhitenedImages, whiten
from tiltwise.model import Views
from tiltwise.spectral.components import FourierComponents

NOTICEABLE = 4.605
"""-ln 0.01: difference of log-likelihoods at which an error is noticed with 99 % confidence."""
OF_GROUP = 3
"""Particles of a group that are looked at."""


def pose_accuracy(
    scorer: Scorer,
    series: Views,
    image: WhitenedImages,
    rotation: NDArray[np.float64],
    frequencies: F32,
    pixel_size: float,
    box: int,
) -> tuple[float, float]:
    """Angle in degrees and shift in Å (rms over three axes) at which the expected score drops by `NOTICEABLE`.

    The expected drop is `sum_k B |V_R - V_R'|^2` over independent components; it is quadratic in small
    errors, with curvature from a difference of half a degree and from the exact derivative for shifts.
    """
    step = 0.5
    turns = np.stack([rotation, *(turn(step) @ rotation for turn in (rotation_x, rotation_y, rotation_z))])
    slices = scorer.slices(series, image.tilts, turns, frequencies).astype(np.complex128)
    power = image.score_power.astype(np.float64)
    by_angle = (np.abs(slices[1:] - slices[0]) ** 2 * power).sum(axis=1) / step**2
    # d/ds exp(-2 pi i k.(P s) / N): in-plane gradient per Å along each tomogram axis
    rates = np.einsum("fij,ki->fkj", series.projection[image.tilts, :3, :3], frequencies.astype(np.float64))
    rates *= 2.0 * np.pi / (box * pixel_size)
    energy = (np.abs(slices[0]) ** 2 * power).reshape(len(image.tilts), -1)
    by_shift = np.einsum("fk,fkj->j", energy, rates**2)
    angle = np.sqrt(NOTICEABLE / max(float(by_angle.mean()), 1e-12))
    shift = np.sqrt(NOTICEABLE / max(float(by_shift.mean()), 1e-12))
    return float(min(angle, 30.0)), float(shift)


def median_accuracy(
    parts: Iterable[tuple[Scorer, Sequence[Group]]], components: FourierComponents, count: int, pixel_size: float
) -> tuple[float, float]:
    """Median of `pose_accuracy` over the first particles of every group, with the first `count` components."""
    frequencies = components.frequencies3d(count)
    found = [
        pose_accuracy(
            scorer,
            group.series,
            whiten(group.load(local), components, group.noise_power, count),
            group.rotations[local],
            frequencies,
            pixel_size,
            components.box,
        )
        for scorer, groups in parts
        for group in groups
        for local in range(min(OF_GROUP, len(group.members)))
    ]
    angle, shift = np.median(np.asarray(found), axis=0)
    return float(angle), float(shift)
