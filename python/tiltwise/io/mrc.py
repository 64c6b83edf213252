"""MRC maps and image stacks.

Headers are interpreted here, with the layout from `mrcfile`, and not by `mrcfile.open`: real files lack the
machine stamp or the `MAP ` mark (IMOD, old CCP4), which there costs a warning and a guess, and a truncated
file must be an error that says how many bytes are missing.  Data are memory-mapped; writing is `mrcfile`'s,
with the labels (they hold the time) replaced, so that equal maps give equal files.

Arrays are `[z, y, x]`; pixel sizes in Å.  As RELION does, files are written with space group 0.
Accepted names: `map.mrc`, `stack.mrcs`, `series.st`, and `series.st:mrc` (RELION's way to say that a file is
MRC whatever its ending); image names in STAR files may carry a section, `000001@stack.mrcs`, counted from 1.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from tiltwise.errors import DataError, FormatError
from tiltwise.files import atomic_path

HEADER_BYTES = 1024
FLOAT16_MAX = 65504.0
FLOAT16_TINY = 2.0**-14
"""Smallest normal float16; RELION reads anything smaller as zero."""

_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_REFUSED = {
    3: ("16-bit complex numbers", "write the image in real space"),
    4: ("complex numbers", "write the image in real space"),
    16: ("RGB colours", "write a grey-scale image"),
    101: ("4-bit integers", "unpack it to bytes or float32, for example with IMOD's `newstack -mode 2`"),
}


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What the header of an MRC file says, checked against the size of the file."""

    path: str
    shape: tuple[int, int, int]
    """(sections, rows, columns)"""
    dtype: np.dtype[np.generic]
    """type of the data in the file, with its byte order"""
    offset: int
    """bytes before the data: header and extended header"""
    pixel_size: tuple[float, float, float]
    """(x, y, z) in Å, 0 where the header has none"""
    axes: tuple[int, int, int]
    """axis (1 x, 2 y, 3 z) along sections, rows, columns: (3, 2, 1) ordinarily"""


def split_image_name(name: str) -> tuple[str, int | None]:
    """Path and 0-based section of an image name: `3@a.mrcs` gives `("a.mrcs", 2)`, `a.st:mrc` `("a.st", None)`.

    Raises
    ------
    FormatError
        if the part before `@` is not a number from 1.
    """
    section: int | None = None
    number, at, rest = name.partition("@")
    if at:
        if not number.isdigit() or int(number) < 1:
            raise FormatError(
                "an image name cannot be read",
                expected="N@stack.mrcs with N from 1",
                found=name,
                fix="write the number of the image, an @, and the file",
            )
        section, name = int(number) - 1, rest
    stem, colon, kind = name.rpartition(":")
    if colon and kind in ("mrc", "mrcs"):
        name = stem
    return name, section


def read_header(path: str | os.PathLike[str]) -> MrcHeader:
    """Header of an MRC file.

    Raises
    ------
    FormatError
        if the file is missing, is not MRC, has a pixel type that cannot be used, or is truncated.
    """
    name = split_image_name(os.fspath(path))[0]
    try:
        with Path(name).open("rb") as file:
            raw = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise FormatError(
            "an MRC file cannot be read", where=name, found=error.strerror or str(error), fix="check the path"
        ) from error
    if len(raw) < HEADER_BYTES:
        raise FormatError(
            "an MRC file is truncated",
            where=name,
            expected=f"a header of {HEADER_BYTES} bytes",
            found=f"{size} bytes",
            fix="copy the file again, or repeat the job that wrote it",
        )
    header = _in_its_byte_order(raw, name)
    mode = int(header["mode"])
    if mode in _REFUSED:
        content, fix = _REFUSED[mode]
        raise FormatError(
            "the pixel type of an MRC file is not supported",
            where=name,
            expected="mode 0, 1, 2, 6 or 12 (8- and 16-bit integers, float32, float16)",
            found=f"mode {mode} ({content})",
            fix=fix,
        )
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    offset = HEADER_BYTES + int(header["nsymbt"])
    dtype = np.dtype(_DTYPES[mode]).newbyteorder(header.dtype["nx"].byteorder)
    expected = offset + shape[0] * shape[1] * shape[2] * dtype.itemsize
    if size < expected:
        raise FormatError(
            "an MRC file is truncated",
            where=name,
            expected=f"{expected} bytes ({shape[2]} x {shape[1]} x {shape[0]} pixels of mode {mode})",
            found=f"{size} bytes",
            fix="copy the file again, or repeat the job that wrote it",
        )
    cell = [float(header["cella"][axis]) for axis in "xyz"]
    samples = [int(header[label]) for label in ("mx", "my", "mz")]
    pixel = tuple(c / m if m > 0 and np.isfinite(c) and c > 0 else 0.0 for c, m in zip(cell, samples, strict=True))
    axes = (int(header["maps"]), int(header["mapr"]), int(header["mapc"]))
    if axes == (0, 0, 0):
        axes = (3, 2, 1)
    if sorted(axes) != [1, 2, 3]:
        raise FormatError(
            "the axes of an MRC file make no sense",
            where=name,
            expected="a permutation of 1, 2, 3",
            found=str(axes),
            fix="write the file anew, such as with newstack of IMOD: its header is damaged",
        )
    return MrcHeader(name, shape, dtype, offset, (pixel[0], pixel[1], pixel[2]), axes)


