"""Options of the commands that work on half maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from tiltwise.config import OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.post.local_fsc import INNER_PERIODS
from tiltwise.spectral.randomised import RANDOMISE_AT


class HalfMapOptions(OutputOptions):
    """Which half maps."""

    input: Path | None = option(
        None, flags=("--i", "--in-3dref"), help="folder of a refinement or reconstruction, or one half map of two"
    )
    half1: Path | None = option(None, help="first half map (MRC), unfiltered and unmasked")
    half2: Path | None = option(None, flags=("--half2", "--i2"), help="second half map")
    pixel_size: float | None = option(
        None, flags=("--angpix",), unit="Å", gt=0, group="advanced", help="pixel size, instead of that in the headers"
    )
    threads: int = option(0, flags=("--threads", "--j"), may_change=True, ge=0, help="threads; 0 means all cores")

    @model_validator(mode="after")
    def _some_maps(self) -> HalfMapOptions:
        if self.input is None and (self.half1 is None or self.half2 is None):
            raise ConfigError(
                "no half maps to work on",
                where="--i",
                expected="--i FOLDER of a refinement, --i with one half map, or --half1 and --half2",
                found="neither",
                fix="name the folder of the last refinement or reconstruction",
            )
        if self.input is not None and (self.half1 is not None or self.half2 is not None):
            first = self.half1 is None and self.input.is_file()  # --i half1.mrc --i2 half2.mrc, as RELION has it
            if not first:
                raise ConfigError(
                    "half maps are given twice",
                    where="--i",
                    expected="--i, or --half1 and --half2",
                    fix="leave one out",
                )
        return self


class MaskOptions(HalfMapOptions):
    """Options of `tiltwise mask`."""

    command: ClassVar[str] = "mask"

    input: Path | None = option(
        None,
        flags=("--i", "--in-3dref"),
        help="folder of a refinement or reconstruction, one half map of two, or a single map",
    )
    threshold: float | None = option(
        None,
        flags=("--threshold", "--ini-threshold"),
        help="density of the low-passed map above which a voxel belongs to the particle; default: found",
    )
    low_pass: float | None = option(
        None,
        flags=("--low-pass", "--lowpass"),
        unit="Å",
        ge=0,
        help="filter before the threshold, 0: none; default: 15, or where half maps cease to agree",
    )
    extend: float | None = option(None, unit="Å", ge=0, help="widen the particle by so much; default: 3 pixels")
    edge: float | None = option(
        None, unit="Å", ge=0, help="width of the soft edge around it, a raised cosine; default: 6 pixels"
    )
    components: int = option(1, ge=1, group="advanced", help="connected pieces to keep, largest first")


class PostprocessOptions(HalfMapOptions):
    """Options of `tiltwise postprocess`."""

    command: ClassVar[str] = "postprocess"
    ignored_flags: ClassVar[Mapping[str, int]] = {"--auto-mask": 0}

    mask: Path | None = option(
        None, flags=("--mask", "--in-mask"), help="mask of the particle (MRC, 0 to 1); default: found as by `mask`"
    )
    force_mask: bool = option(
        False, group="advanced", help="use the mask even if the resolution is worse inside it than without"
    )
    mtf: Path | None = option(None, help="STAR table of the detector's MTF, to divide by")
    mtf_pixel_size: float | None = option(
        None,
        flags=("--mtf-angpix",),
        unit="Å",
        gt=0,
        group="advanced",
        help="pixel size of the detector; default: that of the map",
    )
    auto_bfactor: bool = option(True, flags=("--auto-bfac",), help="sharpen by the B-factor of the Guinier plot")
    fit_low: float = option(
        10.0,
        flags=("--autob-lowres",),
        unit="Å",
        gt=0,
        group="advanced",
        help="lowest resolution of the fit of the B-factor",
    )
    fit_high: float = option(
        0.0,
        flags=("--autob-highres",),
        unit="Å",
        ge=0,
        group="advanced",
        help="highest resolution of that fit; 0: as far as the FSC has weight",
    )
    adhoc_bfactor: float | None = option(
        None, flags=("--adhoc-bfac",), unit="Å²", help="B-factor to apply instead; negative sharpens, 0: none"
    )
    fsc_weighting: bool = option(True, group="advanced", help="weight shells by sqrt(2 FSC / (1 + FSC))")
    low_pass: float | None = option(
        None,
        unit="Å",
        group="advanced",
        help="low-pass filter of the result, 0: none, negative: at the resolution; default: none where weighted",
    )
    model: Path | None = option(
        None, help="atoms (PDB, mmCIF) fitted into the map, or a map, to compare with by FSC; first voxel at (0, 0, 0)"
    )
    model_bfactor: float = option(
        100.0, unit="Å²", ge=0, group="advanced", help="B-factor of all atoms of --model in their density"
    )
    directions: bool = option(True, group="advanced", help="FSC by direction")
    randomise_at_fsc: float = option(
        RANDOMISE_AT,
        flags=("--randomize-at-fsc", "--randomise-at-fsc"),
        gt=0,
        lt=1,
        group="advanced",
        help="phases are randomised from where the FSC without mask falls below this",
    )
    randomise_at: float | None = option(
        None,
        flags=("--randomize-at-A", "--randomize-at-a", "--randomise-at"),
        unit="Å",
        gt=0,
        group="advanced",
        help="the same as a resolution",
    )
    mass: float | None = option(
        None,
        flags=("--molweight",),
        unit="kDa",
        gt=0,
        group="advanced",
        help="mass of the ordered particle, for the FSC of the particle alone; default: from the mask",
    )
    relion_compatible: bool = option(
        False, group="advanced", help="sum shells as relion_postprocess does; FSC changes by some 0.003"
    )
    seed: int = option(1, flags=("--seed", "--random-seed"), group="advanced", ge=0, help="seed of the random phases")


class LocalResolutionOptions(HalfMapOptions):
    """Options of `tiltwise local-resolution`."""

    command: ClassVar[str] = "local-resolution"
    ignored_flags: ClassVar[Mapping[str, int]] = {"--locres": 0, "--locres-sampling": 1, "--locres-randomize-at": 1}

    mask: Path | None = option(
        None, flags=("--mask", "--in-mask"), help="mask of the particle (MRC, 0 to 1); default: found as by `mask`"
    )
    coarsest: float = option(
        50.0, flags=("--locres-minres",), unit="Å", gt=0, help="worst resolution that is told apart"
    )
    window: float = option(
        3.0,
        gt=INNER_PERIODS,
        group="advanced",
        help="width of the region around each voxel, in periods of the detail that is compared",
    )
    threshold: float = option(
        0.143, gt=0, lt=1, group="advanced", help="local correlation at the resolution, or more where noise demands it"
    )
    adhoc_bfactor: float = option(
        0.0, flags=("--adhoc-bfac",), unit="Å²", help="B-factor of the filtered map; negative sharpens"
    )


class CompositeOptions(HalfMapOptions):
    """Options of `tiltwise composite`."""

    command: ClassVar[str] = "composite"

    input: Path | None = option(None, flags=("--i",), help="folder of the consensus, or one half map of two")
    parts: str = option(
        ..., flags=("--parts",), help="folders of refinements with --focus, as in Head,Arm, with commas between them"
    )
    fit: bool = option(True, help="turn and move parts onto the consensus where they have left it")

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of `--parts`."""
        return tuple(Path(word.strip()) for word in self.parts.split(",") if word.strip())

    @model_validator(mode="after")
    def _some_parts(self) -> CompositeOptions:
        if not self.folders or len(set(self.folders)) < len(self.folders):
            raise ConfigError(
                "parts cannot be read",
                where="--parts",
                expected="different folders with commas between them",
                found=self.parts or "nothing",
                fix="name the folders of refinements with --focus",
            )
        return self
