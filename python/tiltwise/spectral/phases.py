"""Phases of shifts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def phase_ramps(frequencies: NDArray[np.signedinteger], slopes: NDArray[np.float64]) -> NDArray[np.complex64]:
    """(..., K) phases exp(+i k.t) at whole frequencies (K, D), for slopes t (..., D) in radians per cycle.

    They move the image of a particle displaced by d pixels in a box of N back to the centre for `t = 2 pi d / N`.
    """
    lowest, highest = frequencies.min(axis=0, initial=0), frequencies.max(axis=0, initial=0)
    phases: NDArray[np.complex64] | None = None
    # exp of a sum is a product: small tables instead of one large exponential
    for axis, (low, high) in enumerate(zip(lowest, highest, strict=True)):
        table = np.exp(1j * slopes[..., axis, None] * np.arange(low, high + 1)).astype(np.complex64)
        part = table.take(frequencies[:, axis] - low, axis=-1)
        if phases is None:
            phases = part
        else:
            phases *= part
    assert phases is not None
    return phases


def shift_ramps(
    projection: NDArray[np.float64],
    shifts_angstrom: NDArray[np.float64],
    frequencies: NDArray[np.signedinteger],
    box_angstrom: float,
) -> NDArray[np.complex64]:
    """(T, F, K) phases exp(+2 pi i k.d / N) that undo displacements of (T, 3) Å along tomogram axes (Eq. 5).

    `projection` (F, D or more, 3 or more) begins with the rows that give image coordinates, frequencies (K, D) are in
    cycles per box, and `box_angstrom` is the width of the box, N times the pixel size.
    """
    slopes = np.einsum("fij,tj->tfi", projection[:, : frequencies.shape[1], :3], shifts_angstrom)
    return phase_ramps(frequencies, slopes * (2.0 * np.pi / box_angstrom))