def read_map(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], float]:
    """Volume `[z, y, x]` as float32, and its pixel size in Å (0.0 if the header has none).

    Raises
    ------
    FormatError
        if the file cannot be read (see `read_header`) or its voxels are not cubes.
    """
    header = read_header(path)
    x, y, z = header.pixel_size
    if max(x, y, z) - min(x, y, z) > 1e-3 * max(x, y, z):
        raise FormatError(
            "the voxels of a map are not cubes",
            where=header.path,
            expected="the same pixel size along x, y and z",
            found=f"{x:g}, {y:g}, {z:g} Å",
            fix="correct the cell in the header, or resample the map",
        )
    # Axis k of the file (sections, rows, columns) runs along x, y or z as `axes` says.
    order = [header.axes.index(axis) for axis in (3, 2, 1)]
    # A copy: the array must not change, nor crash the process, when the file is written again.
    return np.array(_map_file(header).transpose(order), dtype=np.float32, order="C"), x


def write_map(
    path: str | os.PathLike[str],
    array: NDArray[np.floating],
    pixel_size: float,
    mode: Literal["float32", "float16"] = "float32",
) -> None:
    """Write a volume `[z, y, x]` or a stack of images `[n, y, x]`, atomically; equal input gives equal bytes.

    Parameters
    ----------
    array
        three axes, real, finite.
    pixel_size
        Å.
    mode
        `float16` halves the file.  Values below 6.1e-5 become zero, as for every reader that follows RELION.

    Raises
    ------
    DataError
        if a value is NaN or infinite, or float16 would lose more than its own rounding.
    OutputError
        if the file cannot be written.
    """
    if array.ndim != 3:
        raise ValueError(f"a map has three axes, this array has {array.ndim}")
    check_finite(array, str(path))
    data = _to_float16(array, str(path)) if mode == "float16" else np.asarray(array, np.float32)
    with atomic_path(Path(path)) as temporary, mrcfile.new(temporary, overwrite=True) as file:
        file.set_data(data)
        file.voxel_size = pixel_size
        file.header.ispg = 0
        file.header.label[:] = b""
        file.header.label[0] = b"tiltwise"
        file.header.nlabl = 1


def check_finite(array: NDArray[np.floating], where: str) -> None:
    """Refuse NaN and infinite values.

    Raises
    ------
    DataError
        with their number and the index of the first.
    """
    finite = np.isfinite(array)
    if finite.all():
        return
    first = np.argwhere(~finite)[0]
    raise DataError(
        "an image or map holds NaN or infinite values",
        where=where,
        expected="finite values",
        found=f"{int((~finite).sum())} of {array.size}, first at index {first.tolist()} (z, y, x)",
        fix="repeat the job that wrote it",
    )


