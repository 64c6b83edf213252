"""Masks inside which half maps are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError, ShapeError
from tiltwise.io.mrc import read_map
from tiltwise.spectral.masks import soft_sphere

MASK_EDGE_PX = 5.0
MASK_ROUNDING = 1e-2
"""How far values of a mask may lie outside 0 to 1: masks that were resampled overshoot a little."""
SAME_PIXEL = 1e-3
"""Relative difference of pixel sizes that is rounding."""
SAME_VOXELS = 0.05
"""The same where the number of voxels is equal: a pixel size was calibrated anew, the voxels are those of the map."""
UNSET = 1.0
"""Å, pixel size that many programs write where they know none."""
CUT_AWAY = 0.01
"""Share of a mask that may be lost at the edge of a box."""
INSIDE = 0.5
"""Value of a mask from which on a voxel belongs to what it is a mask of."""

Note = Callable[[str], None]


def focus_mask(
    path: Path | None,
    diameter_angstrom: float | None,
    box: int,
    pixel_size: float,
    note: Note = lambda text: None,
) -> NDArray[np.float32]:
    """Mask of a file, or a soft sphere of the particle diameter (default: as large as the box allows).

    Raises
    ------
    FormatError, ShapeError, DataError
        as `read_mask`.
    """
    if path is not None:
        return read_mask(path, box, pixel_size, note=note)
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


def read_mask(
    path: Path,
    box: int,
    pixel_size: float,
    flag: str = "--mask",
    note: Note = lambda text: None,
    believed: float | None = None,
) -> NDArray[np.float32]:
    """Mask `(box, box, box)` of a file, values from 0 to 1 but for rounding, on the grid of the map.

    A mask of another box or pixel size is resampled about its middle voxel, as its header says how large it is.
    `pixel_size` is that of the map, in Å; `flag` is for messages, and `note` is told what was assumed or changed.
    `believed` is the pixel size of a mask of another box where its header says nothing, or may say nothing.

    Raises
    ------
    FormatError
        if the file cannot be read.
    ShapeError
        if the mask is not a cube, or has another size than the map and no pixel size that says where it belongs.
    DataError
        if its values are not those of a mask, or the box of the map or its own would cut it.
    """
    mask, own = read_map(path)
    where = f"{flag} {path}"
    same = mask.shape == (box,) * 3
    shape = " x ".join(str(n) for n in mask.shape[::-1]) + (f" voxels of {own:g} Å" if own > 0 else " voxels")
    fix = (
        "make one of this size: tiltwise mask --i JOB --o Mask, JOB the folder of a reconstruction or "
        "refinement with the same --b, --crop and --bin"
    )
    if not same and len(set(mask.shape)) > 1:
        raise ShapeError(
            "the mask is not a cube",
            where=where,
            expected=f"{box} x {box} x {box} voxels of {pixel_size:g} Å, or another cube about the same middle",
            found=shape,
            fix=f"put it on the grid of the map (volume resample onGrid in ChimeraX), or {fix}",
        )
    low, high = float(mask.min()), float(mask.max())  # NaN if any voxel is
    if not (low >= -MASK_ROUNDING and 0 < high <= 1 + MASK_ROUNDING):
        raise DataError(
            "the mask cannot be used",
            where=where,
            expected="finite values from 0 to 1, not all zero",
            found=f"{low:g} to {high:g}",
            fix=f"make a mask of it: tiltwise mask --i {path} --o Mask; or leave {flag} out",
        )
    unset = pixel_size_unset(own, pixel_size)
    if same and (unset or abs(own - pixel_size) <= SAME_VOXELS * pixel_size):
        if unset or abs(own - pixel_size) > SAME_PIXEL * pixel_size:
            says = f"says {own:g} Å" if own > 0 else "has no pixel size"
            note(f"{where}: its header {says}; voxels are taken as those of the map, {pixel_size:g} Å")
        return mask
    if unset and believed is not None:
        unset, own, shape = False, believed, f"{len(mask)} voxels of {believed:.3g} Å"
    extent = len(mask) * own / (box * pixel_size)
    if unset and not 0.5 <= extent <= 2.0:
        raise ShapeError(
            "mask and map differ in size",
            where=where,
            expected=f"{box} x {box} x {box} voxels of {pixel_size:g} Å, as the map has, or a header with a pixel size",
            found=shape + (", which is written where it is not known" if own > 0 else " without a pixel size"),
            fix=f"set the pixel size in the header of the mask: it is resampled then; or {fix}",
        )
    _refuse_cut(mask, own, box, pixel_size, where, shape)
    note(f"{where}: the mask of {shape} is resampled to {box} voxels of {pixel_size:g} Å, those of the map")
    return regridded(mask, pixel_size / own, box)


def pixel_size_unset(own: float, pixel_size: float) -> bool:
    """Whether the pixel size in the header of a mask says nothing, where that of the map is `pixel_size`."""
    return not own > 0 or (own == UNSET and abs(own - pixel_size) > SAME_VOXELS * pixel_size)


def _refuse_cut(mask: NDArray[np.float32], own: float, box: int, pixel_size: float, where: str, shape: str) -> None:
    """Raises DataError if the box of the map, or its own in the middle of that, would cut a mask off."""
    axis = (np.arange(len(mask)) - len(mask) // 2) * own
    beyond = (axis < (-(box // 2) - 0.5) * pixel_size) | (axis > (box - box // 2 - 0.5) * pixel_size)
    inside = np.ix_(~beyond, ~beyond, ~beyond)
    lost = 1.0 - float(mask[inside].sum(dtype=np.float64)) / float(mask.sum(dtype=np.float64))
    if lost > CUT_AWAY:
        raise DataError(
            "the mask does not fit into the box of the map",
            where=where,
            expected=f"nothing outside of {box} voxels of {pixel_size:g} Å about its middle",
            found=f"{shape}, {lost:.0%} of the mask outside",
            fix="use a larger --b and --crop, or a smaller mask; and check the pixel size in the header of the mask",
        )
    larger = (box - 1) * pixel_size > (len(mask) + 1) * own
    edge = max(float(np.take(mask, side, axis=along).max()) for along in range(3) for side in (0, -1))
    if larger and edge >= INSIDE:
        raise DataError(
            "the mask is cut off at the edge of its own box, which is smaller than that of the map",
            where=where,
            expected=f"zeros at the edge, or a box of {box * pixel_size:.0f} Å, as the map has",
            found=f"{shape}, with values up to {edge:.2f} at the edge",
            fix="make the mask in a larger box, or use a smaller --crop; and check the pixel size in its header",
        )


def regridded(
    mask: NDArray[np.float32], ratio: float, size: int, offset_px: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> NDArray[np.float32]:
    """A mask (N, N, N) on `size` voxels, `ratio` times as large, about a point at `offset_px` x, y, z from its middle.

    Linear between voxels, and where new ones are larger averaged over these: values stay within those of the mask, and
    nothing rings about a sharp edge.  Zero outside of the old box.
    """
    result = np.asarray(mask, np.float32)
    for offset in offset_px[::-1]:
        position = (np.arange(size) - size // 2) * ratio + offset + len(mask) // 2
        width = max(1.0, ratio)
        reach = 2 * int(np.ceil(width))  # whatever the box cuts off counts as zeros
        old = np.arange(-reach, len(mask) + reach)
        weight = np.maximum(1.0 - np.abs(position[:, None] - old) / width, 0.0)
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
        kernel = weight[:, reach : reach + len(mask)].astype(np.float32)
        result = np.tensordot(result, kernel, axes=(0, 1))
    return result
