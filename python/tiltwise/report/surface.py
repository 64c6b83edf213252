"""Surfaces of maps: shaded pictures that need no script, and a copy of the map for the viewer in the page.

    sections.append(surface_panel(density, pixel_size, resolution_angstrom=8.2, mask=mask, map_file=path))

That is all a report needs: `tiltwise.report.html` puts the viewer into the page where k3d is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from tiltwise.post.mask import otsu_threshold
from tiltwise.report.html import Section, Table
from tiltwise.report.maps import length_text, scale_length
from tiltwise.report.style import BLUE, INK, new_figure, plain_image_axes, style
from tiltwise.report.viewer import Surface, is_available
from tiltwise.spectral.filters import low_pass, resample
from tiltwise.spectral.masks import distances

COPY_PX = 112
"""Longest side of the copy in the page, in voxels."""
PICTURE_PX = 144
"""Side of one shaded picture before it is drawn."""
MARGIN_PX = 2
VIEWS = {"+z": (0, 1, 1), "+y": (1, -1, 1), "+x": (2, 1, 1), "-z": (0, -1, -1), "-y": (1, 1, -1), "-x": (2, -1, -1)}
"""Axis of the array along which is looked, direction of the horizontal axis, side of the viewer."""
_LIGHT = np.array([-0.45, 0.55, 0.70])
"""Towards the light: right, up, to the viewer."""


@dataclass(frozen=True, slots=True)
class Colouring:
    """A second map of the same grid that colours the surface, as the local resolution."""

    values: NDArray[np.float32]
    label: str
    """with the unit, `local resolution (Å)`"""
    low: float
    high: float
    """values with the first and the last colour"""


def surface_panel(
    density: NDArray[np.floating],
    pixel_size: float,
    contour: float | None = None,
    *,
    title: str = "Surface",
    resolution_angstrom: float | None = None,
    mask: NDArray[np.floating] | None = None,
    colour: Colouring | None = None,
    map_file: Path | str = "",
    shape: Literal["", "wide"] = "wide",
) -> Section:
    """Surface of a map from six sides, and the same surface to be turned and contoured in the page.

    The pictures are drawn here and are there without scripts.  The viewer starts on a click; where k3d is not
    installed the caption says how to get it.  The page holds a copy of the map for display alone: low-passed, cropped
    to the mask, at most `COPY_PX` voxels wide, 8 bit.

    Parameters
    ----------
    density
        `(N, N, N)`, axes z, y, x, protein positive.
    pixel_size
        Å per voxel.
    contour
        grey value of the surface at the start; None: Otsu's threshold of the masked map.
    resolution_angstrom
        low-pass filter of the copy; None or less than two voxels: no filter.
    mask
        `(N, N, N)` from 0 to 1, multiplied to the map; the copy is cropped to where it is above 0.  None: a
        soft-edged sphere that fills the box.
    colour
        colours the surface by another map.
    map_file
        the map itself, named in the caption.
    """
    copy = display_copy(density, pixel_size, resolution_angstrom, mask)
    painted = None if colour is None else copy.of(colour.values)
    level = contour_of(copy) if contour is None else contour
    filtered = f", low-passed to {copy.low_pass_angstrom:.3g} Å" if copy.low_pass_angstrom else ""
    caption = (
        f"Surface at a grey value of {level:.3g}, from six sides; the sign says from which axis of the map one looks. "
        f"Display copy: {copy.values.shape[0]} voxels of {copy.pixel_size:.3g} Å{filtered}, 8 bit; "
        f"{'the map itself is ' + str(map_file) if map_file else 'measure in the map itself'}. Worry if the surface "
        "falls apart or is covered with dust at every contour, or if it is drawn out along one direction."
    )
    if not is_available():
        caption += " A surface to turn and contour in this page needs k3d: pip install 'tiltwise[viz]'."
    levels, counts = np.unique(copy.bytes(), return_counts=True)
    enclosed = np.cumsum(counts[::-1])[::-1] * copy.pixel_size**3 / 1000.0
    rows = np.stack([copy.low + levels * copy.step, enclosed], axis=1)
    return Section(
        title,
        caption,
        figure=shaded_views(copy, level, colour, painted),
        form="png",
        data=Table(["contour", "volume nm3"], rows.tolist()),
        shape=shape,
        surface=Surface(
            values=copy.bytes(),
            low=copy.low,
            high=copy.high,
            contour=level,
            width_angstrom=copy.values.shape[0] * copy.pixel_size,
            focus_angstrom=copy.focus_angstrom(level),
            colour=None if colour is None or painted is None else _eight_bit(painted, colour.low, colour.high),
            colour_range=None if colour is None else (colour.low, colour.high),
            colour_map=_colours(),
        ),
    )


@dataclass(frozen=True, slots=True)
class DisplayCopy:
    """A small cube of a map."""

    values: NDArray[np.float32]
    pixel_size: float
    corner: tuple[int, int, int]
    """of the cropped cube in the map, in voxels along z, y, x"""
    side: int
    """of the cropped cube, in voxels of the map"""
    low_pass_angstrom: float | None

    @property
    def low(self) -> float:
        """Grey value of byte 0: contours below zero are of no use."""
        return 0.0

    @property
    def high(self) -> float:
        """Grey value of byte 255."""
        return max(float(self.values.max(initial=0.0)), 1e-30)

    @property
    def step(self) -> float:
        """Grey values per byte."""
        return (self.high - self.low) / 255.0

    def bytes(self) -> NDArray[np.uint8]:
        """Values in 8 bit."""
        return _eight_bit(self.values, self.low, self.high)

    def near(self, level: float) -> tuple[tuple[int, int, int], int]:
        """Corner and side in voxels of the cube around what is above a contour; the whole copy if nothing is."""
        above = self.values >= level
        return _cube_around(above if above.any() else np.ones_like(above))

    def focus_angstrom(self, level: float) -> tuple[float, float, float, float]:
        """Centre x, y, z of that cube from the centre of the copy, and its side."""
        corner, side = self.near(level)
        middle = [(start + (side - self.values.shape[0]) / 2) * self.pixel_size for start in reversed(corner)]
        return middle[0], middle[1], middle[2], side * self.pixel_size

    def of(self, other: NDArray[np.floating]) -> NDArray[np.float32]:
        """Another map of the same grid, cropped and sampled likewise, linearly."""
        cube = _crop(other, self.corner, self.side)
        return _linear(cube, self.values.shape[0])


def display_copy(
    density: NDArray[np.floating],
    pixel_size: float,
    resolution_angstrom: float | None = None,
    mask: NDArray[np.floating] | None = None,
) -> DisplayCopy:
    """Copy of a map for the eye; see `surface_panel` for the parameters."""
    size = density.shape[0]
    values = np.nan_to_num(np.asarray(density, np.float32))
    cut = resolution_angstrom if resolution_angstrom and resolution_angstrom > 2.0 * pixel_size else None
    if cut is not None:
        values = low_pass(values, pixel_size, cut)
    if mask is None or not mask.any():
        mask = np.clip(size / 2 - distances(size, 3), 0.0, 1.0)
    values = values * np.asarray(mask, np.float32)
    corner, side = _cube_around(mask > 0.0)
    cube = _crop(values, corner, side)
    number = min(COPY_PX, side)
    new_pixel = pixel_size * side / number
    if number < side:
        cube = resample(cube, pixel_size, new_pixel, number)
    return DisplayCopy(cube, new_pixel, corner, side, cut)


def contour_of(copy: DisplayCopy) -> float:
    """Grey value between particle and solvent: Otsu's threshold of what is above zero."""
    values = copy.values[copy.values > 0.02 * copy.high]
    return otsu_threshold(values) if values.size > 8 else 0.5 * copy.high


