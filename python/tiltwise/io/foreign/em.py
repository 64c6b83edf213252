"""EM files, and the motive lists that AV3, TOM and cryoCAT keep in them.

A motive list is an array of 20 numbers per particle: 1 correlation, 4 particle number, 5 tomogram number, 6 object,
8-10 position in voxels of the tomogram from 1, 11-13 shift after rotation, 14-16 shift before rotation (not used),
17-19 phi, psi, theta in degrees, 20 class.  Reference to tomogram is Rz(psi) Rx(theta) Rz(phi).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import read_bytes

_TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
_BIG_ENDIAN_MACHINES = (0, 3, 5)
"""OS-9, SGI and Mac; 1 is VAX, whose numbers are not IEEE, 6 is the PC"""
_HEADER = 512


@dataclass(frozen=True, slots=True)
class EmMotives:
    """P particles."""

    path: str
    score: NDArray[np.float64]
    particle_number: NDArray[np.int64]
    tomogram_number: NDArray[np.int64]
    object_number: NDArray[np.int64]
    coordinate: NDArray[np.float64]
    """(P, 3) from 1"""
    shift: NDArray[np.float64]
    """(P, 3)"""
    angles_deg: NDArray[np.float64]
    """(P, 3) phi, psi, theta"""
    class_number: NDArray[np.int64]
    values: NDArray[np.float64]
    """(P, 20) the whole list"""


def read_em(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Values of an EM file, `(z, y, x)`; integers and floats of either byte order.

    Raises
    ------
    FormatError
        if the file is not an EM file, or holds fewer or more bytes than its head says.
    """
    name = os.fspath(path)
    raw = read_bytes(path)
    if len(raw) < _HEADER:
        raise FormatError(
            "an EM file is cut off",
            where=f"{name}, byte {len(raw)}",
            expected=f"a head of {_HEADER} bytes",
            fix="copy or write the file anew",
        )
    machine, kind = raw[0], raw[3]
    if kind not in _TYPES or machine not in (*_BIG_ENDIAN_MACHINES, 6):
        raise FormatError(
            "this is not an EM file that can be read",
            where=f"{name}, byte 1",
            expected="machine 0, 3, 5 or 6 and type 1, 2, 4, 5 or 9",
            found=f"machine {machine}, type {kind}",
            fix="write the list anew in EM format: real numbers, not complex ones",
        )
    order = ">" if machine in _BIG_ENDIAN_MACHINES else "<"
    width, height, depth = (int(value) for value in np.frombuffer(raw, f"{order}i4", 3, 4))
    dtype = np.dtype(f"{order}{_TYPES[kind]}")
    if min(width, height, depth) < 1 or len(raw) - _HEADER != width * height * depth * dtype.itemsize:
        raise FormatError(
            "an EM file has not the length its head says",
            where=f"{name}, byte {len(raw)}",
            expected=f"{width} x {height} x {depth} values of {dtype.itemsize} bytes after {_HEADER}",
            found=f"{len(raw)} bytes",
            fix="copy the file again",
        )
    return np.frombuffer(raw, dtype, offset=_HEADER).reshape(depth, height, width).astype(np.float64)


def read_motives(path: str | os.PathLike[str]) -> EmMotives:
    """Read a motive list.

    Raises
    ------
    FormatError
        if the file is no EM file, has not 20 numbers per particle, or a number is NaN, infinite, or not whole where it
        counts something.
    """
    name = os.fspath(path)
    array = read_em(path)
    if array.shape[0] != 1 or array.shape[2] != 20:
        raise FormatError(
            "an EM file is not a motive list",
            where=name,
            expected="20 x P x 1 numbers",
            found=" x ".join(map(str, array.shape[::-1])),
            fix="give a motive list of 20 rows, as AV3, TOM and cryoCAT write it",
        )
    values = array[0]
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise FormatError(
            "a number is NaN or infinite",
            where=f"{name}, particle {bad[0, 0] + 1}, row {bad[0, 1] + 1}",
            fix="correct this particle, or take it out of the list",
        )
    whole = {}
    for row in (4, 5, 6, 20):
        numbers = values[:, row - 1]
        wrong = np.flatnonzero(numbers != np.floor(numbers))
        if len(wrong):
            raise FormatError(
                "a number is not whole",
                where=f"{name}, particle {wrong[0] + 1}, row {row}",
                found=str(numbers[wrong[0]]),
                fix="correct this number: it counts tomograms, objects or classes",
            )
        whole[row] = numbers.astype(np.int64)
    return EmMotives(
        path=name,
        score=values[:, 0],
        particle_number=whole[4],
        tomogram_number=whole[5],
        object_number=whole[6],
        coordinate=values[:, 7:10],
        shift=values[:, 10:13],
        angles_deg=values[:, 16:19],
        class_number=whole[20],
        values=values,
    )
