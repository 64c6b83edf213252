"""Picture of the resolution by direction."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.report.particles import graticule, mollweide
from tiltwise.report.style import BLUE, GREY, VERMILION, new_figure, style


def directional_figure(
    axes: NDArray[np.float64],
    curves: NDArray[np.float64],
    resolution_angstrom: NDArray[np.float64],
    frequency: NDArray[np.float64],
) -> Figure:
    """Resolution of cones about axes `(D, 3)` on an equal-area map, and the spread of their curves `(D, S)`.

    `frequency` `(S,)` in 1/Å.
    """
    both = np.concatenate([axes, -axes])
    longitude, latitude = np.arctan2(both[:, 1], both[:, 0]), np.arcsin(np.clip(both[:, 2], -1.0, 1.0))
    points = mollweide(longitude, latitude)
    worst, best = int(np.argmax(resolution_angstrom)), int(np.argmin(resolution_angstrom))
    with style():
        figure = new_figure(9.6, 3.0)
        sphere = figure.add_axes((0.0, 0.02, 0.46, 0.9))
        graticule(sphere)
        drawn = sphere.scatter(
            points[:, 0], points[:, 1], c=np.tile(resolution_angstrom, 2), cmap="viridis_r", s=95, lw=0, zorder=3
        )
        sphere.set_title("resolution by direction (rot, tilt)", loc="left")
        bar = figure.colorbar(drawn, cax=figure.add_axes((0.465, 0.2, 0.009, 0.6)))
        bar.ax.set_title("Å", fontsize=8)
        bar.outline.set_visible(False)
        plot = figure.add_axes((0.585, 0.155, 0.405, 0.755))
        low, high = curves.min(axis=0)[1:], curves.max(axis=0)[1:]
        plot.fill_between(
            frequency[1:],
            low,
            high,
            color=GREY,
            alpha=0.3,
            lw=0,
            label="all cones",
        )
        for number, colour, name in ((best, BLUE, "best"), (worst, VERMILION, "worst")):
            label = f"{name}: {resolution_angstrom[number]:.1f} Å"
            plot.plot(frequency[1:], curves[number, 1:], color=colour, label=label)
        plot.axhline(0.143, color=GREY, lw=0.9, ls=(0, (4, 3)))
        plot.set_xlabel("spatial frequency (1/Å)")
        plot.set_ylabel("FSC in the cone")
        plot.set_ylim(min(-0.1, float(curves.min())), 1.05)
        plot.legend(loc="upper right")
    return figure
