"""Masks inside which half maps are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError, ShapeError
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


def check_diameter(diameter_angstrom: float | None, box: int, pixel_size: float) -> None:
    """Refuse a sphere of `--particle-diameter` that does not fit into the map.

    Raises
    ------
    ConfigError
        if it is larger than the box.
    """
    if diameter_angstrom is None or diameter_angstrom <= box * pixel_size:
        return
    needed = 2 * int(np.ceil(diameter_angstrom / pixel_size / 2 + MASK_EDGE_PX))
    raise ConfigError(
        "the particle is larger than the box of the map",
        where="--particle-diameter",
        expected=f"at most {box * pixel_size:.0f} Å ({box} px of {pixel_size:g} Å)",
        found=f"{diameter_angstrom:g} Å",
        fix=f"use --crop {needed} or more (--b at least as large), a larger --bin, or a smaller --particle-diameter",
    )


def read_mask(path: Path, box: int, pixel_size: float, flag: str = "--mask") -> NDArray[np.float32]:
    """Mask `(box, box, box)` of a file, values from 0 to 1 but for rounding.

    `pixel_size` in Å and `flag` are for messages: masks often have no pixel size in their header.

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
            where=f"{flag} {path}",
            expected=f"{box} x {box} x {box} voxels of {pixel_size:g} Å, as the map has",
            found=" x ".join(str(n) for n in mask.shape[::-1]) + f" voxels of {own_pixel_size:g} Å",
            fix="make one of this size: tiltwise mask --i JOB --o Mask, JOB the folder of a reconstruction or "
            "refinement with the same --b, --crop and --bin",
        )
    low, high = float(mask.min()), float(mask.max())  # NaN if any voxel is
    if not (low >= -MASK_ROUNDING and 0 < high <= 1 + MASK_ROUNDING):
        raise DataError(
            "the mask cannot be used",
            where=f"{flag} {path}",
            expected="finite values from 0 to 1, not all zero",
            found=f"{low:g} to {high:g}",
            fix=f"make a mask of it: tiltwise mask --i {path} --o Mask; or leave {flag} out",
        )
    return mask