def shaded_views(
    copy: DisplayCopy, level: float, colour: Colouring | None = None, painted: NDArray[np.float32] | None = None
) -> Figure:
    """The surface from six sides, light from the upper left; `painted` has the values that colour it, on its grid."""
    corner, side = copy.near(level)
    density = _crop(copy.values, corner, side)
    density = resample(density, 1.0, side / PICTURE_PX, PICTURE_PX) if side < PICTURE_PX else density
    if painted is not None:
        painted = _linear(_crop(painted, corner, side), density.shape[0])
    size = density.shape[0]
    gap = size // 24
    pitch = size + gap
    columns = 3
    mosaic = np.ones((2 * pitch - gap, columns * pitch - gap, 3))
    for number, view in enumerate(VIEWS):
        row, column = divmod(number, columns)
        bottom = (1 - row) * pitch
        picture = shaded_picture(density, level, view, colour, painted)
        mosaic[bottom : bottom + size, column * pitch : column * pitch + size] = picture
    inches = 1.9
    width, height = columns * inches + 0.1 + (0.9 if colour is not None else 0.0), 2 * inches + 0.35
    with style():
        figure = new_figure(width, height)
        axes = figure.add_axes((0.05 / width, 0.3 / height, columns * inches / width, 2 * inches / height))
        plain_image_axes(axes)
        axes.imshow(mosaic, origin="lower", interpolation="bilinear")
        for number, title in enumerate(VIEWS):
            row, column = divmod(number, columns)
            axes.text(column * pitch + 2, (2 - row) * pitch - gap - 2, title, ha="left", va="top", fontsize=9)
        length = scale_length(side * copy.pixel_size)
        voxels = length / (side * copy.pixel_size) * size
        below = -0.06 * size
        axes.add_patch(Rectangle((0, below), voxels, 0.015 * size, color=INK, lw=0, clip_on=False))
        axes.text(voxels + 0.03 * size, below, length_text(length), fontsize=9, va="center")
        if colour is not None:
            bar = figure.add_axes(((columns * inches + 0.15) / width, 0.15, 0.13 / width, 0.7))
            scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(colour.low, colour.high), cmap="viridis_r")
            figure.colorbar(scale, cax=bar, label=colour.label)
    return figure


