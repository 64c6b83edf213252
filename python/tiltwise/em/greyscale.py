"""Absolute grey scale of a starting map: the factor that fits it to the images.

The exact likelihood needs a map in units of the images.  Over poses, `2 a cross - a^2 quadratic` is largest
at `a = cross / quadratic` with the value `cross^2 / quadratic`; the best pose by that measure is found on
the coarse grid, and one factor is fitted to all particles at their best poses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.expectation import Expectation
from tiltwise.em.settings import Group
from tiltwise.maps.whitening import whiten

SAMPLE = 60
"""Particles, of all groups together, that are enough to fit one number; at least two of each."""


def fit_greyscale(expectation: Expectation, groups: Sequence[Group]) -> float:
    """Factor for the reference of `expectation`, from some particles of every group."""
    total_cross, total_quadratic = 0.0, 0.0
    for group in groups:
        for sample in expectation.batches(group, max(2, SAMPLE // len(groups))):
            images = [
                whiten(group.load(i), expectation.disc, group.noise_power, expectation.coarse_count) for i in sample
            ]
            for terms in expectation.coarse_terms(group, sample, images, prune=False):
                best = _best(terms.cross, terms.quadratic)
                total_cross += float(terms.cross[best])
                total_quadratic += float(terms.quadratic[best[0]])
    if not (total_cross > 0 and total_quadratic > 0):
        return 1.0
    return total_cross / total_quadratic


def _best(cross: NDArray[np.float32], quadratic: NDArray[np.float32]) -> tuple[int, int]:
    gain = np.maximum(cross, 0.0) ** 2 / np.maximum(quadratic, 1e-20)[:, None]
    row, column = np.unravel_index(int(np.argmax(gain)), gain.shape)
    return int(row), int(column)
