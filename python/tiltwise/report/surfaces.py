"""Surfaces of maps at one contour, seen along the axes, shaded by the slope of the density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from tiltwise.post.mask import NOISE_SIGMAS, otsu_threshold
from tiltwise.report.style import new_figure, plain_image_axes, style
from tiltwise.spectral.filters import resample

VIEWS = (("from +z", (0, 1, 2)), ("from +y", (1, 0, 2)), ("from +x", (2, 0, 1)))
"""Axes z, y, x of a map: the one looked along, then rows and columns of the picture."""
FINE = 96
"""Voxels to which small maps are refined, so that surfaces are smooth."""
DUST = 0.05
"""Volume of a piece over that of the largest one below which it is not shown."""
_CELL_INCHES = 1.62
_LIGHT = np.array([0.75, 0.45, -0.48])
"""Direction of the light: towards the eye, up, to the left."""


def common_contour(average: NDArray[np.float32], noise: Sequence[float]) -> float:
    """Density at which maps are shown side by side: what parts particle and solvent in their average (Otsu 1979), and
    at least `NOISE_SIGMAS` of the median standard deviation of the noise in the maps.
    """
    largest = float(average.max())
    particle = average[average > 0.02 * largest]
    level = otsu_threshold(particle) if particle.size > 8 else 0.5 * largest
    return max(level, NOISE_SIGMAS * float(np.median(noise)), 1e-30)


def without_dust(density: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Without the pieces above a level that are tiny beside the largest one."""
    labels, found = ndimage.label(density >= level, np.ones((3, 3, 3)))
    if found < 2:
        return density
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    tiny = sizes < DUST * sizes.max()
    tiny[0] = False
    return np.where(tiny[labels], np.float32(0.0), density)


def surface(density: NDArray[np.float32], level: float, order: tuple[int, int, int]) -> NDArray[np.float32]:
    """(N, N) brightness 0 to 1 of the first voxels above a level along a ray; NaN where there are none."""
    volume = density.transpose(order)[::-1]
    above = volume >= level
    first = above.argmax(axis=0)
    hit = above.any(axis=0)
    rows, columns = np.indices(hit.shape)
    slopes: list[NDArray[np.float32]] = [np.asarray(np.gradient(volume, axis=axis)) for axis in range(3)]
    normal = np.stack([slope[first, rows, columns] for slope in slopes], axis=-1)
    # density rises along the ray: the outward normal is minus the slope
    normal = -normal * np.array([-1.0, 1.0, 1.0])
    length = np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-30)
    light = (normal / length) @ (_LIGHT / np.linalg.norm(_LIGHT))
    # what lies behind is darker
    depth = 1.0 - 0.45 * first / len(volume)
    return np.where(hit, (0.3 + 0.7 * np.clip(light, 0.0, 1.0)) * depth, np.nan).astype(np.float32)


def surface_gallery(
    maps: Mapping[str, NDArray[np.float32]], level: float, pixel_size: float, colours: Mapping[str, str]
) -> Figure:
    """One row per map, three views, all at one contour `level` and without dust; maps are (N, N, N) of one size."""
    volumes = []
    for density in maps.values():
        fine = max(FINE, len(density))
        if fine > len(density):
            density = resample(density, pixel_size, pixel_size * len(density) / fine, fine)
        volumes.append(without_dust(density, level))
    centre = len(volumes[0]) // 2
    # as near as the farthest voxel of any map allows, the origin in the middle
    extent = max((int(np.abs(np.argwhere(one >= level) - centre).max(initial=0)) for one in volumes), default=0)
    near = slice(max(centre - extent - 3, 0), centre + extent + 4) if extent else slice(None)
    rows = [[surface(one[near, near, near], level, order) for _, order in VIEWS] for one in volumes]
    width, height = 3 * _CELL_INCHES + 0.35, len(maps) * _CELL_INCHES + 0.33
    with style():
        figure = new_figure(width, height)
        for row, (title, pictures) in enumerate(zip(maps, rows, strict=True)):
            for column, picture in enumerate(pictures):
                left = (0.33 + column * _CELL_INCHES) / width
                bottom = (len(maps) - 1 - row) * _CELL_INCHES / height
                axes = figure.add_axes((left, bottom, 0.97 * _CELL_INCHES / width, 0.97 * _CELL_INCHES / height))
                plain_image_axes(axes)
                axes.imshow(_tinted(picture, colours[title]), origin="lower", interpolation="bilinear")
                if row == 0:
                    axes.set_title(VIEWS[column][0], fontsize=9)
                if column == 0:
                    axes.set_ylabel(title)
    return figure


def _tinted(picture: NDArray[np.float32], colour: str) -> NDArray[np.float64]:
    """(N, N, 3) picture in one colour on white."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    base = np.array([red, green, blue])
    bright = np.nan_to_num(picture)[..., None]
    # dark to the colour, then to white
    tinted = np.where(bright < 0.6, base * bright / 0.6, base + (1.0 - base) * (bright - 0.6) / 0.8)
    return np.where(np.isnan(picture)[..., None], 1.0, np.clip(tinted, 0.0, 1.0))