def shaded_picture(
    density: NDArray[np.float32],
    level: float,
    view: str,
    colour: Colouring | None = None,
    painted: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """One picture `(N, N, 3)`, rows upwards, white background: the first crossing of `level` along parallel rays.

    `view` is the axis from which one looks, of `VIEWS`: from `±z` with y up, from the others with z up.
    """
    views = [_seen(v, *VIEWS[view]) for v in ((density,) if painted is None else (density, painted))]
    seen = views[0]
    size = seen.shape[1]
    inside = seen >= level
    first = np.argmax(inside, axis=0)
    hit = inside.any(axis=0)
    up, across = np.nonzero(hit)
    depth = first[hit]
    before = np.maximum(depth - 1, 0)
    there, ahead = seen[depth, up, across], seen[before, up, across]
    share = np.where(depth > 0, (there - level) / np.maximum(there - ahead, 1e-30), 0.0)
    where = np.stack([depth - np.clip(share, 0.0, 1.0), up, across]).astype(np.float64)
    # Slopes over two voxels around the crossing; the surface looks to where the density falls.
    normal = np.empty((3, depth.size))
    for row, direction in enumerate(((0, 0, 1), (0, 1, 0), (-1, 0, 0))):
        step = np.asarray(direction, float)[:, None]
        normal[row] = -(
            ndimage.map_coordinates(seen, where + step, order=1, mode="nearest")
            - ndimage.map_coordinates(seen, where - step, order=1, mode="nearest")
        )
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-30)
    light = _LIGHT / np.linalg.norm(_LIGHT)
    brightness = 0.34 + 0.66 * np.clip(light @ normal, 0.0, 1.0)
    brightness *= 1.0 - 0.35 * where[0] / size
    if colour is None or len(views) == 1:
        base = np.broadcast_to(np.array(mpl.colors.to_rgb(BLUE)) * 0.55 + 0.45, (depth.size, 3))
    else:
        value = ndimage.map_coordinates(views[1], where, order=1, mode="nearest")
        share = (value - colour.low) / max(colour.high - colour.low, 1e-30)
        base = np.asarray(mpl.colormaps["viridis_r"](np.clip(share, 0.0, 1.0)))[:, :3]
    picture = np.ones((size, size, 3))
    picture[hit] = np.clip(base * brightness[:, None] * 1.12, 0.0, 1.0)
    return picture


def _seen(volume: NDArray[np.float32], axis: int, right: int, side: int) -> NDArray[np.float32]:
    """The map with axes away from the viewer, up, right, who stands on the `side` of `axis`; a proper rotation."""
    if axis == 0:  # from z: y up, x to the right
        turned = volume
    elif axis == 1:  # from y: z up
        turned = volume.transpose(1, 0, 2)
    else:  # from x: z up, y to the right
        turned = volume.transpose(2, 0, 1)
    return turned[:: -1 if side > 0 else 1, :, :: 1 if right > 0 else -1]


def _cube_around(chosen: NDArray[np.bool_]) -> tuple[tuple[int, int, int], int]:
    """Corner and side of a cube inside the box that holds what is chosen, with a margin; an even side if it can be."""
    size = chosen.shape[0]
    ends: list[tuple[int, int]] = []
    for axis in range(3):
        found = np.flatnonzero(chosen.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((int(found[0]), int(found[-1]) + 1))
    side = min(size, max(stop - start for start, stop in ends) + 2 * MARGIN_PX)
    side = min(size, side + side % 2)
    first, second, third = (min(max((start + stop - side) // 2, 0), size - side) for start, stop in ends)
    return (first, second, third), side


def _crop(volume: NDArray[np.floating], corner: Sequence[int], side: int) -> NDArray[np.float32]:
    z, y, x = corner
    return np.ascontiguousarray(volume[z : z + side, y : y + side, x : x + side], dtype=np.float32)


def _linear(cube: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """A cube on another grid of the same extent, linearly, with the centres as `resample` has them."""
    size = cube.shape[0]
    if number == size:
        return cube
    place = (np.arange(number) - number // 2) * (size / number) + size // 2
    low = np.clip(np.floor(place).astype(int), 0, size - 1)
    high, share = np.minimum(low + 1, size - 1), np.clip(place - low, 0.0, 1.0).astype(np.float32)
    for axis in range(3):
        weight = share.reshape([-1 if a == axis else 1 for a in range(3)])
        cube = np.take(cube, low, axis) * (1 - weight) + np.take(cube, high, axis) * weight
    return cube


def _eight_bit(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values - low) * (255.0 / max(high - low, 1e-30))
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def _colours() -> list[float]:
    """The colours of the viewer: position, red, green, blue of 17 steps."""
    steps = np.linspace(0.0, 1.0, 17)
    rgb = np.asarray(mpl.colormaps["viridis_r"](steps))[:, :3]
    return [round(float(v), 4) for v in np.column_stack([steps, rgb]).ravel()]
