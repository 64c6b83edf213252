"""IMOD models: points of a binary `.mod` file, or of the text that `model2point` writes.

Coordinates are in pixels of the volume on which the model was drawn, pixel edges at whole numbers: the centre of the
first pixel is at 0.5 in x and y, and slice k (from 0) is at z = k.  Objects and contours are numbered from 1, as IMOD
shows them.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import read_bytes, read_text

_HEADER = struct.Struct(">8s128s4iI4i3f3f3i2if2i3f")
_OBJECT_SIZE = 176
"""bytes after OBJT: name (64), reserved (64), counts, flags and colours"""
_UNITS = {0: "pixel", 3: "km", 1: "m", -2: "cm", -3: "mm", -6: "µm", -9: "nm", -10: "Å", -12: "pm"}


@dataclass(frozen=True, slots=True)
class ModelPoints:
    """Points of a model, P of them."""

    path: str
    points: NDArray[np.float64]
    """(P, 3) x, y, z"""
    object_number: NDArray[np.int64]
    """(P,) from 1"""
    contour_number: NDArray[np.int64]
    """(P,) from 1 within the object"""
    object_names: tuple[str, ...]
    """names of all objects, empty where unknown"""
    volume_size: tuple[int, int, int] | None
    """(width, height, depth) in pixels; None for text"""
    pixel_size: float | None
    """in `pixel_unit`; None for text"""
    pixel_unit: str


def read_model(path: str | os.PathLike[str]) -> ModelPoints:
    """Read the points of all contours of a binary IMOD model.

    Raises
    ------
    FormatError
        if the file is no IMOD model, ends early, or holds coordinates that are NaN.
    """
    name = os.fspath(path)
    raw = read_bytes(path)
    if raw[:8] != b"IMODV1.2":
        raise FormatError(
            "this is not an IMOD model",
            where=f"{name}, byte 1",
            expected="a binary file that begins with IMODV1.2",
            found=repr(raw[:8]),
            fix="for a list of points as text use a .txt or .csv file",
        )
    if len(raw) < _HEADER.size:
        raise _cut(name, len(raw), _HEADER.size)
    head = _HEADER.unpack_from(raw)
    size, objects, pixel, unit = (head[2], head[3], head[4]), head[5], head[22], head[23]
    names: list[str] = []
    contours: list[int] = []
    points: list[NDArray[np.float64]] = []
    owner: list[NDArray[np.int64]] = []
    at, ended = _HEADER.size, False
    while not ended:
        if at + 4 > len(raw):
            raise _cut(name, len(raw), at + 4)
        tag = raw[at : at + 4]
        at += 4
        if tag == b"IEOF":
            ended = True
        elif tag == b"OBJT":
            if at + _OBJECT_SIZE > len(raw):
                raise _cut(name, len(raw), at + _OBJECT_SIZE)
            names.append(raw[at : at + 64].split(b"\0", 1)[0].decode("utf-8", "replace"))
            contours.append(0)
            at += _OBJECT_SIZE
        elif tag == b"CONT":
            count = _integers(raw, at, 4, name)[0]
            length = 12 * count
            if count < 0 or not names or at + 16 + length > len(raw):
                raise _cut(name, len(raw), at + 16 + max(length, 0))
            contours[-1] += 1
            xyz = np.frombuffer(raw, ">f4", 3 * count, at + 16).reshape(-1, 3).astype(np.float64)
            if not np.isfinite(xyz).all():
                raise FormatError(
                    "a coordinate is NaN or infinite",
                    where=f"{name}, byte {at + 17}, object {len(names)}, contour {contours[-1]}",
                    fix="delete this point in 3dmod and save the model",
                )
            points.append(xyz)
            owner.append(np.tile([len(names), contours[-1]], (count, 1)).astype(np.int64))
            at += 16 + length
        elif tag == b"MESH":
            vertices, indices, *_ = _integers(raw, at, 4, name)
            at += 16 + 12 * max(vertices, 0) + 4 * max(indices, 0)
        elif tag.isalnum():
            length = _integers(raw, at, 1, name)[0]
            at += 4 + max(length, 0)
        else:
            raise FormatError(
                "an IMOD model is damaged",
                where=f"{name}, byte {at - 3}",
                found=repr(tag),
                fix="save the model anew in 3dmod, or convert it with model2point and give the text",
            )
    if len(names) != objects:
        raise FormatError(
            "an IMOD model lacks objects",
            where=name,
            expected=f"{objects} objects",
            found=str(len(names)),
            fix="save the model anew in 3dmod: the file was cut off",
        )
    numbers = np.concatenate(owner) if owner else np.empty((0, 2), np.int64)
    return ModelPoints(
        path=name,
        points=np.concatenate(points) if points else np.empty((0, 3)),
        object_number=numbers[:, 0],
        contour_number=numbers[:, 1],
        object_names=tuple(names),
        volume_size=size,
        pixel_size=float(pixel),
        pixel_unit=_UNITS.get(unit, f"unit {unit}"),
    )


def read_points(path: str | os.PathLike[str]) -> ModelPoints:
    """Read points as text: `x y z`, `contour x y z` or `object contour x y z` in every line.

    Raises
    ------
    FormatError
        if lines differ in length or hold something other than finite numbers.
    """
    file = read_text(path)
    rows = file.rows()
    if not rows:
        raise file.empty("lines of [object] [contour] x y z")
    columns = ("object", "contour", "x", "y", "z")
    width = min(max(len(file.lines[rows[0]].split()), 3), 5)
    values = file.table(rows, columns[5 - width :])
    numbers = np.ones((len(rows), 2), np.int64)
    for k in range(5 - width, 2):
        column = values[:, k - (5 - width)]
        bad = np.flatnonzero((column != np.floor(column)) | (column < 1))
        if len(bad):
            raise file.error(
                f"a {columns[k]} number is not a whole number from 1", rows[int(bad[0])], 0, found=str(column[bad[0]])
            )
        numbers[:, k] = column
    return ModelPoints(file.path, values[:, -3:], numbers[:, 0], numbers[:, 1], (), None, None, "pixel")


def _integers(raw: bytes, at: int, count: int, name: str) -> list[int]:
    if at + 4 * count > len(raw):
        raise _cut(name, len(raw), at + 4 * count)
    return [int(value) for value in np.frombuffer(raw, ">i4", count, at)]


def _cut(name: str, found: int, needed: int) -> FormatError:
    return FormatError(
        "an IMOD model is cut off",
        where=f"{name}, byte {found}",
        expected=f"at least {needed} bytes, IEOF at the end",
        found=f"{found} bytes",
        fix="copy the file again",
    )
