"""A stack of images that is written image by image: it need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from tiltwise.files import atomic_path
from tiltwise.io.mrc import check_finite


class StackWriter:
    """Writes sections in any order; see `new_stack`."""

    def __init__(self, data: NDArray[np.float32], path: Path) -> None:
        self._data, self._path = data, path

    def write(self, first: int, images: NDArray[np.floating]) -> None:
        """Sections `first` to `first + len(images) - 1`, images `(n, y, x)`.

        Raises
        ------
        DataError
            if a value is NaN or infinite.
        """
        check_finite(images, str(self._path))
        self._data[first : first + len(images)] = images


@contextmanager
def new_stack(path: Path, shape: tuple[int, int, int], pixel_size: float) -> Iterator[StackWriter]:
    """Make a stack of `shape` (sections, rows, columns), float32, pixel size in Å; it appears when the block ends well.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    with atomic_path(path) as temporary, mrcfile.new_mmap(temporary, shape, mrc_mode=2, overwrite=True) as file:
        file.voxel_size = pixel_size
        file.header.ispg = 0
        file.header.label[:] = b""
        file.header.label[0] = b"tiltwise"
        file.header.nlabl = 1
        yield StackWriter(file.data, path)
