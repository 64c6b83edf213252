"""CTF tables as text: CTFFIND 4 and 5, and AreTomo's `_CTF.txt`.

Defocus in Å, underfocus positive; azimuth in degrees from x to the first defocus; phase shift in radians.  The first
column counts the micrographs of the stack from 1.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.foreign.text import TextFile, read_text

_COLUMNS = (
    "micrograph number",
    "defocus 1",
    "defocus 2",
    "azimuth",
    "phase shift",
    "cross correlation",
    "spacing",
    "column 8",
    "column 9",
    "column 10",
)


@dataclass(frozen=True, slots=True)
class CtffindTable:
    """CTF of F micrographs."""

    path: str
    program: Literal["CTFFIND", "AreTomo"]
    """AreTomo numbers the rows of its alignment, CTFFIND the sections of the stack it was given"""
    micrograph: NDArray[np.int64]
    """(F,) number in the stack, from 1"""
    defocus_angstrom: NDArray[np.float64]
    """(F, 2) defocus 1 and 2"""
    azimuth_deg: NDArray[np.float64]
    phase_shift_rad: NDArray[np.float64]
    correlation: NDArray[np.float64]
    fit_spacing_angstrom: NDArray[np.float64]
    """(F,) up to which rings were fitted; infinite where none was"""
    hand: NDArray[np.int64] | None
    """(F,) AreTomo3's defocus hand, +1 or -1"""
    tilt_deg: NDArray[np.float64] | None
    """(F,) tilt of the specimen that CTFFIND5 estimated"""
    thickness_angstrom: NDArray[np.float64] | None
    """(F,) thickness that CTFFIND5 estimated"""


def read_ctffind(path: str | os.PathLike[str], views: int | None = None) -> CtffindTable:
    """Read a CTF table; `views` is the number of sections of the stack, where it is known.

    Raises
    ------
    FormatError
        if a row has fewer than seven numbers, micrographs are not counted from 1, a defocus is zero, or rows are
        missing: fewer than the head says, or not as many as `views`.
    """
    file = read_text(path)
    rows = file.rows()
    values = file.table(rows, _COLUMNS, optional=3, infinite=("spacing",))
    for i in np.flatnonzero(values[:, 0] != np.arange(1, len(rows) + 1)):
        raise file.error(
            "micrographs are not counted from 1",
            rows[int(i)],
            0,
            expected=str(int(i) + 1),
            found=f"{values[i, 0]:g}",
            fix="use the table that the CTF program wrote for the whole stack",
        )
    for i in np.flatnonzero((values[:, 1:3] == 0).all(1)):
        raise file.error("a defocus is zero", rows[int(i)], file.column_of(rows[int(i)], 1), expected="Å")
    declared = _declared(file)
    if views is not None or len(rows) < (declared or 0):
        file.count(len(rows), declared if views is None else views, "micrographs")
    names = dict(_names(file))
    eighth = names.get(8, "").lower()
    return CtffindTable(
        path=file.path,
        program="AreTomo" if "[A]" in names.get(2, "") else "CTFFIND",
        micrograph=values[:, 0].astype(np.int64),
        defocus_angstrom=values[:, 1:3],
        azimuth_deg=values[:, 3],
        phase_shift_rad=values[:, 4],
        correlation=values[:, 5],
        fit_spacing_angstrom=values[:, 6],
        hand=values[:, 7].astype(np.int64) if values.shape[1] == 8 and "hand" in eighth else None,
        tilt_deg=values[:, 8] if values.shape[1] == 10 else None,
        thickness_angstrom=values[:, 9] if values.shape[1] == 10 else None,
    )


def _declared(file: TextFile) -> int | None:
    for line in file.lines:
        match = re.search(r"Number of micrographs:\s*(\d+)", line) if line.startswith("#") else None
        if match:
            return int(match[1])
    return None


def _names(file: TextFile) -> list[tuple[int, str]]:
    for line in file.lines:
        if line.startswith("#") and "Columns:" in line:
            return [(int(number), name.strip(" -;")) for number, name in re.findall(r"#(\d+)([^#]*)", line)]
    return []
