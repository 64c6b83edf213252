"""Options of `tiltwise reconstruct` and `tiltwise refine`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from tiltwise.config import ComputeOptions, Options, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import BoxOptions, FocusOptions, ImageOptions, SymmetryName


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


class BFactorPlotOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise bfactor-plot`."""

    command: ClassVar[str] = "bfactor-plot"

    draws: int = option(6, ge=2, le=16, help="random subsets of every size, as far as there are different ones")
    lowres: float | None = option(
        None, unit="Å", gt=0, help="subsets with a resolution worse than this are not fitted; default: all are"
    )
    forecast: str = option(
        "",
        flags=("--forecast",),
        help="resolutions in Å, as in 6,5,4, that are asked for; default: the next finer ones",
    )

    @property
    def wanted_angstrom(self) -> tuple[float, ...]:
        """Values of `--forecast`."""
        return tuple(float(word) for word in self.forecast.split(",") if word.strip())

    @model_validator(mode="after")
    def _resolutions(self) -> BFactorPlotOptions:
        try:
            values = self.wanted_angstrom
        except ValueError:
            values = (0.0,)
        if not all(0 < value < float("inf") for value in values):
            raise ConfigError(
                "resolutions cannot be read",
                where="--forecast",
                expected="numbers in Å with commas between them, as in 6,5,4",
                found=self.forecast,
                fix="write them as in --forecast 6,5,4",
            )
        return self


class SearchOptions(Options):
    """How finely poses are searched."""

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


class DataModelOptions(BoxOptions):
    """Which images are compared with maps."""

    data_model: Literal["stack2d", "pseudo3d"] = option(
        "stack2d",
        help="what maps are compared with: stack2d, the tilt images; pseudo3d, their sums in three dimensions, those "
        "that the particle file names or else made in memory",
    )


