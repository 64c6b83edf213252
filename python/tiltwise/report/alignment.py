"""Figures of alignments: changes of the tilts, residuals, trails of particles."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.report.film import LEAST_FIELD
from tiltwise.report.style import BLUE, GREEN, GREY, INK, VERMILION, logarithmic, new_figure, style

F64 = NDArray[np.float64]


def tilt_changes(tilt_deg: F64, turn_deg: F64, turn_sigma: F64, shift_angstrom: F64, shift_sigma: F64) -> Figure:
    """Angles (F, 3) and shifts (F, 2) of the tilts (F,), with standard deviations."""
    order = np.argsort(tilt_deg)
    with style():
        figure = new_figure(5.6, 5.2)
        upper = figure.add_axes((0.12, 0.57, 0.85, 0.38))
        lower = figure.add_axes((0.12, 0.1, 0.85, 0.38))
        for axis, (name, colour) in enumerate((("about x", BLUE), ("about y", VERMILION), ("about z", GREEN))):
            upper.errorbar(
                tilt_deg[order],
                turn_deg[order, axis],
                turn_sigma[order, axis],
                color=colour,
                lw=1.2,
                marker="o",
                ms=3,
                elinewidth=0.8,
                label=name,
            )
        for axis, (name, colour) in enumerate((("along x", BLUE), ("along y", VERMILION))):
            lower.errorbar(
                tilt_deg[order],
                shift_angstrom[order, axis],
                shift_sigma[order, axis],
                color=colour,
                lw=1.2,
                marker="o",
                ms=3,
                elinewidth=0.8,
                label=name,
            )
        for axes, text in ((upper, "turn (°)"), (lower, "shift (Å)")):
            axes.axhline(0.0, color=INK, lw=0.8)
            axes.set_ylabel(text)
            axes.legend(ncols=3, loc="upper right", borderaxespad=0.1)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.16 * (high - low))  # room for the legend
        lower.set_xlabel("tilt (°)")
        upper.tick_params(labelbottom=False)
    return figure


def residual_curves(
    tilt_deg: F64, before: F64, after: F64, noise: F64, fields: list[tuple[str, F64, F64, str]], magnify: list[float]
) -> Figure:
    """Median residuals (F,) of the tilts (F,), in Å, above fields of one tilt.

    A field is its title, points and arrows (n, 2) and colour; arrows are drawn `magnify` times as long.
    """
    order = np.argsort(tilt_deg)
    with style():
        figure = new_figure(5.6, 5.6)
        upper = figure.add_axes((0.12, 0.6, 0.85, 0.37))
        for values, colour, name, marker in ((before, GREY, "before", "s"), (after, BLUE, "after", "o")):
            upper.plot(tilt_deg[order], values[order], color=colour, lw=1.2, marker=marker, ms=3, label=name)
        upper.plot(tilt_deg[order], noise[order], color=INK, ls="--", lw=1.0, label="noise of the images alone")
        logarithmic(upper, "y")
        upper.set_xlabel("tilt (°)")
        upper.set_ylabel("residual (Å)")
        upper.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 0.98), borderaxespad=0.1)
        for number, ((title, points, moved, colour), longer) in enumerate(zip(fields, magnify, strict=True)):
            axes = figure.add_axes((0.12 + 0.44 * number, 0.08, 0.41, 0.36))
            _quiver(axes, points, longer * moved, colour)
            _frame(axes, points)
            axes.set_title(f"{title}, ×{longer:g}")
            axes.set_xlabel("x (Å)")
            if number:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel("y (Å)")
    return figure


def trails(points: F64, paths: F64, magnify: float) -> Figure:
    """Trails (P, T, 3) of particles at (P, 3), Å, seen along z and along y, dark to light in the order of time."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * max(float((high - low).max()), LEAST_FIELD)
    low, high = low - margin, high + margin
    width = 4.4
    scale = 0.82 * width / (high - low)[0]
    heights = [scale * (high - low)[axis] for axis in (1, 2)]
    with style():
        height = sum(heights) + 1.25
        figure = new_figure(width, height)
        bottom = height - 0.1
        for axis, name, tall in zip((1, 2), "yz", heights, strict=True):
            bottom -= tall
            axes = figure.add_axes((0.15, bottom / height, 0.82, tall / height))
            bottom -= 0.55
            drawn = points[:, None] + magnify * paths
            segments = np.stack([drawn[:, :-1, [0, axis]], drawn[:, 1:, [0, axis]]], axis=2)
            age = np.tile(np.linspace(0.0, 1.0, segments.shape[1]), len(points))
            lines = LineCollection(list(segments.reshape(-1, 2, 2)), cmap="viridis", array=age, linewidths=1.1)
            axes.plot(points[:, 0], points[:, axis], "o", ms=2.5, color=GREY, zorder=1)
            axes.add_collection(lines)
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(low[axis], high[axis])
            axes.set_xlabel("x (Å)")
            axes.set_ylabel(f"{name} (Å)")
    return figure


def arrows(fields: list[tuple[str, F64, F64]], size_px: tuple[int, int], magnify: float) -> Figure:
    """Displacements (n, 2) in pixels at points (n, 2) of images, each with a title; drawn `magnify` times as long."""
    width, height = size_px
    with style():
        figure = new_figure(4.4 if len(fields) == 1 else 6.6, 4.4 if len(fields) == 1 else 6.6 / len(fields) + 0.7)
        left, room = 0.11 if len(fields) > 1 else 0.16, 0.98
        step = (room - left) / len(fields)
        for number, (title, points, moved) in enumerate(fields):
            axes = figure.add_axes((left + number * step, 0.14, step - (0.02 if len(fields) > 1 else 0.0), 0.76))
            _quiver(axes, points, magnify * moved, BLUE)
            axes.set_aspect("equal")
            axes.set_xlim(-0.12 * width, 1.12 * width)
            axes.set_ylim(-0.12 * height, 1.12 * height)
            axes.set_title(title)
            axes.set_xlabel("x (px)")
            if number:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel("y (px)")
    return figure


def time_colours(count: int) -> list[str]:
    """Those of `trails`, as text for the page, from dark to light."""
    return [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0.0, 1.0, count))]


def _quiver(axes: Axes, points: F64, moved: F64, colour: str) -> None:
    axes.quiver(
        *points.T,
        *moved.T,
        angles="xy",
        scale_units="xy",
        scale=1.0,
        color=colour,
        width=0.006,
        headwidth=3.5,
        headlength=4.0,
        headaxislength=3.5,
    )


def _frame(axes: Axes, points: F64) -> None:
    """All points, with room for arrows at the rim."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.1 * max(float((high - low).max()), LEAST_FIELD)
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)
    axes.set_aspect("equal")
