"""Cross and quadratic terms of the expanded likelihood (Eq. 4), in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def score(
    slices: NDArray[np.complexfloating],
    image: NDArray[np.complexfloating],
    power: NDArray[np.floating],
    phases: NDArray[np.complexfloating],
    rows: NDArray[np.integer] | None = None,
    columns: NDArray[np.integer] | None = None,
    *,
    wanted: NDArray[np.bool_] | None = None,
    rough: bool = False,
    threads: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """See `tiltwise.kernels.api.Backend.score`."""
    reference = (slices if rows is None else slices[rows]).astype(np.complex128)
    shifted = image.astype(np.complex128) * (phases if columns is None else phases[columns]).astype(np.complex128)
    cross = np.einsum("rk,tk->rt", reference.conj(), shifted).real
    if wanted is not None:
        cross[~wanted] = -np.inf
    quadratic = np.einsum("rk,k->r", np.abs(reference) ** 2, power.astype(np.float64))
    return cross, quadratic
