"""Posterior-weighted sums per rotation: numerator and denominator of Eq. 11, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def backproject(
    weights: NDArray[np.floating],
    image: NDArray[np.complexfloating],
    power: NDArray[np.floating],
    phases: NDArray[np.complexfloating],
    *,
    threads: int = 0,
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """See `tiltwise.kernels.api.Backend.backproject`."""
    shifted = image.astype(np.complex128) * phases.astype(np.complex128)
    sums = weights.astype(np.float64) @ shifted
    totals = weights.astype(np.float64).sum(axis=1)[:, None] * power.astype(np.float64)
    return sums, totals
