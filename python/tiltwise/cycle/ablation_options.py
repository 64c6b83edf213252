"""Options of `tiltwise ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.maps.options import ImageOptions


class AblateOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise ablate`."""

    command: ClassVar[str] = "ablate"

    before: Path = option(..., help="optimisation set with the values from before the corrections")
    first_poses: Path | None = option(
        None,
        group="advanced",
        help="optimisation set with the poses from before a first refinement, which are put back in a row of their own",
    )
    folds: int = option(5, ge=2, le=20, group="advanced", help="folds of each half set, see align")
