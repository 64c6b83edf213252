"""IMOD's alignment of a tilt series: `.xf`, `.tlt`, `.rawtlt`, `.xtilt`; lists of acquisition order and of dose.

A line of `.xf` holds `A11 A12 A21 A22 DX DY`: the aligned image is `x' = A (x - c) + d + c'`, x in unbinned pixels of
the raw stack, c = ((W - 1) / 2, (H - 1) / 2) its centre and c' that of the aligned image.  One line per section of the
raw stack.  `.tlt`, `.rawtlt` and `.xtilt` hold one angle in degrees per section.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.foreign.text import read_text


@dataclass(frozen=True, slots=True)
class ImodTransforms:
    """`.xf`: raw section f to aligned image."""

    path: str
    matrix: NDArray[np.float64]
    """(F, 2, 2) A"""
    shift_px: NDArray[np.float64]
    """(F, 2) d, pixels of the aligned image"""

    @property
    def is_identity(self) -> NDArray[np.bool_]:
        """(F,) sections that were not aligned: IMOD and AreTomo write the identity for them."""
        return np.asarray((self.matrix == np.eye(2)).all((1, 2)) & (self.shift_px == 0).all(1))


@dataclass(frozen=True, slots=True)
class AcquisitionOrder:
    """Order list `number,angle`: row j was recorded j-th."""

    path: str
    tilt_deg: NDArray[np.float64]
    """(F,) stage angle, first recorded first"""


def read_xf(path: str | os.PathLike[str], views: int | None = None) -> ImodTransforms:
    """Read a `.xf` file; `views` is the number of sections of the stack, where it is known.

    Raises
    ------
    FormatError
        if a line has not six finite numbers, a matrix cannot be inverted, or lines are missing.
    """
    file = read_text(path)
    rows = file.rows()
    values = file.table(rows, ("A11", "A12", "A21", "A22", "DX", "DY"))
    matrix = values[:, :4].reshape(-1, 2, 2)
    singular = np.flatnonzero(np.abs(np.linalg.det(matrix)) < 1e-3)
    if len(singular):
        row = rows[int(singular[0])]
        raise file.error(
            "a transform cannot be inverted", row, 0, expected="a rotation, nearly", found=file.lines[row].strip()
        )
    file.count(len(rows), views, "transforms")
    return ImodTransforms(file.path, matrix, values[:, 4:])


def read_angles(path: str | os.PathLike[str], views: int | None = None) -> NDArray[np.float64]:
    """Read `.tlt`, `.rawtlt` or `.xtilt`: one angle per line, `(F,)` degrees; `views` as in `read_xf`.

    Raises
    ------
    FormatError
        if a line is not one number between -360 and 360, or lines are missing.
    """
    file = read_text(path)
    rows = file.rows()
    values = file.table(rows, ("angle",))[:, 0]
    for i in np.flatnonzero(np.abs(values) > 360):
        raise file.error("an angle is out of range", rows[int(i)], 0, expected="degrees", found=str(values[i]))
    file.count(len(rows), views, "angles")
    return values


def read_dose_list(path: str | os.PathLike[str], views: int | None = None) -> NDArray[np.float64]:
    """Read a list of one dose per section of the stack, `(F,)` e/Å^2.

    Raises
    ------
    FormatError
        if a line is not one number of zero or more, or lines are missing.
    """
    file = read_text(path)
    rows = file.rows()
    values = file.table(rows, ("dose",))[:, 0]
    for i in np.flatnonzero(values < 0):
        raise file.error("a dose is negative", rows[int(i)], 0, expected="0 or more", found=str(values[i]))
    file.count(len(rows), views, "doses")
    return values


def read_order_list(path: str | os.PathLike[str]) -> AcquisitionOrder:
    """Read a list `number,angle` (comma or blanks), one line per view in the order of recording.

    RELION-4 ignores the numbers and takes the order of the lines; a file in which the two disagree is refused.

    Raises
    ------
    FormatError
        if a line has not two numbers, or if the numbers do not grow by one from line to line.
    """
    file = read_text(path)
    rows = file.rows()
    if not rows:
        raise file.empty("lines of number,angle")
    angles = np.empty(len(rows))
    previous: float | None = None
    for i, row in enumerate(rows):
        separator = "," if "," in file.lines[row] else None
        tokens = file.tokens(row, ("number", "angle"), separator=separator)
        number = file.number(row, tokens[0], "number", column=file.column_of(row, 0, separator), whole=True)
        angles[i] = file.number(row, tokens[1], "angle", column=file.column_of(row, 1, separator))
        if previous is not None and number != previous + 1:
            raise file.error(
                "the lines of an order list are not in order",
                row,
                file.column_of(row, 0, separator),
                expected=f"number {previous + 1:.0f}",
                found=f"{number:.0f}",
                fix="sort the lines by acquisition and number them",
            )
        previous = number
    return AcquisitionOrder(file.path, angles)
