"""Masks inside which half maps are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, ShapeError
from tiltwise.io.mrc import read_map
from tiltwise.spectral.masks import soft_sphere

MASK_EDGE_PX = 5.0
MASK_ROUNDING = 1e-2
"""How far values of a mask may lie outside 0 to 1: masks that were resampled overshoot a little."""


def focus_mask(path: Path | None, diameter_angstrom: float | None, box: int, pixel_size: float) -> NDArray[np.float32]:
    """Mask of a file, or a soft sphere of the particle diameter (default: as large as the box allows).

    Raises
    ------
    FormatError, ShapeError, DataError
        as `read_mask`.
    """
    if path is not None:
        return read_mask(path, box, pixel_size)
    radius = box / 2 if diameter_angstrom is None else diameter_angstrom / 2 / pixel_size + MASK_EDGE_PX
    return soft_sphere(box, min(radius, box / 2), MASK_EDGE_PX).astype(np.float32)


def read_mask(path: Path, box: int, pixel_size: float) -> NDArray[np.float32]:
    """Mask `(box, box, box)` of a file, values from 0 to 1 but for rounding.

    `pixel_size` in Å is for messages: masks often have none in their header.

    Raises
    ------
    FormatError
        if the file cannot be read.
    ShapeError
        if the mask has another size than the map, `box` voxels of `pixel_size` Å.
    DataError
        if its values are not those of a mask.
    """
    mask, own_pixel_size = read_map(path)
    if mask.shape != (box,) * 3:
        raise ShapeError(
            "mask and map differ in size",
            where=f"--mask {path}",
            expected=f"{box} x {box} x {box} voxels of {pixel_size:g} Å, as the map has",
            found=" x ".join(str(n) for n in mask.shape[::-1]) + f" voxels of {own_pixel_size:g} Å",
            fix="resample the mask to the box and pixel size of the map",
        )
    low, high = float(mask.min()), float(mask.max())  # NaN if any voxel is
    if not (low >= -MASK_ROUNDING and 0 < high <= 1 + MASK_ROUNDING):
        raise DataError(
            "the mask cannot be used",
            where=f"--mask {path}",
            expected="finite values from 0 to 1, not all zero",
            found=f"{low:g} to {high:g}",
            fix="give a mask, not a map; or leave --mask out",
        )
    return mask
