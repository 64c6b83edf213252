"""Noise power of the tilts from the residuals of one iteration (Eq. 12)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.maximisation import NoiseSums
from tiltwise.maps.spectra import smoothed
from tiltwise.spectral.components import FourierComponents


def noise_power(
    sums: NoiseSums,
    disc: FourierComponents,
    area_ratio: float,
    old: NDArray[np.float64],
    *,
    pooled: bool = False,
) -> NDArray[np.float64]:
    """sigma^2 (F, S) of the un-multiplied images from the residual power (Eq. 12, exact form).

    `area_ratio` is the area of the cropped box over that in which the power was measured, over which the
    signal of one particle is spread.  `pooled` gives all tilts the same.  Tilts that no particle sees keep their
    old values.
    """
    if pooled:
        sums = sums.pooled()
    components = np.maximum(np.bincount(disc.shells, minlength=disc.n_shells)[: disc.n_shells], 1)
    weight = np.where(sums.weight > 0, sums.weight, 1.0)
    total = sums.power / weight
    residual = total - sums.explained / components / weight * area_ratio
    # An over-fitted model may explain more than there is; noise is never less than a tenth of the power.
    result = smoothed(np.maximum(residual, 0.1 * total))
    unseen = ~(sums.weight > 0) | ~(result > 0)
    return np.where(unseen, old, result)
