"""Coordinates, and angles where there are any, as comma, semicolon, tab or blank separated text.

With a line of names, the columns x, y, z are needed (or rlnCoordinateX, ...); rot, tilt, psi and a tomogram are read
where they are there, and all other columns are kept as text.  Without one, a file has 3 columns x y z, or 6: x y z rot
tilt psi.  Unit, origin and binning are not in such a file: they must be said with it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import TextFile, read_text
from tiltwise.io.star_block import LARGEST

_NAMES = {
    "x": ("x", "rlncoordinatex", "coordinate_x", "location_x", "pos_x"),
    "y": ("y", "rlncoordinatey", "coordinate_y", "location_y", "pos_y"),
    "z": ("z", "rlncoordinatez", "coordinate_z", "location_z", "pos_z"),
    "rot": ("rot", "rlnanglerot", "angle_rot", "phi"),
    "tilt": ("tilt", "rlnangletilt", "angle_tilt", "theta"),
    "psi": ("psi", "rlnanglepsi", "angle_psi"),
    "tomogram": ("tomogram", "tomo", "tomo_name", "tomo_id", "tomogram_name", "rlntomoname", "rlnmicrographname"),
}


@dataclass(frozen=True, slots=True)
class CoordinateTable:
    """P positions."""

    path: str
    coordinate: NDArray[np.float64]
    """(P, 3) x, y, z as they stand"""
    angles_deg: NDArray[np.float64] | None
    """(P, 3) rot, tilt, psi as they stand"""
    tomogram: tuple[str, ...] | None
    """(P,) names"""
    other: dict[str, tuple[str, ...]]
    """further columns as text"""


def read_coordinates(path: str | os.PathLike[str]) -> CoordinateTable:
    """Read a table of coordinates.

    Raises
    ------
    FormatError
        if a column is missing or named twice, rows differ in length, or a value is not a finite number.
    """
    file = read_text(path)
    rows = file.rows()
    if not rows:
        raise file.empty("rows of x y z")
    first = file.lines[rows[0]]
    separator = next((one for one in (",", ";", "\t") if one in first), None)
    split = [[token.strip().strip('"') for token in file.lines[row].split(separator)] for row in rows]
    named = not any(re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", token) for token in split[0])
    if named:
        names, rows, split = split[0], rows[1:], split[1:]
        if not rows:
            raise file.empty("rows of x y z after the line of names")
    elif len(split[0]) in (3, 6):
        names = ["x", "y", "z", "rot", "tilt", "psi"][: len(split[0])]
    else:
        raise file.error(
            "a line has the wrong number of values",
            rows[0],
            0,
            expected="3 (x y z) or 6 (x y z rot tilt psi), or a first line of names",
            found=f"{len(split[0])}: {first}",
        )
    for row, tokens in zip(rows, split, strict=True):
        if len(tokens) != len(names):
            file.tokens(row, names, separator=separator)
    place = _places(file, names)
    coordinate = _numbers(file, rows, split, [place["x"], place["y"], place["z"]], ("x", "y", "z"), separator)
    angles = None
    if {"rot", "tilt", "psi"} <= set(place):
        columns = [place["rot"], place["tilt"], place["psi"]]
        angles = _numbers(file, rows, split, columns, ("rot", "tilt", "psi"), separator)
    elif {"rot", "tilt", "psi"} & set(place):
        raise _missing(file, ("rot", "tilt", "psi"), names)
    tomogram = tuple(tokens[place["tomogram"]] for tokens in split) if "tomogram" in place else None
    other = {name: tuple(tokens[k] for tokens in split) for k, name in enumerate(names) if k not in set(place.values())}
    return CoordinateTable(file.path, coordinate, angles, tomogram, other)


def _places(file: TextFile, names: list[str]) -> dict[str, int]:
    place: dict[str, int] = {}
    for k, name in enumerate(names):
        for meaning, spellings in _NAMES.items():
            if name.lower().lstrip("_") in spellings:
                if meaning in place:
                    raise FormatError(
                        f"a column occurs twice: {meaning}",
                        where=file.where(file.rows()[0]),
                        found=f"{names[place[meaning]]} and {name}",
                        fix="take one of the two columns out, or rename it",
                    )
                place[meaning] = k
    if not {"x", "y", "z"} <= set(place):
        raise _missing(file, ("x", "y", "z"), names)
    return place


def _missing(file: TextFile, wanted: tuple[str, ...], names: list[str]) -> FormatError:
    return FormatError(
        "a column is missing",
        where=f"{file.where(file.rows()[0])}, column 1",
        expected=f"columns {', '.join(wanted)}",
        found=", ".join(names),
        fix="name the columns in the first line",
    )


def _numbers(
    file: TextFile,
    rows: list[int],
    split: list[list[str]],
    columns: list[int],
    names: tuple[str, ...],
    separator: str | None,
) -> NDArray[np.float64]:
    values = np.empty((len(rows), len(columns)))
    for i, (row, tokens) in enumerate(zip(rows, split, strict=True)):
        for j, (column, name) in enumerate(zip(columns, names, strict=True)):
            token = tokens[column]
            try:
                values[i, j] = float(token)
            except ValueError:
                values[i, j] = np.nan
            if "_" in token or not token.isascii() or not abs(values[i, j]) <= LARGEST:
                values[i, j] = file.number(row, token, name, column=file.column_of(row, column, separator))
    return values
