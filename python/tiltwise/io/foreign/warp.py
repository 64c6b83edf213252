"""Tilt series of Warp and M: `.xml` (alignment, CTF and deformation grids) and `.tomostar` (list of tilts)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import TextFile
from tiltwise.io.foreign.xml_tree import Element, read_xml
from tiltwise.io.star import read_star

F64 = NDArray[np.float64]
MOST_NODES = 10_000_000
"""Nodes of a grid that is still read."""


@dataclass(frozen=True, slots=True)
class WarpGrid:
    """Values at the nodes of a regular grid over [0, 1] on each axis, interpolated by a natural cubic spline."""

    values: F64
    """(Z, Y, X), or (W, Z, Y, X)"""
    margins: tuple[float, ...]
    """x, y, z (, w): a coordinate c is looked up at c (1 - 2 margin) + margin"""


@dataclass(frozen=True, slots=True)
class WarpSeries:
    """One tilt series `.xml`, numbers as they stand: Å, degrees, µm, e/Å²."""

    path: str
    angles_inverted: bool
    level_x_deg: float
    level_y_deg: float
    magnification: tuple[float, ...]
    """matrix of the magnification correction, row by row: 4 numbers, or 3 of older versions"""
    volume_size_angstrom: tuple[float, ...] | None
    image_size_angstrom: tuple[float, ...] | None
    tilt_deg: F64
    """(F,)"""
    dose: F64
    """(F,) before the tilt, NaN where the file has none"""
    use: NDArray[np.bool_]
    axis_deg: F64
    offset_x_angstrom: F64
    offset_y_angstrom: F64
    movies: tuple[str, ...]
    """(F,) file names as they stand; empty where the file has none"""
    ctf: Mapping[str, float]
    """numbers of the element CTF: PixelSize, Voltage, Cs, Amplitude, Defocus, ..."""
    grids: Mapping[str, WarpGrid]
    """by the name of the element: GridCTF, GridMovementX, GridVolumeWarpX, GridAngleX, ..."""


@dataclass(frozen=True, slots=True)
class TomoStar:
    """One `.tomostar`."""

    path: str
    movies: tuple[str, ...]
    tilt_deg: F64
    axis_deg: F64
    dose: F64
    offset_x_angstrom: F64
    offset_y_angstrom: F64


def read_warp_series(path: str | os.PathLike[str]) -> WarpSeries:
    """Read a tilt series `.xml`, UTF-8 or UTF-16.

    Raises
    ------
    FormatError
        if the file cannot be read, is not of a tilt series, or a value is not a finite number; with the line.
    """
    root, file = read_xml(path)
    if root.tag != "TiltSeries":
        raise file.error("this is not a tilt series of Warp", root.line, expected="<TiltSeries>", found=f"<{root.tag}>")
    tilt = _column(file, root, "Angles", None)
    if tilt is None or not len(tilt):
        raise file.error("a tilt series has no angles", root.line, expected="<Angles> with one number per line")
    count = len(tilt)

    def per_tilt(tag: str, default: float) -> F64:
        found = _column(file, root, tag, count)
        return np.full(count, default) if found is None else found

    use = _lines(root, "UseTilt", file, count)
    movies = _lines(root, "MoviePath", file, count)
    return WarpSeries(
        path=file.path,
        angles_inverted=_flag(file, root, "AreAnglesInverted"),
        level_x_deg=_numbers(file, root, "LevelAngleX", (1,), (0.0,))[0],
        level_y_deg=_numbers(file, root, "LevelAngleY", (1,), (0.0,))[0],
        magnification=_numbers(file, root, "MagnificationCorrection", (3, 4), (1.0, 0.0, 0.0, 1.0)),
        volume_size_angstrom=_numbers(file, root, "VolumeDimensionsAngstrom", (3,), ()) or None,
        image_size_angstrom=_numbers(file, root, "ImageDimensionsAngstrom", (2,), ()) or None,
        tilt_deg=tilt,
        dose=per_tilt("Dose", np.nan),
        use=np.array([_boolean(file, line, text) for line, text in use] or [True] * count),
        axis_deg=per_tilt("AxisAngle", 0.0),
        offset_x_angstrom=per_tilt("AxisOffsetX", 0.0),
        offset_y_angstrom=per_tilt("AxisOffsetY", 0.0),
        movies=tuple(text for _, text in movies),
        ctf=_ctf(file, root),
        grids={one.tag: _grid(file, one) for one in root.children if one.tag.startswith("Grid")},
    )


def read_tomostar(path: str | os.PathLike[str]) -> TomoStar:
    """Read a `.tomostar`.

    Raises
    ------
    FormatError
        if it cannot be read, columns are missing, or a value is not a finite number; with line and column.
    """
    document = read_star(path)
    block = next((one for one in document if "wrpAngleTilt" in one), document.blocks[0])
    tilt = block.floats("wrpAngleTilt")
    if not len(tilt):
        raise FormatError(
            "a file has no rows",
            where=block.where(),
            expected="one row per tilt",
            fix="import the tilt series in Warp anew, or take this file out",
        )
    zeros = np.zeros(len(tilt))

    def optional(label: str) -> F64:
        return block.floats(label) if label in block else zeros

    return TomoStar(
        path=os.fspath(path),
        movies=tuple(block.text("wrpMovieName")),
        tilt_deg=tilt,
        axis_deg=optional("wrpAxisAngle"),
        dose=block.floats("wrpDose"),
        offset_x_angstrom=optional("wrpAxisOffsetX"),
        offset_y_angstrom=optional("wrpAxisOffsetY"),
    )


def _lines(root: Element, tag: str, file: TextFile, count: int | None) -> list[tuple[int, str]]:
    """Lines of an element that are not blank, with their numbers; nothing if there is no such element."""
    element = root.child(tag)
    if element is None or not element.text.strip():
        return []
    lines = [(element.text_line + i, text.strip()) for i, text in enumerate(element.text.split("\n")) if text.strip()]
    if count is not None and len(lines) != count:
        raise file.error(
            f"<{tag}> does not fit the tilts",
            element.line,
            expected=f"{count} lines, one per angle",
            found=f"{len(lines)} lines",
            fix="check that the program that writes it came to its end",
        )
    return lines


def _column(file: TextFile, root: Element, tag: str, count: int | None) -> F64 | None:
    lines = _lines(root, tag, file, count)
    return np.array([file.number(line, text, tag) for line, text in lines]) if lines else None


def _boolean(file: TextFile, line: int, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise file.error("a value cannot be read", line, expected="True or False", found=text)
    return text.lower() == "true"


def _flag(file: TextFile, root: Element, name: str) -> bool:
    return _boolean(file, root.line, root.attributes.get(name, "False"))


def _numbers(
    file: TextFile, element: Element, name: str, counts: tuple[int, ...], default: tuple[float, ...]
) -> tuple[float, ...]:
    """Numbers of an attribute that are separated by commas."""
    text = element.attributes.get(name, "")
    if not text.strip():
        return default
    parts = text.strip("() ").split(",")
    if len(parts) not in counts:
        raise file.error(
            f"{name} cannot be read",
            element.line,
            expected=f"{' or '.join(map(str, counts))} numbers",
            found=text,
        )
    return tuple(file.number(element.line, part, name) for part in parts)


def _ctf(file: TextFile, root: Element) -> dict[str, float]:
    element = root.child("CTF")
    values: dict[str, float] = {}
    for one in element.children if element is not None else ():
        name, text = one.attributes.get("Name", ""), one.attributes.get("Value", "")
        if name in ("PixelSize", "Voltage", "Cs", "Amplitude", "Defocus", "DefocusDelta", "DefocusAngle", "PhaseShift"):
            values[name] = file.number(one.line, text, name)
    return values


def _grid(file: TextFile, element: Element) -> WarpGrid:
    four = "Duration" in element.attributes
    axes = ("Width", "Height", "Depth", *(("Duration",) if four else ()))
    sizes = []
    for name in axes:
        if name not in element.attributes:
            raise file.error(f"<{element.tag}> has no {name}", element.line, expected=f'{name}="N"')
        sizes.append(int(file.number(element.line, element.attributes[name], name, whole=True)))
    nodes = int(np.prod(sizes, dtype=object))
    if min(sizes) < 1 or nodes > MOST_NODES:
        raise file.error(f"<{element.tag}> has no usable size", element.line, found=" x ".join(map(str, sizes)))
    values = np.full(sizes[::-1], np.nan)
    for node in element.children:
        index = []
        for axis, size in zip("XYZW", sizes, strict=False):
            at = int(file.number(node.line, node.attributes.get(axis, ""), f"{element.tag} {axis}", whole=True))
            if not 0 <= at < size:
                raise file.error(
                    "a node lies outside its grid", node.line, expected=f"{axis} below {size}", found=str(at)
                )
            index.append(at)
        values[tuple(index[::-1])] = file.number(node.line, node.attributes.get("Value", ""), element.tag)
    missing = int(np.isnan(values).sum())
    if missing:
        raise file.error(
            f"<{element.tag}> is not complete", element.line, expected=f"{nodes} nodes", found=f"{missing} missing"
        )
    margins = tuple(_numbers(file, element, f"Margin{axis}", (1,), (0.0,))[0] for axis in "XYZW"[: len(sizes)])
    return WarpGrid(values, margins)
