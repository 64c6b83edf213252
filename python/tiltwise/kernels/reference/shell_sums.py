"""Sums of products over Fourier shells (Eqs. 12, 13, FSC), in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shell_sums(
    a: NDArray[np.complexfloating],
    b: NDArray[np.complexfloating],
    weights: NDArray[np.floating] | None,
    shells: NDArray[np.integer],
    n_shells: int,
    *,
    threads: int = 0,
) -> NDArray[np.float64]:
    """See `tiltwise.kernels.api.Backend.shell_sums`."""
    product = (a.astype(np.complex128).conj() * b.astype(np.complex128)).real
    if weights is not None:
        product = product * weights.astype(np.float64)
    inside = (shells >= 0) & (shells < n_shells)
    sums = np.zeros((len(product), n_shells))
    for i, row in enumerate(product):
        sums[i] = np.bincount(shells[inside], row[inside], minlength=n_shells)
    return sums
