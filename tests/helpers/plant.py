"""Mistakes of conventions planted in the metadata of simulated sets: one change of STAR files each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiltwise.io.star import StarBlock, read_star, write_star

CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")


@dataclass(frozen=True)
class Plant:
    """One mistake: which file and block it changes, and the code that names it."""

    name: str
    code: str
    file: str
    """`particles`, `tomograms`, or `tilts` for the table of every series"""
    change: Callable[[StarBlock, float, np.ndarray], None]
    """given the block, the pixel size in Å and the tomogram size (3,) in pixels"""


def _scale(factor: Callable[[float], float]) -> Callable[[StarBlock, float, np.ndarray], None]:
    def change(block: StarBlock, pixel: float, size: np.ndarray) -> None:
        for label in CENTRED:
            block.set_floats(label, block.floats(label) * factor(pixel))

    return change


def _move(shift_px: Callable[[np.ndarray], np.ndarray]) -> Callable[[StarBlock, float, np.ndarray], None]:
    def change(block: StarBlock, pixel: float, size: np.ndarray) -> None:
        for label, shift in zip(CENTRED, shift_px(size), strict=True):
            block.set_floats(label, block.floats(label) + shift * pixel)

    return change


def _negate(label: str) -> Callable[[StarBlock, float, np.ndarray], None]:
    return lambda block, pixel, size: block.set_floats(label, -block.floats(label))


def _swap_shifts(block: StarBlock, pixel: float, size: np.ndarray) -> None:
    x, y = (block.floats(f"rlnTomo{axis}ShiftAngst") for axis in "XY")
    block.set_floats("rlnTomoXShiftAngst", y)
    block.set_floats("rlnTomoYShiftAngst", x)


def _reverse_dose(block: StarBlock, pixel: float, size: np.ndarray) -> None:
    dose = block.floats("rlnMicrographPreExposure")
    block.set_floats("rlnMicrographPreExposure", dose.max() - dose)


PLANTS = (
    Plant("hand", "TW-CONV-01", "tomograms", _negate("rlnTomoHand")),
    Plant("sign of tilt", "TW-CONV-02", "tilts", _negate("rlnTomoYTilt")),
    Plant("swapped x/y shifts", "TW-CONV-04", "tilts", _swap_shifts),
    Plant("corner for centre", "TW-CONV-07", "particles", _move(lambda size: size / 2)),
    Plant("1 px", "TW-CONV-08", "particles", _move(lambda size: np.full(3, -1.0))),
    Plant("wrong binning", "TW-CONV-05", "particles", _scale(lambda pixel: 0.5)),
    Plant("Å for px", "TW-CONV-06", "particles", _scale(lambda pixel: 1.0 / pixel)),
    Plant("dose reversed", "TW-CONV-09", "tilts", _reverse_dose),
)


def plant(data: Path, folder: Path, *mistakes: Plant) -> Path:
    """A copy of the metadata of a simulated set with mistakes; its optimisation set.  Images are not copied."""
    folder.mkdir(parents=True)
    (folder / "tilt_series").mkdir()
    table = read_star(data / "tomograms.star")["global"]
    pixel = float(table.floats("rlnTomoTiltSeriesPixelSize")[0])
    size = np.array([table.floats(f"rlnTomoSize{axis}")[0] for axis in "XYZ"])
    for path in [*data.glob("*.star"), *(data / "tilt_series").glob("*.star")]:
        target = folder / path.relative_to(data)
        shutil.copy(path, target)
        text = target.read_text().replace(str(data), str(folder)).replace(f"{folder}/tilt_series/TS", "@@TS")
        # Tables and particles are those of the copy, images those of the original.
        text = "".join(
            line.replace("@@TS", f"{folder if '.star' in line else data}/tilt_series/TS")
            for line in text.splitlines(keepends=True)
        )
        target.write_text(text)
        kind = "tilts" if path.parent.name == "tilt_series" else path.stem
        for mistake in (one for one in mistakes if one.file == kind):
            document = read_star(target)
            block = document["particles" if kind == "particles" else "global" if kind == "tomograms" else path.stem]
            mistake.change(block, pixel, size)
            write_star(target, document)
    return folder / "optimisation_set.star"
