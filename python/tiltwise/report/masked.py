"""Pictures of maps together with their masks."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from tiltwise.report.maps import VIEWS, length_text, scale_length
from tiltwise.report.style import GREY, ORANGE, SKY, grey_levels, new_figure, plain_image_axes, style

_CELL_INCHES = 2.2


def masked_slices(density: NDArray[np.float32], mask: NDArray[np.float32], pixel_size: float) -> Figure:
    """Slices of a map `(N, N, N)` with the outline of a mask: through the centre of the box, and of the mask.

    Solid lines where the mask begins to fall below 1, dashed ones where it reaches 0.
    """
    size = density.shape[0]
    middle = _centre(mask)
    rows = {"centre of the box": [size // 2] * 3, "centre of the mask": middle}
    width, height = 3 * _CELL_INCHES + 0.35, len(rows) * _CELL_INCHES + 0.33
    with style():
        figure = new_figure(width, height)
        for row, (title, places) in enumerate(rows.items()):
            for column, (view, axis) in enumerate(VIEWS):
                left = (0.3 + column * _CELL_INCHES) / width
                bottom = (0.02 + (len(rows) - 1 - row) * _CELL_INCHES) / height
                axes = figure.add_axes((left, bottom, 0.97 * _CELL_INCHES / width, 0.97 * _CELL_INCHES / height))
                plain_image_axes(axes)
                image, outline = (np.take(v, places[axis], axis=axis) for v in (density, mask))
                black, white = grey_levels(image)
                axes.imshow(image, cmap="gray", vmin=black, vmax=white, origin="lower", interpolation="bilinear")
                for level, dashes in ((0.999, "-"), (0.001, "--")):
                    if outline.min() < level < outline.max():
                        axes.contour(outline, levels=[level], colors=[ORANGE], linewidths=1.0, linestyles=[dashes])
                if row == 0:
                    axes.set_title(f"slice {view}", pad=4)
                if column == 0:
                    axes.text(-0.03 * size, size / 2, title, rotation=90, ha="right", va="center")
                    if row == 0:
                        _scale_bar(axes, size, pixel_size)
    return figure


def _centre(mask: NDArray[np.float32]) -> list[int]:
    """Voxel at the centre of mass of a mask, along z, y, x."""
    sums = [mask.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64) for axis in range(3)]
    return [round(float(w @ np.arange(len(w))) / max(float(w.sum()), 1e-9)) for w in sums]


def _scale_bar(axes: Axes, size: int, pixel_size: float) -> None:
    length = scale_length(size * pixel_size)
    axes.add_patch(Rectangle((0.05 * size, 0.05 * size), length / pixel_size, 0.018 * size, color="white", lw=0))
    axes.text(0.05 * size, 0.09 * size, length_text(length), color="white", fontsize=7.5)


def resolution_slices(
    resolution: NDArray[np.float32], density: NDArray[np.float32], mask: NDArray[np.float32], pixel_size: float
) -> Figure:
    """Slices of a map through the centre of its mask, and of the local resolution in Å in colour, one row each."""
    size = density.shape[0]
    middle = _centre(mask)
    shown = resolution[mask >= 0.5]
    low, high = (float(v) for v in np.percentile(shown, [2, 98])) if shown.size else (1.0, 2.0)
    width, height = 3 * _CELL_INCHES + 1.0, 2 * _CELL_INCHES + 0.33
    with style():
        figure = new_figure(width, height)
        drawn = None
        for row, title in enumerate(("filtered map", "local resolution")):
            for column, (view, axis) in enumerate(VIEWS):
                left = (0.3 + column * _CELL_INCHES) / width
                bottom = (0.02 + (1 - row) * _CELL_INCHES) / height
                axes = figure.add_axes((left, bottom, 0.97 * _CELL_INCHES / width, 0.97 * _CELL_INCHES / height))
                plain_image_axes(axes)
                image, inside = (np.take(v, middle[axis], axis=axis) for v in (density, mask))
                if row == 0:
                    black, white = grey_levels(image)
                    axes.imshow(image, cmap="gray", vmin=black, vmax=white, origin="lower", interpolation="bilinear")
                    axes.set_title(f"slice {view}", pad=4)
                else:
                    colours = np.where(inside >= 0.5, np.take(resolution, middle[axis], axis=axis), np.nan)
                    drawn = axes.imshow(colours, cmap="viridis_r", vmin=low, vmax=max(high, low + 0.01), origin="lower")
                if column == 0:
                    axes.text(-0.03 * size, size / 2, title, rotation=90, ha="right", va="center")
                    if row == 0:
                        _scale_bar(axes, size, pixel_size)
        if drawn is not None:
            bar = figure.colorbar(drawn, cax=figure.add_axes((1 - 0.62 / width, 0.06, 0.12 / width, 0.36)))
            bar.ax.set_title("Å", fontsize=9)
            bar.outline.set_visible(False)
    return figure


def resolution_histogram(values: NDArray[np.float32]) -> Figure:
    """How many voxels have which local resolution, in Å."""
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    bins = [float(v) for v in np.linspace(low, max(high, low + 0.1), 41)]
    with style():
        figure = new_figure(5.6, 2.9)
        axes = figure.add_axes((0.105, 0.17, 0.865, 0.78))
        axes.hist(np.clip(values, bins[0], bins[-1]), bins=bins, color=SKY, edgecolor="white", lw=0.5)
        median = float(np.median(values))
        axes.axvline(median, color=GREY, ls="--", lw=1)
        axes.set_xlabel(f"local resolution (Å); median {median:.2f}")
        axes.set_ylabel("voxels")
    return figure
