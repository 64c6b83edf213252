"""Boxes cut from tilt images and centred on the projected particle (steps 1-6 of the extraction).

A box of `round(bin * b)` pixels is cut at whole pixels, Fourier transformed (unitary), cropped to `b` in
Fourier space, and moved by the remaining fraction of a pixel with a phase ramp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.spectral.fft import rfft2


class SectionReader(Protocol):
    """Random access to the images of a tilt series."""

    def window(self, tilt: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Pixels of one tilt image, float32."""
        ...


def cut_size(box: int, binning: float) -> int:
    """Unbinned size of a box of `box` binned pixels; refuses sizes that would displace every particle.

    Raises
    ------
    ConfigError
        if `box * binning` is not an even whole number: the sub-pixel shift would contain a constant
        and the pixel size of the result would differ from `binning` times the original.
    """
    size = box * binning
    if box < 4 or box % 2 or abs(size - round(size)) > 1e-6 or round(size) % 2:
        raise ConfigError(
            "box and binning do not fit together",
            where="--b, --bin",
            expected="an even --b with --b x --bin an even whole number",
            found=f"--b {box}, --bin {binning:g} ({size:g} pixels)",
            fix="choose another box, or a binning that divides it",
        )
    return round(size)


def round_half_away(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nearest integers, halves away from zero (RELION rounds so; NumPy rounds halves to even)."""
    return np.asarray(np.sign(values) * np.floor(np.abs(values) + 0.5), dtype=np.int64)


def cut_boxes(
    reader: SectionReader,
    image_size: tuple[int, int],
    tilts: Sequence[int] | NDArray[np.intp],
    points: NDArray[np.float64],
    size: int,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Boxes of `size` pixels around `points` (F, 2), one per tilt, pixels beyond the edge replicated.

    Returns the boxes (F, size, size) and the position of each point in its box minus `size / 2`, (F, 2).
    """
    width, height = image_size
    corners = round_half_away(points) - size // 2
    boxes = np.empty((len(points), size, size), np.float32)
    for i, (tilt, (x0, y0)) in enumerate(zip(tilts, corners, strict=True)):
        if x0 >= 0 and y0 >= 0 and x0 + size <= width and y0 + size <= height:
            boxes[i] = reader.window(int(tilt), slice(y0, y0 + size), slice(x0, x0 + size))
            continue
        columns = np.clip(np.arange(x0, x0 + size), 0, width - 1)
        rows = np.clip(np.arange(y0, y0 + size), 0, height - 1)
        part = reader.window(int(tilt), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        boxes[i] = part[(rows - rows[0])[:, None], columns - columns[0]]
    return boxes, points - corners - size / 2


def centred_transforms(
    boxes: NDArray[np.float32], offsets: NDArray[np.float64], box: int, binning: float, contrast: float = 1.0
) -> NDArray[np.complex64]:
    """Unitary half-complex transforms (F, box, box // 2 + 1) of boxes times `contrast`, origin moved onto the particle.

    Raises
    ------
    DataError
        if a pixel is NaN or infinite.
    """
    size = boxes.shape[-1]
    spectra: NDArray[np.complex64] = rfft2(boxes)
    if not np.isfinite(spectra[:, 0, 0]).all():
        bad = [int(i) for i in np.flatnonzero(~np.isfinite(spectra[:, 0, 0]))]
        raise DataError(
            "tilt images contain NaN or infinite pixels",
            found=f"in boxes {bad[:5]}",
            fix="tiltwise check --images finds the tilts",
        )
    half = box // 2
    if size != box:
        keep = np.r_[0:half, size - half : size]
        spectra = spectra[:, keep, : half + 1]
    # The particle sits at size / 2 + offset; a box centre at index size / 2 has phase (-1)^(x+y).
    ky = np.fft.fftfreq(box, 1.0 / box)
    kx = np.arange(half + 1)
    shift = offsets / binning + box / 2
    ramp_y = np.exp((2j * np.pi / box) * shift[:, 1, None] * ky) * (contrast / binning)
    ramp_x = np.exp((2j * np.pi / box) * shift[:, 0, None] * kx)
    spectra *= ramp_y[:, :, None].astype(np.complex64)
    spectra *= ramp_x[:, None, :].astype(np.complex64)
    return spectra
