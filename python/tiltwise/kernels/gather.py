"""Gather ("backward") insertion of slices: what RELION's reconstruct_particle does instead of the transpose.

It exists for RELION-compatible reconstruction alone, on the CPU; everything else uses `insert`.
"""

from __future__ import annotations

import numpy as np

from tiltwise.errors import ShapeError
from tiltwise.kernels.api import C64, C128, F32, F64
from tiltwise.kernels.reference.gather import gather_slices as reference_gather
from tiltwise.kernels.threads import default_threads


def gather_slices(
    slices: C64, weights: F32, matrices: F64, limits: F64, data: C128, weight: F64, *, threads: int = 0
) -> None:
    """Add slices to a half-complex volume by interpolating *in the slices*, in place.

    Every voxel k with `|k| <= limits[i]` whose image `p = matrices[i] @ k` lies less than one pixel off slice
    i receives `(1 - |p_z|)` times the bilinear value of the slice at `(p_x, p_y)`.

    Parameters
    ----------
    slices, weights
        `(n, M, M // 2 + 1)` half-complex images and their weights, FFT order.
    matrices
        `(n, 3, 3)` rotations from the volume into the frame of the image (A_f).
    limits
        `(n,)` largest |k| of every slice.
    data, weight
        `(M, M, M // 2 + 1)` accumulators.

    Raises
    ------
    ShapeError
        if matrices or limits are not finite, or a limit is negative.
    """
    if not (np.isfinite(matrices).all() and np.isfinite(limits).all() and (np.asarray(limits) >= 0).all()):
        raise ShapeError("geometry of slices is not usable", expected="finite matrices, finite limits of at least 0")
    try:
        from tiltwise.kernels import native
    except ImportError:
        reference_gather(slices, weights, matrices, limits, data, weight)
        return
    native.gather(slices, weights, matrices, limits, data, weight, threads or default_threads())
