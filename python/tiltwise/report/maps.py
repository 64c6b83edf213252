"""Pictures of maps: central slices and projections."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from tiltwise.report.style import SKY, grey_levels, new_figure, plain_image_axes, style

VIEWS = (("xy", 0), ("xz", 1), ("yz", 2))
_CELL_INCHES = 1.62


def map_slices(
    maps: Mapping[str, NDArray[np.float32]], pixel_size: float, diameter_angstrom: float | None = None
) -> Figure:
    """Central slices and projections of one or more maps of the same size, one row per map.

    Parameters
    ----------
    maps
        title of the row to `(N, N, N)` density, axes z, y, x, protein positive (shown white).
    pixel_size
        Å per voxel, for the scale bar.
    diameter_angstrom
        draws this circle on the slices.
    """
    size = next(iter(maps.values())).shape[0]
    gap = max(1, round(size / 32))
    pitch = size + gap
    # One picture for all panels: separate axes would take most of the time of a report.
    mosaic = np.ones((len(maps) * pitch - gap, 6 * pitch - gap), np.float32)
    for row, density in enumerate(maps.values()):
        slices = [np.take(density, size // 2, axis=axis) for _, axis in VIEWS]
        projections = [density.sum(axis=axis) for _, axis in VIEWS]
        for column, image in enumerate(slices + projections):
            black, white = grey_levels(image)
            top = (len(maps) - 1 - row) * pitch
            mosaic[top : top + size, column * pitch : column * pitch + size] = (image - black) / (white - black)
    width, height = 6 * _CELL_INCHES + 0.35, len(maps) * _CELL_INCHES + 0.33
    with style():
        figure = new_figure(width, height)
        axes = figure.add_axes((0.3 / width, 0.02 / height, 6 * _CELL_INCHES / width, 1.0 - 0.3 / height))
        plain_image_axes(axes)
        axes.imshow(
            np.clip(mosaic, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, origin="lower", interpolation="bilinear"
        )
        for column in range(6):
            kind = "slice" if column < 3 else "projection"
            middle = column * pitch + size / 2
            axes.text(middle, mosaic.shape[0] + gap, f"{kind} {VIEWS[column % 3][0]}", ha="center", va="bottom")
        for row, title in enumerate(maps):
            bottom = (len(maps) - 1 - row) * pitch
            axes.text(-2 * gap, bottom + size / 2, title, rotation=90, ha="right", va="center")
            if diameter_angstrom is not None:
                for column in range(3):
                    centre = (column * pitch + size // 2, bottom + size // 2)
                    axes.add_patch(Circle(centre, diameter_angstrom / pixel_size / 2, fill=False, color=SKY, lw=0.7))
        length = scale_length(size * pixel_size)
        axes.add_patch(Rectangle((0.05 * size, 0.05 * size), length / pixel_size, 0.018 * size, color="white", lw=0))
        axes.text(0.05 * size, 0.09 * size, length_text(length), color="white", fontsize=7.5, va="bottom")
    return figure


def scale_length(width_angstrom: float) -> float:
    """Round length in Å (1, 2 or 5 times a power of ten), at most a quarter of a width."""
    target = width_angstrom / 4.0
    power = 10.0 ** np.floor(np.log10(target))
    return float(max(step * power for step in (1.0, 2.0, 5.0) if step * power <= target))


def length_text(angstrom: float) -> str:
    """Length in nm from 100 Å on, else in Å."""
    return f"{angstrom / 10:g} nm" if angstrom >= 100 else f"{angstrom:g} Å"
