"""Condensed evidence about CTF phases, and the cost of phase errors (Eqs. 23-28), in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.kernels.reference.slices import project


def condense(
    volume: NDArray[np.complexfloating],
    matrices: NDArray[np.floating],
    frequencies: NDArray[np.floating],
    radius: float,
    images: NDArray[np.complexfloating],
    depths: NDArray[np.floating],
    starts: NDArray[np.integer],
    turns: NDArray[np.floating],
    slopes: NDArray[np.floating],
    out: NDArray[np.float64],
    *,
    threads: int = 0,
) -> None:
    """See `tiltwise.kernels.api.Backend.condense`."""
    slices = project(volume, matrices, frequencies, radius)
    for group in range(len(turns)):
        for i in range(starts[group], starts[group + 1]):
            v, x = slices[i], images[i].astype(np.complex128)
            whole = turns[group].astype(np.float64) + slopes.astype(np.float64) * float(depths[i])
            d = -np.stack([np.sin(2 * np.pi * whole), np.cos(2 * np.pi * whole)])
            energy, product = np.abs(v) ** 2, x * v.conj()
            out[group, :3] += energy * np.stack([d[0] * d[0], d[0] * d[1], d[1] * d[1]])
            out[group, 3:5] += product.real * d
            out[group, 5:7] += product.imag * d
            out[group, 7] += np.abs(x) ** 2


def phase_cost(
    matrices: NDArray[np.float64],
    vectors: NDArray[np.float64],
    basis: NDArray[np.float64],
    parameters: NDArray[np.float64],
    rows: NDArray[np.integer],
    *,
    threads: int = 0,
) -> NDArray[np.float64]:
    """See `tiltwise.kernels.api.Backend.phase_cost`."""
    p = len(basis)
    upper = np.triu_indices(p)
    result = np.zeros((len(parameters), 2, 1 + p + p * (p + 1) // 2))
    for item, row in zip(range(len(parameters)), rows, strict=True):
        (r00, r01, r11), (b0, b1) = matrices[row], vectors[row]
        error = parameters[item] @ basis
        c, s = np.cos(error), np.sin(error)
        linear = b0 * c + b1 * s, b1 * c - b0 * s, -(b0 * c + b1 * s)
        quadratic = (
            r00 * c * c + 2 * r01 * c * s + r11 * s * s,
            2 * ((r11 - r00) * c * s + r01 * (c * c - s * s)),
            2 * ((r11 - r00) * (c * c - s * s) - 4 * r01 * c * s),
        )
        for part, (value, first, second) in enumerate((linear, quadratic)):
            hessian = (basis * second) @ basis.T
            result[item, part] = np.concatenate([[value.sum()], basis @ first, hessian[upper]])
    return result
