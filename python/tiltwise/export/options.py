"""Options of `tiltwise extract`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import model_validator

from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import BoxOptions


class ExtractOptions(ComputeOptions, BoxOptions, OutputOptions):
    """Options of `tiltwise extract`, named as those of relion_tomo_subtomo."""

    command: ClassVar[str] = "extract"
    ignored_flags: ClassVar[Mapping[str, int]] = {"--only-do-unfinished": 0}

    stack2d: bool = option(True, help="2D stacks, one image per visible tilt; --no-stack2d: pseudo-subtomograms")
    float16: bool = option(
        False, help="half-precision files; a file whose values do not fit into it is written in single precision"
    )
    min_frames: int = option(1, ge=1, help="particles seen in fewer tilts are left out")
    max_dose: float | None = option(
        None, unit="e/Å²", gt=0, help="tilts with a larger dose before their exposure are left out"
    )
    raw: bool = option(
        False,
        flags=("--raw", "--no-ctf"),
        help="2D images as they were recorded, neither multiplied by CTF nor by radiation damage",
    )
    apply_offsets: bool = option(
        True, group="advanced", help="boxes are centred on the particle; --no-apply-offsets: on its stored coordinate"
    )
    apply_orientations: bool = option(
        False, group="advanced", help="boxes of pseudo-subtomograms are turned as the particle is"
    )
    cutoff_fraction: float = option(
        0.01,
        flags=("--cutoff-fract",),
        ge=0,
        lt=1,
        group="advanced",
        help="pixels whose radiation damage weight is at most this stay out of pseudo-subtomograms",
    )

    @model_validator(mode="after")
    def _fitting(self) -> ExtractOptions:
        if self.raw and not self.stack2d:
            raise ConfigError(
                "pseudo-subtomograms are sums of CTF-multiplied images",
                where="--raw",
                fix="leave out --raw, or write 2D stacks",
            )
        if self.apply_orientations and (self.stack2d or not self.apply_offsets):
            raise ConfigError(
                "2D stacks have no orientation, and boxes that are turned are centred on the particle",
                where="--apply-orientations",
                fix="add --no-stack2d, without --no-apply-offsets; or leave out --apply-orientations",
            )
        return self