class RefineOptions(FocusOptions, DataModelOptions, SearchOptions, OutputOptions):
    """Options of `tiltwise refine`."""

    command: ClassVar[str] = "refine"
    ignored_flags: ClassVar[Mapping[str, int]] = {
        "--auto-refine": 0,
        "--continue": 1,
        "--split-random-halves": 0,
        "--norm": 0,
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

    reference: Path | None = option(
        None,
        flags=("--ref", "--in-3dref"),
        help="starting map (MRC), resampled and low-passed as needed; without one, half maps from the poses in the "
        "file, and searches stay near these",
    )
    ini_high: float = option(60.0, unit="Å", gt=0, help="low-pass filter of the starting map")
    likelihood: Literal["exact", "relion"] = option(
        "exact",
        group="advanced",
        help="exact, that of the images; relion, that of RELION, which weights images by their CTF once more",
    )
    subtract: bool = option(
        True, help="with --focus: subtract the rest of the particle; --no-subtract: mask the part, no more"
    )
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
    relax_symmetry: SymmetryName = option(
        "C1",
        flags=("--relax-sym",),
        help="point group that the particle has nearly: local searches look about all mates of the last orientation, "
        "and the map has no symmetry",
    )
    sigma_axis: float | None = option(
        None,
        flags=("--sigma-axis", "--axis-prior"),
        unit="°",
        gt=0,
        help="width of a prior on the angle between the particle's z axis and that of its file, a normal or a tube",
    )
    sigma_tilt: float | None = option(
        None, unit="°", gt=0, group="advanced", help="width of a prior about rlnAngleTiltPrior, or rlnAngleTilt"
    )
    sigma_psi: float | None = option(
        None, unit="°", gt=0, group="advanced", help="width of a prior about rlnAnglePsiPrior, or rlnAnglePsi"
    )
    sigma_rot: float | None = option(
        None, unit="°", gt=0, group="advanced", help="width of a prior about rlnAngleRotPrior, or rlnAngleRot"
    )
    sigma_offset: float | None = option(
        None,
        unit="Å",
        gt=0,
        group="advanced",
        help="width of the prior on displacements from the coordinate along each axis; default: learned, 10 at first",
    )
    offset_range_px: float = option(
        5.0, flags=("--offset-range-px", "--offset-range"), unit="px", gt=0, help="radius of the search for shifts"
    )
    offset_range_angstrom: float | None = option(
        None, unit="Å", gt=0, group="advanced", help="the same in Å, instead of --offset-range-px"
    )
    climb: bool = option(
        True,
        group="advanced",
        help="climb sharp peaks of the coarse pass to their mode; off: score finer grids for every particle",
    )
    workers: int = option(
        0,
        may_change=True,
        ge=0,
        help="processes on this machine that share the work, --j threads in all; 0: threads of one process",
    )
    dask: str | None = option(
        None,
        may_change=True,
        group="advanced",
        help="address of the scheduler of a running Dask cluster that does the work; --j is then of every worker",
    )
    folds: int | None = option(
        None,
        group="advanced",
        ge=0,
        le=20,
        help="folds of each half set: particles are compared with their half without their own fold; 0: with all of "
        "it; default: 5, or fewer if memory is short, and 0 for point groups of 12 operations or more",
    )
    low_resol_join_halves: float = option(
        40.0, unit="Å", gt=0, group="advanced", help="halves share all data below this resolution"
    )
    solvent_correct_fsc: bool = option(
        False, help="take off the FSC what the mask correlates, by randomised phases; needs --mask"
    )
    flatten_solvent: bool = option(True, group="advanced", help="set the map outside the mask or diameter to zero")
    scale: bool = option(
        False, group="advanced", help="fit the contrast of every tilt series relative to the others, from the images"
    )
    skip_align: bool = option(
        False, help="keep all poses as they are in the file: map, noise, likelihoods and errors of poses only"
    )
    write_iterations: Literal["all", "last", "none"] = option(
        "last",
        group="advanced",
        may_change=True,
        help="files of single iterations (run_it001_...) that are kept: all, those of the last one, or none",
    )
    zero_mask: bool = option(True, group="advanced", help="mask the particle images at --particle-diameter")
    tau2_fudge: float = option(1.0, group="advanced", gt=0, help="factor on the prior power of the map")

    @model_validator(mode="after")
    def _mask_to_correct(self) -> RefineOptions:
        if self.solvent_correct_fsc and self.mask is None and self.focus is None:
            raise ConfigError(
                "there is no mask whose effect could be taken off the FSC",
                where="--solvent-correct-fsc",
                expected="--mask",
                found="none",
                fix="give the mask of the particle with --mask, or leave --solvent-correct-fsc out",
            )
        return self

    @model_validator(mode="after")
    def _start(self) -> RefineOptions:
        if self.reference is None:
            self.refuse_without_effect(
                ("ini_high", "healpix_order"),
                because="without --ref it starts from the poses in the file, and stays near them",
                fix="give the starting map with --ref, or leave these options out",
            )
        return self

    @model_validator(mode="after")
    def _focused(self) -> RefineOptions:
        if self.focus is None:
            self.refuse_without_effect(
                ("rest", "focus_center", "subtract", "subtract_neighbours"),
                because="there is no --focus",
                fix="give --focus, or leave it out",
            )
            return self
        if self.mask is not None:
            raise ConfigError(
                "there are two masks",
                where="--mask, --focus",
                expected="one: maps are compared and masked inside --focus",
                found="both",
                fix="leave out --mask",
            )
        if not self.subtract:
            self.refuse_without_effect(
                ("rest", "subtract_neighbours"), because="--no-subtract takes nothing off", fix="leave one of them out"
            )
        if self.focus_center == "mask" and self.symmetry != "C1":
            raise ConfigError(
                "a part in the middle of its own box has not the symmetry of the particle",
                where="--focus, --sym",
                expected="--sym C1, or --focus-center box for a part that has the symmetry of the particle",
                found=f"--sym {self.symmetry}",
                fix="refine one of the symmetric parts with --sym C1, or use --focus-center box",
            )
        return self

    @model_validator(mode="after")
    def _relaxed_to_nothing(self) -> RefineOptions:
        if self.relax_symmetry != "C1" and self.symmetry != "C1":
            raise ConfigError(
                "a symmetry that is relaxed cannot be applied",
                where="--relax-sym, --sym",
                expected="--sym C1: which of its mates a particle is at is to be found",
                found=f"--sym {self.symmetry} with --relax-sym {self.relax_symmetry}",
                fix="leave one of them out",
            )
        return self

    @model_validator(mode="after")
    def _all_have_effect(self) -> RefineOptions:
        if self.skip_align:
            angles = ("sigma_ang", "sigma_axis", "sigma_tilt", "sigma_psi", "sigma_rot")
            priors = (*angles, "sigma_offset", "relax_symmetry")
            self.refuse_without_effect(
                priors if self.folds == 0 else ("folds", *priors),
                because="--skip-align keeps all poses as they are: nothing is searched, and nothing can be pulled",
                fix="leave --skip-align out, or these options",
            )
        return self
