"""Options of `tiltwise cycle` and `tiltwise polish`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import ImageOptions


class CycleOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise cycle`; --b and --crop are those of --bin 1, and shrink with the binning."""

    command: ClassVar[str] = "cycle"

    reference: Path | None = option(
        None,
        flags=("--ref", "--in-3dref"),
        help="starting map of a first refinement; without one, the poses in the file are where the cycle starts",
    )
    ini_high: float = option(60.0, unit="Å", gt=0, help="low-pass filter of the starting map")
    rounds: int = option(3, flags=("--n", "--rounds"), ge=1, le=10, help="rounds at most")
    bins: str | None = option(
        None,
        help="binning of the rounds, as 4,2,1: the first refinement has the first; default: --bin, then half of it "
        "when the resolution comes near what pixels allow",
    )
    order: Literal["ctf,align", "align,ctf", "ctf", "align"] = option(
        "align,ctf",
        help="what every round does to the tilt series, and in which order: contrast fitted to tilts that are not "
        "aligned is too small",
    )
    motion: bool = option(True, help="fit the motion of particles in alignments")
    deformation: Literal["none", "affine", "fourier", "spline"] = option(
        "none", help="deformation of the tilt images in alignments"
    )
    even_order: int = option(0, ge=0, le=8, group="advanced", help="even aberrations in CTF refinements; 0: none")
    odd_order: int = option(0, ge=0, le=7, group="advanced", help="odd aberrations in CTF refinements; 0: none")
    ablation: bool = option(
        True,
        help="at the end, put back every family of corrections by itself and measure what it bought; about as long as "
        "two reconstructions for each",
    )
    healpix_order: int = option(2, ge=0, le=7, group="advanced", help="angular sampling of the first refinement")
    auto_local_healpix_order: int = option(
        4, ge=1, le=9, group="advanced", help="HEALPix order of searches near the last orientations"
    )
    offset_range_px: float = option(
        5.0, flags=("--offset-range-px", "--offset-range"), unit="px", gt=0, group="advanced", help="search for shifts"
    )
    folds: int | None = option(None, ge=0, le=20, group="advanced", help="folds of refinements, see refine")

    @field_validator("bins")
    @classmethod
    def _numbers(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                numbers = [float(word) for word in value.split(",")]
            except ValueError:
                raise ValueError("numbers as 4,2,1") from None
            if not all(one >= 1 for one in numbers):
                raise ValueError("numbers of at least 1")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> CycleOptions:
        if self.bins is not None and "binning" in self.model_fields_set:
            raise ConfigError("the binning is given twice", where="--bins, --bin", fix="leave one out")
        return self

    @property
    def binnings(self) -> list[float]:
        """Of the rounds, where they are given."""
        return [] if self.bins is None else [float(word) for word in self.bins.split(",")]


class PolishOptions(CycleOptions):
    """Options of `tiltwise polish`: the cycle on the newest refinement of a RELION project."""

    command: ClassVar[str] = "polish"

    rounds: int = option(1, flags=("--n", "--rounds"), ge=1, le=10, help="rounds at most")
