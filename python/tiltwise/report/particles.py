"""Pictures of particles: from where they are seen, where they lie, how certain their poses are."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.report.maps import length_text, scale_length
from tiltwise.report.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SKY,
    VERMILION,
    grey_levels,
    new_figure,
    plain_image_axes,
    style,
)

_DOTS_AT_MOST = 3000


def viewing_directions(
    rotations: NDArray[np.float64], symmetry: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Directions of the tomogram's z axis (the beam at zero tilt) in the frame of the reference.

    `rotations` `(P, 3, 3)` map the reference into the tomogram; the direction is `A^T z`, at longitude rot and
    colatitude tilt.  With the matrices of a point group `(G, 3, 3)`, all copies: `(P * G, 3)`.
    """
    directions = np.asarray(rotations[:, 2, :], dtype=np.float64)
    if symmetry is not None:
        directions = np.einsum("gij,pj->pgi", symmetry, directions).reshape(-1, 3)
    return directions


def evenness(directions: NDArray[np.float64]) -> float:
    """Evenness of directions `(P, 3)`: three times the smallest eigenvalue of their mean outer product.

    1 for directions all around, 0 for directions in one plane or along one line.
    """
    return float(3.0 * np.linalg.eigvalsh(directions.T @ directions / len(directions))[0])


