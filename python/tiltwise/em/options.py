"""Options of `tiltwise reconstruct` and `tiltwise refine`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from tiltwise.config import ComputeOptions, InputOptions, OutputOptions, option
from tiltwise.errors import ConfigError


def _symmetry(name: str) -> str:
    upper = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9]\d?|T|O|I[1-4]?", upper):
        raise ValueError("C1, C2, ..., D2, ..., T, O, I or I1 to I4")
    return upper


SymmetryName = Annotated[str, AfterValidator(_symmetry)]


class ImageOptions(InputOptions):
    """Which part of the data is used, and in which boxes."""

    box: int = option(..., flags=("--b",), unit="px", ge=4, help="box cut from the binned tilt images, before cropping")
    crop: int | None = option(
        None, unit="px", ge=4, help="box of the map; the images are cut at --b and cropped; default: --b"
    )
    binning: float = option(1.0, flags=("--bin",), ge=1, help="binning of the tilt images")
    coordinate_binning: float | None = option(
        None,
        gt=0,
        group="advanced",
        help="unbinned pixels per unit of rlnCoordinateX/Y/Z, for coordinates in binned pixels",
    )
    symmetry: SymmetryName = option("C1", flags=("--sym",), help="point group of the particle")
    particle_diameter: float | None = option(
        None, unit="Å", gt=0, help="diameter of the sphere that holds the particle; default: as large as the box allows"
    )
    mask: Path | None = option(
        None, flags=("--mask", "--in-mask", "--solvent-mask"), help="mask of the particle (MRC, 0 to 1) for FSC and map"
    )
    split: Literal["auto", "keep", "random"] = option(
        "auto",
        group="advanced",
        help="half sets: keep those of the file, draw them at random, or auto: keep if there are any",
    )
    seed: int = option(1, flags=("--seed", "--random-seed"), group="advanced", ge=0, help="seed of everything random")

    @property
    def map_size(self) -> int:
        """Voxels along each side of the map."""
        return self.box if self.crop is None else self.crop

    @model_validator(mode="after")
    def _consistent(self) -> ImageOptions:
        if self.input is None and (self.particles is None or self.tomograms is None):
            raise ConfigError(
                "no particles to work on",
                where="--i",
                expected="--i optimisation_set.star, or --p particles.star with --t tomograms.star",
                found="neither",
                fix="name the optimisation set of the last job",
            )
        if self.crop is not None and self.crop > self.box:
            raise ConfigError(
                "the cropped box is larger than the box",
                where="--crop",
                expected=f"at most --b {self.box}",
                found=f"--crop {self.crop}",
                fix="choose a larger --b or a smaller --crop",
            )
        return self


class ReconstructOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise reconstruct`."""

    command: ClassVar[str] = "reconstruct"

    snr: float | None = option(
        None,
        group="advanced",
        gt=0,
        help="signal-to-noise ratio of the Wiener filter, the same in all shells; default: none",
    )
    relion_compatible: bool = option(
        False, group="advanced", help="gather, weight floor, taper and mask order of relion_tomo_reconstruct_particle"
    )


class RefineOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise refine`."""

    command: ClassVar[str] = "refine"
    ignored_flags: ClassVar[Mapping[str, int]] = {
        "--auto-refine": 0,
        "--split-random-halves": 0,
        "--norm": 0,
        "--scale": 0,
        "--ctf": 0,
        "--firstiter-cc": 0,
        "--dont-combine-weights-via-disc": 0,
        "--preread-images": 0,
        "--no-parallel-disc-io": 0,
        "--pool": 1,
        "--pad": 1,
        "--scratch-dir": 1,
        "--gpu": 1,
        "--cpu": 0,
    }

    reference: Path = option(
        ..., flags=("--ref", "--in-3dref"), help="starting map (MRC); resampled and low-passed as needed"
    )
    ini_high: float = option(60.0, unit="Å", gt=0, help="low-pass filter of the starting map")
    iterations: int = option(25, flags=("--iter",), ge=1, may_change=True, help="iterations at most")
    healpix_order: int = option(
        2, ge=0, le=7, help="first angular sampling: HEALPix order before oversampling (2: 15°, 3: 7.5°)"
    )
    auto_local_healpix_order: int = option(
        4, ge=1, le=9, help="HEALPix order from which on only orientations near the last ones are searched"
    )
    sigma_ang: float | None = option(
        None, unit="°", gt=0, help="width of the angular prior; given, searches are local from the first iteration"
    )
    offset_range_px: float = option(
        5.0, flags=("--offset-range-px", "--offset-range"), unit="px", gt=0, help="radius of the search for shifts"
    )
    offset_range_angstrom: float | None = option(
        None, unit="Å", gt=0, group="advanced", help="the same in Å, instead of --offset-range-px"
    )
    offset_step_px: float = option(
        2.0,
        flags=("--offset-step-px", "--offset-step"),
        unit="px",
        gt=0,
        help="step of the search for shifts before oversampling",
    )
    oversampling: int = option(
        1, ge=0, le=3, group="advanced", help="times angular and shift steps are halved in the second pass"
    )
    climb: bool = option(
        True,
        group="advanced",
        help="climb sharp peaks of the coarse pass to their mode; off: score finer grids for every particle",
    )
    low_resol_join_halves: float = option(
        40.0, unit="Å", gt=0, group="advanced", help="halves share all data below this resolution"
    )
    flatten_solvent: bool = option(True, group="advanced", help="set the map outside the diameter to zero")
    zero_mask: bool = option(True, group="advanced", help="mask the particle images at --particle-diameter")
    tau2_fudge: float = option(1.0, group="advanced", gt=0, help="factor on the prior power of the map")
