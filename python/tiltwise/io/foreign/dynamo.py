"""Dynamo's particle tables `.tbl` and the list of tomograms `.doc` that goes with one.

Position: columns 24-26 (x, y, z) plus 4-6 (dx, dy, dz), in voxels of the tomogram, counted from 1 as in MATLAB.
Orientation: columns 7-9, tdrot, tilt, narot in degrees; reference to tomogram is Rz(-tdrot) Rx(-tilt) Rz(-narot).
Column 20 is the number of the tomogram, 13-17 the missing wedge, 10 the cross-correlation.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.foreign.text import read_text

_COLUMNS = tuple(f"column {k}" for k in range(1, 51))
_LEAST = 26
_COMPLEX = re.compile(r"[+-]?[\d.]+(?:[eE][+-]?\d+)?[+-][\d.]+(?:[eE][+-]?\d+)?[ij]")


@dataclass(frozen=True, slots=True)
class DynamoTable:
    """P particles."""

    path: str
    tag: NDArray[np.int64]
    """(P,) column 1, unique"""
    shift: NDArray[np.float64]
    """(P, 3) dx, dy, dz"""
    angles_deg: NDArray[np.float64]
    """(P, 3) tdrot, tilt, narot"""
    correlation: NDArray[np.float64]
    tomogram_number: NDArray[np.int64]
    region: NDArray[np.int64]
    """(P,) column 21"""
    class_number: NDArray[np.int64]
    """(P,) column 22"""
    coordinate: NDArray[np.float64]
    """(P, 3) x, y, z from 1"""
    values: NDArray[np.float64]
    """(P, C) the whole table; of complex numbers the real part"""


@dataclass(frozen=True, slots=True)
class TomogramList:
    """Tomogram numbers and their files."""

    path: str
    names: dict[int, str]


def read_table(path: str | os.PathLike[str]) -> DynamoTable:
    """Read a Dynamo table of 26 to 50 columns; of complex numbers, which Dynamo writes at times, the real part counts.

    Raises
    ------
    FormatError
        if lines differ in length or hold something other than finite numbers, if tags, tomogram or class numbers are
        not whole, or if a tag occurs twice.
    """
    file = read_text(path)
    rows = file.rows(comment="%")
    if not rows:
        raise file.empty("lines of 26 or more numbers")
    real = [_real_parts(file.lines[row]) for row in rows]
    for row, text in zip(rows, real, strict=True):
        file.lines[row] = text
    values = file.table(rows, _COLUMNS, optional=len(_COLUMNS) - _LEAST)
    whole = {}
    for column in (1, 20, 21, 22):
        numbers = values[:, column - 1]
        bad = np.flatnonzero(numbers != np.floor(numbers))
        if len(bad):
            row = rows[int(bad[0])]
            raise file.error(
                "a number is not whole",
                row,
                file.column_of(row, column - 1),
                expected=f"a whole number (column {column})",
                found=str(numbers[bad[0]]),
            )
        whole[column] = numbers.astype(np.int64)
    tags, first, counts = np.unique(whole[1], return_index=True, return_counts=True)
    if (counts > 1).any():
        tag = tags[counts > 1][0]
        row = rows[int(np.flatnonzero(whole[1] == tag)[1])]
        again = rows[int(first[counts > 1][0])] + 1
        raise file.error("a tag occurs twice", row, 0, expected="every tag once", found=f"{tag}, also in line {again}")
    return DynamoTable(
        path=file.path,
        tag=whole[1],
        shift=values[:, 3:6],
        angles_deg=values[:, 6:9],
        correlation=values[:, 9],
        tomogram_number=whole[20],
        region=whole[21],
        class_number=whole[22],
        coordinate=values[:, 23:26],
        values=values,
    )


def read_tomogram_list(path: str | os.PathLike[str]) -> TomogramList:
    """Read a `.doc` (or `.vll` with numbers): `number file` in every line.

    Raises
    ------
    FormatError
        if a line has not a whole number and a name, or if a number occurs twice.
    """
    file = read_text(path)
    names: dict[int, str] = {}
    for row in file.rows():
        tokens = file.lines[row].split(None, 1)
        if len(tokens) != 2:
            raise file.error("a line has too few values", row, 0, expected="number file", found=file.lines[row])
        number = int(file.number(row, tokens[0], "number", column=file.column_of(row, 0), whole=True))
        if number in names:
            raise file.error("a tomogram number occurs twice", row, 0, found=str(number))
        names[number] = tokens[1].strip()
    if not names:
        raise file.empty("lines of number file")
    return TomogramList(file.path, names)


def _real_parts(line: str) -> str:
    if "i" not in line and "j" not in line:
        return line
    return _COMPLEX.sub(lambda match: re.sub(r"(?<=[\d.])[+-][\d.]+(?:[eE][+-]?\d+)?[ij]$", "", match[0]), line)
