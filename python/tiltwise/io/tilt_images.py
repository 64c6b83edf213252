"""Pixels of a tilt series, read where they are needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.io.mrc import ImageStack
from tiltwise.model import TiltSeries


class TiltImages:
    """Memory-mapped images of one tilt series, whether in one stack or in one file per tilt.

    Raises
    ------
    DataError
        if the images of the series are not at hand.
    """

    def __init__(self, series: TiltSeries) -> None:
        if not series.image_files:
            raise DataError(
                "the images of a tilt series are not at hand",
                where=series.name,
                fix="run in the project folder, or correct rlnMicrographName or rlnTomoTiltSeriesName",
            )
        self._series = series
        self._stacks: dict[str, ImageStack] = {}

    def window(self, tilt: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Part `[y, x]` of one tilt image, float32; reads only these pixels.

        Raises
        ------
        FormatError
            if the file is not a usable MRC file or has no such section.
        """
        path = self._series.image_files[tilt]
        stack = self._stacks.get(path)
        if stack is None:
            stack = self._stacks.setdefault(path, ImageStack(path))
        return stack.window(int(self._series.image_index[tilt]), rows, columns)

    def image(self, tilt: int) -> NDArray[np.float32]:
        """Whole tilt image `[y, x]`, float32."""
        return self.window(tilt, slice(None), slice(None))
