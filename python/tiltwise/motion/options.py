"""Options of `tiltwise align`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import ImageOptions


class AlignOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise align`."""

    command: ClassVar[str] = "align"

    motion: bool = option(False, help="fit the motion of the particles too")
    deformation: Literal["none", "affine", "fourier", "spline"] = option(
        "none", help="fit a deformation of the tilt images in their plane too, and of which form"
    )
    deformation_per: Literal["series", "tilt"] = option(
        "series", help="fit one deformation for all tilts of a series, or one for every tilt"
    )
    deformation_grid: int | None = option(
        None,
        ge=2,
        le=8,
        group="advanced",
        help="nodes of a spline along each axis, or the grid that RELION counts waves by; default: 3, or 4 for waves",
    )
    deformation_sigma: float | None = option(
        None,
        unit="Å",
        gt=0,
        group="advanced",
        help="expected displacement of deformations, root mean square over the image; default: learned from the data",
    )
    shift_only: bool = option(False, flags=("--shift-only",), help="fit one shift per tilt image and nothing else")
    shift_by: Literal["auto", "images", "particles"] = option(
        "auto",
        flags=("--shift-by",),
        group="advanced",
        help="--shift-only: images predicts whole tilt images first and finds shifts of any size; particles looks as "
        "far as --range, which is safer in a crowd or a lattice; auto: images where particles lie apart",
    )
    fit_range: float = option(
        40.0, flags=("--range",), unit="Å", gt=0, help="largest displacement in an image that is looked for"
    )
    range_px: float | None = option(
        None, flags=("--r",), unit="px", gt=0, group="advanced", help="the same in unbinned pixels, instead of --range"
    )
    rounds: int = option(
        2, ge=1, le=10, help="times references are made anew from the alignment found so far, and fitted against"
    )
    folds: int = option(
        5,
        ge=1,
        le=20,
        group="advanced",
        help="parts of each half set; a particle is predicted from its own half without its own part. "
        "1 predicts it from the whole half, which pulls it back to where it was",
    )
    fit_angles: bool = option(True, group="advanced", help="fit the angles of the tilts")
    fit_shifts: bool = option(True, group="advanced", help="fit the shifts of the tilts")
    fit_positions: bool = option(True, group="advanced", help="fit the positions of the particles")
    velocity: float | None = option(
        None,
        flags=("--s-vel",),
        unit="Å per e/Å²",
        gt=0,
        help="standard deviation of the velocity of particles; default: learned from the data",
    )
    divergence: float | None = option(
        None,
        flags=("--s-div",),
        unit="Å",
        gt=0,
        help="distance over which velocities of particles are alike; default: learned from the data",
    )
    position_sigma: float = option(
        15.0, unit="Å", gt=0, group="advanced", help="width of the prior on displacements of particles, along each axis"
    )
    kernel: Literal["gaussian", "exponential"] = option(
        "gaussian", group="advanced", help="how the likeness of velocities falls with distance (Eq. 38 or 39)"
    )
    solver: Literal["gauss-newton", "l-bfgs"] = option(
        "gauss-newton", group="advanced", help="how the fit climbs; l-bfgs is the method of the paper, and slower"
    )
    reference1: Path | None = option(
        None, flags=("--ref1",), group="advanced", help="half map 1, instead of references made from the particles"
    )
    reference2: Path | None = option(None, flags=("--ref2",), group="advanced", help="half map 2")
    opposite_half: bool = option(
        False, group="advanced", help="with --ref1 and --ref2: predict particles from the other half"
    )
    force: bool = option(False, help="apply what was fitted even where held-out data do not support it")

    @model_validator(mode="after")
    def _possible(self) -> AlignOptions:
        if (self.reference1 is None) != (self.reference2 is None):
            raise ConfigError(
                "one half map is missing",
                where="--ref1, --ref2",
                expected="both, or neither: then references are made from the particles",
                found="--ref1 alone" if self.reference2 is None else "--ref2 alone",
                fix="give the other one too, or leave both out",
            )
        if self.shift_only and self.motion:
            raise ConfigError(
                "--shift-only and --motion exclude each other", where="--shift-only", fix="leave one of them out"
            )
        if self.shift_by != "auto" and not self.shift_only:
            raise ConfigError("--shift-by is for --shift-only", where="--shift-by", fix="add --shift-only")
        if self.shift_only and self.deformation != "none":
            raise ConfigError(
                "--shift-only and --deformation exclude each other", where="--shift-only", fix="leave one of them out"
            )
        if self.deformation == "fourier" and self.grid_of_deformation < 4:
            raise ConfigError(
                "a grid of waves is too small",
                where="--deformation-grid",
                expected="at least 4: smaller grids lack waves along one axis",
                found=str(self.deformation_grid),
                fix="use --deformation-grid 4, or --deformation spline",
            )
        if self.shift_only and not self.fit_shifts:
            raise ConfigError(
                "--shift-only and --no-fit-shifts leave nothing to fit",
                where="--shift-only",
                fix="leave one of them out",
            )
        if not (self.fit_angles or self.fit_shifts or self.fit_positions or self.motion or self.deformation != "none"):
            raise ConfigError(
                "nothing is left to fit",
                where="--no-fit-angles, --no-fit-shifts, --no-fit-positions",
                fix="leave one of them out, or add --motion",
            )
        return self

    @property
    def grid_of_deformation(self) -> int:
        """As given, else the smallest that serves."""
        return self.deformation_grid or (4 if self.deformation == "fourier" else 3)
