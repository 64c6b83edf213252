"""Two half maps from files, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, FormatError, ShapeError
from tiltwise.io.mrc import check_finite, read_map
from tiltwise.post.options import HalfMapOptions

HALF_NAMES = ("run_half1_class001_unfil.mrc", "half1.mrc")
"""First half maps as refinements and reconstructions name them."""
PIXEL_TOLERANCE = 1e-3
"""Relative difference of pixel sizes that headers of one map may have."""


@dataclass(frozen=True, slots=True)
class HalfMaps:
    """Maps of two independent halves of the data, `(N, N, N)` float32, axes z, y, x."""

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    pixel_size: float
    """Å"""
    paths: tuple[Path, Path]

    @property
    def size(self) -> int:
        """Voxels along each side."""
        return int(self.first.shape[0])

    @property
    def mean(self) -> NDArray[np.float32]:
        """Map of all data."""
        return np.asarray((self.first + self.second) / 2, dtype=np.float32)

    @property
    def noise(self) -> NDArray[np.float32]:
        """Half the difference: it has the noise of `mean` and no signal."""
        return np.asarray((self.first - self.second) / 2, dtype=np.float32)


def find_half_maps(options: HalfMapOptions) -> tuple[Path, Path] | None:
    """Paths of the half maps the options mean; None if `--i` is a single map.

    Raises
    ------
    FormatError
        if `--i` does not exist, is a folder without half maps, or a half map without its mate.
    """
    if options.half1 is not None and options.half2 is not None:
        return options.half1, options.half2
    path = options.input
    assert path is not None  # as the options were checked
    if not path.exists():
        raise FormatError(
            "there is no such file or folder",
            where=f"--i {path}",
            expected="the folder of a finished job, or a map",
            fix="check the name, and that the job has begun",
        )
    if options.half2 is not None:
        return path, options.half2
    if path.is_dir():
        found = [path / name for name in HALF_NAMES if (path / name).is_file()]
        if not found:
            raise FormatError(
                "no half maps in the folder",
                where=f"--i {path}",
                expected=" or ".join(HALF_NAMES),
                fix="check that the job has finished, or name the maps by --half1 and --half2",
            )
        path = found[0]
    for own, other in (("half1", "half2"), ("half2", "half1")):
        if own in path.name:
            mate = path.with_name(path.name.replace(own, other))
            if not mate.is_file():
                raise FormatError(
                    "a half map has no mate",
                    where=f"--i {path}",
                    expected=str(mate),
                    fix="name both maps by --half1 and --half2",
                )
            return (path, mate) if own == "half1" else (mate, path)
    return None


def load_half_maps(options: HalfMapOptions) -> HalfMaps:
    """Read and check the half maps the options mean.

    Raises
    ------
    FormatError, ShapeError, DataError
        if a file cannot be read or is a single map; if the maps are not cubes of one size and pixel size; if they
        are equal, empty, or hold NaN.
    """
    paths = find_half_maps(options)
    if paths is None:
        raise FormatError(
            "two half maps are needed",
            where=f"--i {options.input}",
            expected="a name with half1 or half2, and its mate beside it",
            fix="name both maps by --half1 and --half2",
        )
    (first, first_pixel), (second, second_pixel) = (read_cube(path, options.pixel_size) for path in paths)
    where = f"{paths[0]} and {paths[1]}"
    if first.shape != second.shape:
        raise ShapeError(
            "the half maps differ in size",
            where=where,
            expected="maps of one reconstruction",
            found=f"{len(first)} and {len(second)} voxels along each side",
            fix="give the two half maps of the same job",
        )
    if abs(first_pixel - second_pixel) > PIXEL_TOLERANCE * first_pixel:
        raise DataError(
            "the half maps differ in pixel size",
            where=where,
            expected="maps of one reconstruction",
            found=f"{first_pixel:g} and {second_pixel:g} Å",
            fix="give the two half maps of the same job, or the true pixel size by --angpix",
        )
    if np.array_equal(first, second):
        raise DataError(
            "the half maps are identical",
            where=where,
            expected="maps of independent halves of the data",
            found="the same value in every voxel",
            fix="give the other half map; a map compared with itself has no resolution",
        )
    return HalfMaps(first, second, first_pixel, paths)


def read_cube(path: Path, pixel_size: float | None = None) -> tuple[NDArray[np.float32], float]:
    """A cubic map with finite values that are not all equal, and its pixel size in Å (`pixel_size` if given).

    Raises
    ------
    FormatError, ShapeError, DataError
        if the file cannot be read, has no pixel size, is not a cube, or holds NaN or one value only.
    """
    values, own_pixel_size = read_map(path)
    if len(set(values.shape)) != 1:
        raise ShapeError(
            "a map must be cubic",
            where=str(path),
            expected="the same number of voxels along x, y and z",
            found=" x ".join(str(n) for n in values.shape[::-1]),
            fix="pad or crop it to a cube, particle in the centre",
        )
    check_finite(values, str(path))
    if not float(values.max()) > float(values.min()):
        raise DataError(
            "a map is empty",
            where=str(path),
            expected="density",
            found=f"{float(values.flat[0]):g} in every voxel",
            fix="repeat the job that wrote it",
        )
    pixel_size = pixel_size or own_pixel_size
    if not pixel_size > 0:
        raise FormatError(
            "the map has no pixel size", where=str(path), expected="a cell in the header", fix="give it by --angpix"
        )
    return values, pixel_size