class ImageStack:
    """Memory-mapped sections of an MRC file; only what is asked for is read from disk.

    A context manager; `close` releases the map.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.header = read_header(path)
        if self.header.axes != (3, 2, 1):
            raise FormatError(
                "the axes of an image stack are permuted",
                where=self.header.path,
                expected="columns, rows and sections along x, y, z",
                found=f"along {self.header.axes[::-1]}",
                fix="rewrite the stack in the ordinary order",
            )
        self._data: NDArray[np.generic] | None = _map_file(self.header)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(sections, rows, columns)"""
        return self.header.shape

    @property
    def pixel_size(self) -> float:
        """Å along x, 0.0 if the header has none."""
        return self.header.pixel_size[0]

    def __len__(self) -> int:
        return self.header.shape[0]

    def section(self, index: int) -> NDArray[np.float32]:
        """Image `[y, x]` of a 0-based section, float32.

        Raises
        ------
        FormatError
            if there is no such section.
        """
        return self.window(index, slice(None), slice(None))

    def window(self, index: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Part of a section, float32; reads only these pixels.

        Raises
        ------
        FormatError
            if there is no such section.
        """
        if self._data is None:
            raise ValueError("the stack is closed")
        if not 0 <= index < len(self):
            raise FormatError(
                "an image stack has no such section",
                where=self.header.path,
                expected=f"sections 1 to {len(self)}",
                found=str(index + 1),
                fix="check image names and frame counts in the STAR file",
            )
        return single(self._data[index, rows, columns])

    def close(self) -> None:
        """Release the file."""
        self._data = None

    def __enter__(self) -> ImageStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stack(path: str | os.PathLike[str]) -> ImageStack:
    """Memory-mapped reader of an image stack or volume.

    Raises
    ------
    FormatError
        as `read_header`.
    """
    return ImageStack(path)


def single(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """A copy in single precision; of half precision three to four times as fast as NumPy's.

    The bits of a half-precision number, moved to where single precision has them, are those of the number over 2^112.
    """
    if pixels.dtype == np.dtype("<f2") and sys.byteorder == "little":
        bits = pixels.view(np.int16).astype(np.int32)  # the sign fills the upper bits
        bits <<= 13
        bits &= np.int32(-0x70002000)  # 1000 1111 1111 1111 1110 ...: sign, exponent, fraction
        values = bits.view(np.float32)
        values *= np.float32(2.0**112)
        # infinities and NaN would become larger numbers
        if values.size == 0 or max(values.max(), -values.min()) <= FLOAT16_MAX:
            return values
    return np.array(pixels, dtype=np.float32)


def _map_file(header: MrcHeader) -> NDArray[np.generic]:
    # The plain array of it: slicing objects of class memmap costs more than the pixels.
    return np.asarray(np.memmap(header.path, header.dtype, "r", header.offset, header.shape))


def _in_its_byte_order(raw: bytes, name: str) -> NDArray[np.void]:
    header = np.frombuffer(raw, HEADER_DTYPE).reshape(())
    stamp = bytes(raw[212:214])
    orders = {b"\x44\x41": "<", b"\x44\x44": "<", b"\x11\x11": ">"}
    # A missing or wrong stamp is common; only one byte order makes sense of the sizes and the mode.
    candidates = [orders[stamp]] if stamp in orders else []
    candidates += [order for order in "<>" if order not in candidates]
    for order in candidates:
        view: NDArray[np.void] = header.view(HEADER_DTYPE.newbyteorder(order))
        sizes = [int(view[label]) for label in ("nx", "ny", "nz")]
        known = int(view["mode"]) in _DTYPES or int(view["mode"]) in _REFUSED
        if known and min(sizes) > 0 and max(sizes) < 2**20 and 0 <= int(view["nsymbt"]) < 2**31 - 1:
            return view
    raise FormatError(
        "this is not an MRC file",
        where=name,
        expected="an MRC header with known mode and positive sizes",
        found=f"first numbers {[int(header[label]) for label in ('nx', 'ny', 'nz', 'mode')]}",
        fix="check the file name",
    )


def _to_float16(array: NDArray[np.floating], where: str) -> NDArray[np.float16]:
    magnitude = np.abs(array)
    if magnitude.size and float(magnitude.max()) > FLOAT16_MAX:
        raise DataError(
            "values are too large for float16",
            where=where,
            expected=f"at most {FLOAT16_MAX:g}",
            found=f"{float(magnitude.max()):g}",
            fix="write float32",
        )
    tiny = magnitude < FLOAT16_TINY
    lost = float(np.sum(np.square(magnitude, where=tiny, out=np.zeros(array.shape, np.float64))))
    total = float(np.sum(np.square(magnitude, dtype=np.float64)))
    # float16 keeps 11 bits: losing more than 2^-11 of the rms to flushed small values is worse than its rounding.
    if lost > total * 2.0**-22:
        raise DataError(
            "values are too small for float16",
            where=where,
            expected=f"little below {FLOAT16_TINY:.1e}, which RELION reads as zero",
            found=f"rms {np.sqrt(total / max(array.size, 1)):.1e}",
            fix="write float32, or multiply the values",
        )
    return np.where(tiny, 0.0, array).astype(np.float16)
