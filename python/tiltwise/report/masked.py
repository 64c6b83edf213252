"""Pictures of maps together with their masks."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from tiltwise.report.maps import VIEWS, length_text, scale_length
from tiltwise.report.style import ORANGE, grey_levels, new_figure, plain_image_axes, style

_CELL_INCHES = 2.2


def masked_slices(density: NDArray[np.float32], mask: NDArray[np.float32], pixel_size: float) -> Figure:
    """Slices of a map `(N, N, N)` with the outline of a mask: through the centre of the box, and of the mask.

    Solid lines where the mask begins to fall below 1, dashed ones where it reaches 0.
    """
    size = density.shape[0]
    weights = [mask.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64) for axis in range(3)]
    middle = [round(float(w @ np.arange(size)) / max(float(w.sum()), 1e-9)) for w in weights]
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
                        length = scale_length(size * pixel_size)
                        axes.add_patch(
                            Rectangle(
                                (0.05 * size, 0.05 * size), length / pixel_size, 0.018 * size, color="white", lw=0
                            )
                        )
                        axes.text(0.05 * size, 0.09 * size, length_text(length), color="white", fontsize=7.5)
    return figure
