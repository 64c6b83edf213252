"""Options of `tiltwise classify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.em.options import DataModelOptions, SearchOptions
from tiltwise.errors import ConfigError
from tiltwise.maps.options import ImageOptions, symmetry_name


def _names(text: str) -> str:
    """Point groups, separated by commas."""
    return ",".join(symmetry_name(part) for part in text.split(","))


class ClassifyOptions(ComputeOptions, ImageOptions, DataModelOptions, SearchOptions, OutputOptions):
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
    symmetry: Annotated[str, AfterValidator(_names)] = option(
        "C1", flags=("--sym",), help="point group of the particle, or one for every class, separated by commas: C6,C1"
    )
    junk: bool = option(False, help="one class more, with nothing in it, for positions where there is no particle")
    align: Literal["none", "local", "global"] = option(
        "none",
        help="none: poses stay as they are in the file; local: they are sought near them, for every class; global: "
        "everywhere",
    )
    references: str | None = option(
        None,
        flags=("--ref", "--in-3dref"),
        help="a map for every class to start from, separated by commas, or a STAR file that lists them in "
        "rlnReferenceImage; default: none, classes start from the largest differences between particles. With --align "
        "global also one map, by which all particles are aligned first",
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
    sigma_ang: float = option(5.0, unit="°", gt=0, help="--align local: width of the prior on orientations")
    healpix_order: int | None = option(
        None,
        ge=0,
        le=7,
        help="angular sampling: HEALPix order before oversampling; default: 2 (15°), with --align local 4 (3.75°)",
    )
    offset_range_px: float = option(
        3.0, flags=("--offset-range-px", "--offset-range"), unit="px", gt=0, help="radius of the search for shifts"
    )
    starts: int = option(
        1,
        group="advanced",
        ge=1,
        le=50,
        help="starts from different differences between particles, the largest first; the one that predicts particles "
        "best that it has not seen goes on",
    )
    folds: int = option(
        3,
        group="advanced",
        ge=1,
        le=20,
        help="folds of each half set: particles are compared with maps of all without their own fold; 1: of the "
        "other half set",
    )

    @property
    def groups(self) -> list[str]:
        """Name of the point group of every class; junk has none."""
        names = self.symmetry.split(",")
        return names if len(names) > 1 else names * self.classes

    def group_of(self, number: int) -> str:
        """Name of the point group of a class, from 0 on."""
        return "C1" if number == self.classes else self.groups[number]

    @model_validator(mode="after")
    def _groups(self) -> ClassifyOptions:
        if len(self.groups) != self.classes:
            raise ConfigError(
                "point groups and classes differ in number",
                where="--sym, --k",
                expected=f"one point group, or {self.classes} separated by commas, one for every class",
                found=f"--sym {self.symmetry}" + (" (junk has no symmetry and is not counted)" if self.junk else ""),
                fix=f"--k {len(self.groups)}, or another --sym",
            )
        if self.mask is not None and len(set(self.groups)) > 1:
            raise ConfigError(
                "classes with symmetries of their own differ everywhere",
                where="--sym, --mask",
                expected="one point group: outside the mask classes share a map, and its symmetry",
                found=f"--sym {self.symmetry}",
                fix="leave out --mask, or give the point group that all classes share",
            )
        return self

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
        if self.references is None:
            self.refuse_without_effect(
                ("ini_high",), because="there are no maps to filter", fix="give --ref, or leave out --ini-high"
            )
        if self.align == "none":
            names = ("sigma_ang", "healpix_order", "oversampling", "offset_range_px", "offset_step_px")
            self.refuse_without_effect(
                names, because="poses stay as they are", fix="add --align local or global, or leave these options out"
            )
        if self.align == "global":
            self.refuse_without_effect(
                ("sigma_ang",), because="orientations are sought everywhere", fix="--align local, or leave it out"
            )
        if self.classes == 1 and self.align != "none":
            self.refuse_without_effect(
                ("mask", "tau2_fudge"),
                because="particles that are aligned to one class are compared with its average, without junk: it "
                "differs from nothing",
                fix="leave these options out, or use --align none",
            )
        if self.references is not None and self.align != "global":
            self.refuse_without_effect(
                ("starts",), because="classes start from the maps of --ref", fix="leave out --starts, or --ref"
            )
        return self
