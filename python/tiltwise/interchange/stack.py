"""The raw stack of a tilt series, and the sizes that it or the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltwise.errors import DataError
from tiltwise.interchange.options import ImportOptions
from tiltwise.io.mrc import read_header


@dataclass(frozen=True, slots=True)
class Stack:
    """A raw stack on disk."""

    path: Path
    image_size: tuple[int, int]
    """(width, height)"""
    pixel_size: float
    """Å, 0 where the header has none"""

    def files(self, count: int) -> tuple[str, ...]:
        """The file, for every one of `count` views."""
        return (str(self.path.resolve()),) * count


def find_stack(folder: Path, names: Sequence[str], sections: int | None) -> Stack | None:
    """First of `names` that is in the folder; `sections` is what the alignment says, where it does.

    Raises
    ------
    FormatError, DataError
        if it cannot be read or has another number of sections.
    """
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    header = read_header(path)
    count, height, width = header.shape
    if sections is not None and count != sections:
        raise DataError(
            "the raw stack does not fit the alignment",
            where=str(path),
            expected=f"{sections} sections",
            found=str(count),
            fix="put the stack that was aligned beside the alignment",
        )
    return Stack(path, (width, height), header.pixel_size[0])


def pixel_size_of(options: ImportOptions, stack: Stack | None, where: str, project: float | None = None) -> float:
    """Å per unbinned pixel: `--angpix`, else that of the project, else that of the stack.

    Raises
    ------
    DataError
        if none is known; a header of 1 Å is taken for unset, as programs write it.
    """
    if options.pixel_size is not None:
        return options.pixel_size
    if project is not None:
        return project
    if stack is not None and stack.pixel_size > 0 and stack.pixel_size != 1.0:
        return stack.pixel_size
    raise DataError(
        "the pixel size is not known",
        where=where,
        expected="a pixel size in the header of the raw stack, or of the project",
        fix="give --angpix",
    )
