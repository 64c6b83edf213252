"""Small rigid motions of maps: found by least squares, and undone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from tiltwise.maps.masks import regridded
from tiltwise.spectral.fft import irfft3, rfft3

SPLINE = 5
"""Order of the splines that maps are interpolated with."""
WHOLE = 1e-3
"""Voxels by which a shift may miss a whole number: numbers in files are rounded."""


def rigid_change(
    moved: NDArray[np.float32], fixed: NDArray[np.float32], pixel_size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation vector (3,) in degrees and shift (3,) in Å, about x, y, z, that take map `fixed` best to `moved`.

    Least squares on first-order changes: `moved - fixed` on the derivatives of `fixed` by the six parameters.
    """
    box = len(fixed)
    axis = np.arange(box) - box // 2
    spectrum, k = rfft3(fixed, norm="backward"), np.fft.fftfreq(box) * 2j * np.pi
    half = (np.fft.rfftfreq(box) * 2j * np.pi)[: box // 2 + 1]
    if box % 2 == 0:  # the component at Nyquist has no slope
        k[box // 2] = half[-1] = 0.0
    gz, gy, gx = (
        irfft3((spectrum * slope).astype(np.complex64), box, norm="backward")
        for slope in (k[:, None, None], k[:, None], half)
    )
    z, y, x = axis[:, None, None], axis[:, None], axis
    # f(R^T (r - t)): d/dt = -grad f; d/dw = -(r x grad f)
    parts = [-gx, -gy, -gz, z * gy - y * gz, x * gz - z * gx, y * gx - x * gy]
    design = np.stack([np.asarray(part, np.float32).ravel() for part in parts], axis=1)
    normal = (design.T @ design).astype(np.float64)
    right = (design.T @ (moved - fixed).ravel()).astype(np.float64)
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    found = np.linalg.lstsq(normal / scale / scale[:, None], right / scale, rcond=1e-6)[0] / scale
    return np.degrees(found[3:]), found[:3] * pixel_size


def placed(
    density: NDArray[np.float32], rotation: NDArray[np.float64], centre_px: NDArray[np.float64], size: int
) -> NDArray[np.float32]:
    """A map (N, N, N) turned by `rotation` (3, 3), its middle at `centre_px` (3,) x, y, z from that of a box of `size`.

    `result(x) = density(R^T (x - c))`, by quintic splines; exact where only whole voxels are moved.  Zero where the map
    has nothing.
    """
    if (rotation == np.eye(3)).all() and (np.abs(centre_px - np.rint(centre_px)) < WHOLE).all():
        x, y, z = (float(-one) for one in np.rint(centre_px))
        return regridded(density, 1.0, size, (x, y, z))
    matrix = rotation.T[::-1, ::-1]
    middle = np.full(3, size // 2, np.float64)
    offset = np.full(3, len(density) // 2, np.float64) - matrix @ (middle + centre_px[::-1])
    moved = affine_transform(density, matrix, offset, (size,) * 3, np.float32, SPLINE, mode="constant")
    return np.asarray(moved, np.float32)
