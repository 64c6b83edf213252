"""Text of single STAR values: quoting, numbers, vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError


def quote(value: str) -> str:
    """Value as a token: quoted if it is empty, contains a blank, or would be taken for something else.

    Raises
    ------
    DataError
        if no quoting can carry the value (line breaks, or both kinds of quotes where they matter).
    """
    taken = ("#", "'", '"', "_", "data_", "loop_")
    needs = not value or value.startswith(taken) or any(c.isspace() for c in value)
    if not needs:
        return value
    for mark in ('"', "'"):
        if mark not in value and not any(c in value for c in "\n\r\0"):
            return f"{mark}{value}{mark}"
    raise DataError("a text cannot be written to a STAR file", found=repr(value), fix="rename it without quotes")


def unquote(token: str) -> str:
    """Token without its quotes."""
    if len(token) >= 2 and token[0] in "'\"" and token[-1] == token[0]:
        return token[1:-1]
    return token


def format_number(value: float) -> str:
    """Number with six decimals, or ten significant digits where that would lose precision.

    RELION writes negative numbers with five decimals; six are kept here for both signs.

    Raises
    ------
    DataError
        if the number is NaN or infinite.
    """
    number = float(value)
    if not math.isfinite(number):
        raise DataError("a result to be written is NaN or infinite", found=str(number))
    magnitude = abs(number)
    if magnitude == 0:
        return "0.000000"
    if 1e-3 <= magnitude < 1e9:
        return f"{number:.6f}"
    return f"{number:.9e}"


def format_vector(values: Sequence[float] | NDArray[np.generic]) -> str:
    """Vector `[a,b,c]` with 12 significant digits and no blanks, `[]` when empty.

    Raises
    ------
    DataError
        if a number is NaN or infinite.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("a result to be written is NaN or infinite", found=str(array.tolist()))
    if array.dtype.kind in "biu":
        return "[" + ",".join(str(int(value)) for value in array) + "]"
    return "[" + ",".join(f"{float(value):.12g}" for value in array) + "]"