def mollweide(longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal-area map of the sphere: angles in radians to x in ± 2 sqrt 2, y in ± sqrt 2, shape (..., 2)."""
    latitude = np.asarray(latitude, dtype=np.float64)
    theta = latitude.copy()
    target = np.pi * np.sin(latitude)
    pole = np.abs(latitude) > np.pi / 2 - 1e-6
    for _ in range(12):
        slope = 2.0 + 2.0 * np.cos(2.0 * theta)
        theta = theta - np.where(pole, 0.0, (2.0 * theta + np.sin(2.0 * theta) - target) / np.maximum(slope, 1e-9))
    return np.stack(
        [2.0 * np.sqrt(2.0) / np.pi * np.asarray(longitude) * np.cos(theta), np.sqrt(2.0) * np.sin(theta)], axis=-1
    )


def angular_distribution(rotations: NDArray[np.float64], symmetry: NDArray[np.float64] | None = None) -> Figure:
    """Viewing directions on an equal-area map of the sphere (dots, or density when there are many) and in-plane angles.

    `rotations` `(P, 3, 3)` map the reference into the tomogram; `symmetry` `(G, 3, 3)` adds the equivalent directions.
    """
    directions = viewing_directions(rotations, symmetry)
    longitude = np.arctan2(directions[:, 1], directions[:, 0])
    latitude = np.arcsin(np.clip(directions[:, 2], -1.0, 1.0))
    points = mollweide(longitude, latitude)
    psi = matrix_to_euler(rotations)[:, 2]
    with style():
        figure = new_figure(6.9, 2.75)
        axes = figure.add_axes((0.0, 0.02, 0.61, 0.9))
        graticule(axes)
        if len(points) > _DOTS_AT_MOST:
            drawn = axes.hexbin(
                points[:, 0],
                points[:, 1],
                gridsize=(44, 24),
                mincnt=1,
                cmap="viridis",
                lw=0.1,
                extent=(-2.83, 2.83, -1.42, 1.42),
            )
            bar = figure.colorbar(drawn, cax=figure.add_axes((0.617, 0.2, 0.012, 0.6)))
            bar.ax.set_title("per cell", fontsize=8)
            bar.outline.set_visible(False)
        else:
            axes.scatter(points[:, 0], points[:, 1], s=14, color=BLUE, alpha=0.65, lw=0, zorder=3)
        axes.set_title("viewing directions (rot, tilt)", loc="left")
        side = figure.add_axes((0.765, 0.175, 0.225, 0.715))
        side.hist(psi, bins=[float(edge) for edge in range(-180, 181, 20)], color=SKY, edgecolor="white", lw=0.6)
        side.set_title("in-plane angle (psi)", loc="left")
        side.set_xticks([-180, -90, 0, 90, 180])
        side.set_xlabel("degrees")
        side.set_ylabel("particles")
    return figure


def graticule(axes: Axes) -> None:
    """Outline, meridians and parallels every 30 degrees, labelled at the equator and on the left."""
    line = np.linspace(-np.pi / 2, np.pi / 2, 61)
    for degrees in range(-180, 181, 30):
        x, y = mollweide(np.full_like(line, np.radians(degrees)), line).T
        axes.plot(
            x, y, color=GREY if abs(degrees) == 180 else "#DDE1E6", lw=1.0 if abs(degrees) == 180 else 0.6, zorder=1
        )
    line = np.linspace(-np.pi, np.pi, 3)
    for degrees in range(-60, 61, 30):
        x, y = mollweide(line, np.full_like(line, np.radians(degrees))).T
        axes.plot(x, y, color="#DDE1E6", lw=0.6, zorder=1)
        axes.text(
            x[0] - 0.05,
            y[0],
            f"tilt {90 - degrees}°" if degrees == 60 else f"{90 - degrees}°",
            ha="right",
            va="center",
            fontsize=7.5,
        )
    for degrees in (-120, -60, 0, 60, 120):
        x, y = mollweide(np.array([np.radians(degrees)]), np.array([0.0]))[0]
        axes.text(x, y - 0.03, f"{degrees}°", ha="center", va="top", fontsize=7.5, color=GREY, zorder=4)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlim(-3.35, 2.9)
    axes.set_ylim(-1.47, 1.47)


def positions_on_tilt(
    image: NDArray[np.float32], points: NDArray[np.float64], diameter_px: float, pixel_size: float, title: str
) -> Figure:
    """Circles around the particles on one tilt image.

    Parameters
    ----------
    image
        `(height, width)` pixels.
    points
        `(P, 2)` particle positions x, y in pixels of `image`, 0-based.
    diameter_px
        diameter of the circles, pixels.
    pixel_size
        Å per pixel, for the scale bar.
    """
    step = max(1, round(max(image.shape) / 500))
    height, width = (n // step * step for n in image.shape)
    small = image[:height, :width].reshape(height // step, step, width // step, step).mean(axis=(1, 3))
    inches = 5.4
    with style():
        figure = new_figure(inches, inches * height / width + 0.3)
        axes = figure.add_axes((0.005, 0.005, 0.99, 0.99 * inches * height / width / (inches * height / width + 0.3)))
        plain_image_axes(axes)
        black, white = grey_levels(small, 1.0, 99.0)
        extent = (-0.5, width - 0.5, -0.5, height - 0.5)
        axes.imshow(small, cmap="gray", vmin=black, vmax=white, origin="lower", extent=extent)
        diameters = np.full(len(points), diameter_px)
        axes.add_collection(
            EllipseCollection(
                diameters,
                diameters,
                np.zeros(len(points)),
                units="xy",
                offsets=points,
                offset_transform=axes.transData,
                facecolors="none",
                edgecolors=ORANGE,
                linewidths=0.9,
            )
        )
        length = scale_length(width * pixel_size)
        axes.add_patch(
            Rectangle(
                (0.025 * width, 0.02 * height), length / pixel_size + 0.03 * width, 0.075 * height, color=INK, lw=0
            )
        )
        axes.plot([0.04 * width, 0.04 * width + length / pixel_size], [0.037 * height] * 2, color="white", lw=3)
        axes.text(0.04 * width, 0.052 * height, length_text(length), color="white", fontsize=8)
        axes.set_xlim(extent[0], extent[1])
        axes.set_ylim(extent[2], extent[3])
        axes.set_title(title, loc="left", pad=4)
    return figure


def pose_histograms(
    max_probability: NDArray[np.float64], change_deg: NDArray[np.float64], change_angstrom: NDArray[np.float64]
) -> Figure:
    """How certain the poses are, and how far they are from where they started; all arrays `(P,)`."""
    first = (max_probability, np.linspace(0, 1, 21), "posterior of the main peak", BLUE)
    return _histograms([first, *_changes(change_deg, change_angstrom, "from the start")])


def change_histograms(change_deg: NDArray[np.float64], change_angstrom: NDArray[np.float64]) -> Figure:
    """How far the poses `(P,)` of one job are from those of another."""
    return _histograms(_changes(change_deg, change_angstrom, "from A to B"))


Panel = tuple[NDArray[np.float64], NDArray[np.float64], str, str]
"""Values, edges of the bins, what they are, colour."""


def _changes(change_deg: NDArray[np.float64], change_angstrom: NDArray[np.float64], words: str) -> list[Panel]:
    """The last bin has what lies beyond it, too."""
    return [
        (values, np.linspace(0, max(float(np.percentile(values, 99)), 1e-3), 21), f"{name} {words} ({unit})", VERMILION)
        for values, name, unit in ((change_deg, "rotation", "°"), (change_angstrom, "shift", "Å"))
    ]


def _histograms(panels: list[Panel]) -> Figure:
    with style():
        figure = new_figure(9.6, 2.5)
        figure.subplots_adjust(left=0.065, right=0.985, bottom=0.2, top=0.95, wspace=0.2)
        for place, (values, bins, label, colour) in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), place)
            axes.hist(np.clip(values, bins[0], bins[-1]), bins=list(bins), color=colour, edgecolor="white", lw=0.6)
            median = float(np.median(values))
            axes.axvline(median, color=GREY, ls="--", lw=1)
            axes.set_xlabel(f"{label}; median {median:.2g}")
            if place == 1:
                axes.set_ylabel("particles")
    return figure
