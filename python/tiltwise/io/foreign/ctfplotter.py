"""IMOD's `.defocus` files, written by Ctfplotter.

A row holds the first and last view and tilt angle it was fitted to, then the defocus in nm (underfocus positive) and,
as the flag of the first line says, a second defocus, the angle of astigmatism, a phase shift and a cut-on frequency.
Views are those of the aligned stack.  Versions 1 and 2 have defocus only, and version 1 counts views otherwise: views
should be found by angle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.foreign.text import TextFile, read_text

_RANGE = ("first view", "last view", "first angle", "last angle")


@dataclass(frozen=True, slots=True)
class CtfplotterTable:
    """R fitted ranges of views."""

    path: str
    version: int
    views: NDArray[np.int64]
    """(R, 2) first and last view of the fit"""
    tilt_deg: NDArray[np.float64]
    """(R, 2) their tilt angles; the signs are those of the tilt file"""
    defocus_nm: NDArray[np.float64]
    """(R, 2) twice the same where there is no astigmatism"""
    astigmatism_deg: NDArray[np.float64]
    """(R,) axis of the first defocus"""
    phase_shift_deg: NDArray[np.float64]
    """(R,)"""


def read_defocus(path: str | os.PathLike[str]) -> CtfplotterTable:
    """Read a `.defocus` file of version 1, 2 or 3; radians become degrees.

    Raises
    ------
    FormatError
        if a row has not the numbers that the first line announces, a range is reversed or a defocus is zero.
    """
    file = read_text(path)
    rows = file.rows()
    if not rows:
        raise file.empty("rows of view and angle ranges and defocus")
    first = file.lines[rows[0]].split()
    flags, version = 0, 1
    if len(first) == 6 and first[5] == "3":
        head = file.table(rows[:1], ("flags", "0", "0", "0", "0", "version"))[0]
        if head[0] != int(head[0]) or not 0 <= head[0] < 64:
            raise file.error(
                "the flags of the first line cannot be read", rows[0], 0, expected="0 to 63", found=first[0]
            )
        flags, version, rows = int(head[0]), 3, rows[1:]
        if not rows:
            raise file.empty("rows of view and angle ranges and defocus")
    values, version = _rows(file, rows, flags, version)
    views, angles = values[:, :2], values[:, 2:4]
    for i in np.flatnonzero((views != np.floor(views)).any(1) | (views[:, 0] > views[:, 1])):
        raise file.error("a range of views is not one", rows[int(i)], 0, found=file.lines[rows[int(i)]].strip())
    rest = list(values[:, 4:].T)
    defocus = rest.pop(0)
    second, axis = (rest.pop(0), rest.pop(0)) if flags & 1 else (defocus, np.zeros(len(rows)))
    phase = rest.pop(0) if flags & 4 else np.zeros(len(rows))
    for i in np.flatnonzero((defocus == 0) | (second == 0)):
        raise file.error("a defocus is zero", rows[int(i)], file.column_of(rows[int(i)], 4), expected="nm")
    return CtfplotterTable(
        path=file.path,
        version=version,
        views=views.astype(np.int64),
        tilt_deg=-angles if flags & 16 else angles,
        defocus_nm=np.stack([defocus, second], axis=1),
        astigmatism_deg=np.degrees(axis) if flags & 2 else axis,
        phase_shift_deg=np.degrees(phase) if flags & 8 else phase,
    )


def _rows(file: TextFile, rows: list[int], flags: int, version: int) -> tuple[NDArray[np.float64], int]:
    names = [*_RANGE, "defocus"]
    names += ["second defocus", "astigmatism angle"] if flags & 1 else []
    names += ["phase shift"] if flags & 4 else []
    names += ["cut-on frequency"] if flags & 32 else []
    if version == 3:
        return file.table(rows, names), version
    # The version of older files stands at the end of their first row.
    first = file.table(rows[:1], [*names, "version"], optional=1)
    if first.shape[1] == len(names) + 1:
        if first[0, -1] != 2:
            raise file.error(
                "the version of a defocus file is unknown",
                rows[0],
                file.column_of(rows[0], len(names)),
                expected="2, or 3 in a line of its own",
                found=f"{first[0, -1]:g}",
            )
        version, first = 2, first[:, :-1]
    if len(rows) == 1:
        return first, version
    return np.concatenate([first, file.table(rows[1:], names)]), version
