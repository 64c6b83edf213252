"""Options of `tiltwise classify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import model_validator

from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import ImageOptions


class ClassifyOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise classify`."""

    command: ClassVar[str] = "classify"
    ignored_flags: ClassVar[Mapping[str, int]] = {
        "--continue": 1,
        "--norm": 0,
        "--scale": 0,
        "--ctf": 0,
        "--skip-align": 0,
        "--firstiter-cc": 0,
        "--dont-combine-weights-via-disc": 0,
        "--preread-images": 0,
        "--no-parallel-disc-io": 0,
        "--flatten-solvent": 0,
        "--zero-mask": 0,
        "--pool": 1,
        "--pad": 1,
        "--scratch-dir": 1,
        "--gpu": 1,
        "--cpu": 0,
    }

    classes: int = option(2, flags=("--k", "--K"), ge=1, le=64, help="number of classes")
    junk: bool = option(False, help="one class more, with nothing in it, for positions where there is no particle")
    references: str | None = option(
        None,
        flags=("--ref", "--in-3dref"),
        help="a map for every class to start from, separated by commas, or a STAR file that lists them in "
        "rlnReferenceImage; default: none, classes start from the largest differences between particles",
    )
    ini_high: float = option(40.0, unit="Å", gt=0, help="low-pass filter of the maps of --ref")
    iterations: int = option(25, flags=("--iter",), ge=1, may_change=True, help="iterations at most")
    strict_highres_exp: float | None = option(
        None,
        unit="Å",
        gt=0,
        help="resolution up to which particles are compared with maps; default: that of the average (FSC 0.143)",
    )
    tau2_fudge: float = option(
        1.0, group="advanced", gt=0, help="factor on the prior power of the differences between classes"
    )
    starts: int = option(
        1,
        group="advanced",
        ge=1,
        le=50,
        help="random starts; the one that predicts particles best that it has not seen goes on",
    )
    folds: int = option(
        3,
        group="advanced",
        ge=1,
        le=20,
        help="folds of each half set: particles are compared with maps of all particles without their own fold",
    )

    @model_validator(mode="after")
    def _something_to_tell_apart(self) -> ClassifyOptions:
        if self.classes == 1 and not self.junk:
            raise ConfigError(
                "one class is nothing to choose from",
                where="--k",
                expected="two classes or more, or one and --junk",
                found="--k 1",
                fix="tiltwise refine makes one map",
            )
        if self.references is not None:
            self.refuse_without_effect(
                ("starts",), because="classes start from the maps of --ref", fix="leave out --starts, or --ref"
            )
        return self
