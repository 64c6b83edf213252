"""Figures of alignments: changes of the tilts, trails of particles."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.report.style import BLUE, GREEN, GREY, INK, VERMILION, new_figure, style

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


def trails(points: F64, paths: F64, magnify: float) -> Figure:
    """Trails (P, T, 3) of particles at (P, 3), Å, seen along z, dark to light in the order of time."""
    with style():
        figure = new_figure(4.4, 4.4)
        axes = figure.add_axes((0.15, 0.12, 0.82, 0.85))
        drawn = points[:, None, :2] + magnify * paths[:, :, :2]
        segments = np.stack([drawn[:, :-1], drawn[:, 1:]], axis=2)
        age = np.tile(np.linspace(0.0, 1.0, segments.shape[1]), len(points))
        lines = LineCollection(list(segments.reshape(-1, 2, 2)), cmap="viridis", array=age, linewidths=1.1)
        axes.plot(points[:, 0], points[:, 1], "o", ms=2.5, color=GREY, zorder=1)
        axes.add_collection(lines)
        axes.set_aspect("equal")
        axes.autoscale_view()
        axes.set_xlabel("x (Å)")
        axes.set_ylabel("y (Å)")
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
            axes.quiver(
                *points.T,
                *(magnify * moved).T,
                angles="xy",
                scale_units="xy",
                scale=1.0,
                color=BLUE,
                width=0.006,
                headwidth=3.5,
                headlength=4.0,
                headaxislength=3.5,
            )
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
