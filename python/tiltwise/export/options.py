"""Options of `tiltwise extract` and `tiltwise export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from tiltwise.config import ComputeOptions, InputOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import BoxOptions, FocusOptions


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


class SubtractOptions(FocusOptions, ExtractOptions):
    """Options of `tiltwise subtract`: those of `extract`, and the part that stays."""

    command: ClassVar[str] = "subtract"

    focus: Path = option(
        ...,
        help="mask (MRC, 0 to 1) of the part that stays, in the box of the map that the poses in the file gave; the "
        "rest of the particle is predicted and subtracted from the tilt images",
    )

    @model_validator(mode="after")
    def _all_have_effect(self) -> SubtractOptions:
        self.refuse_without_effect(("mask",), because="the part that stays is --focus", fix="leave it out")
        self.refuse_without_effect(
            ("apply_offsets",), because="boxes are centred on the part, wherever the particle is", fix="leave it out"
        )
        return self


ONLY_FOR: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("box", "crop", "binning"), ("cryodrgn", "tomodrgn")),
    (("coordinate_pixel_size",), ("warp",)),
    (("map",), ("chimerax", "emdb")),
    (("mask", "half1", "half2"), ("emdb",)),
)
"""Options, and the forms they are for."""

Form = Literal["relion5", "relion4", "warp", "cryodrgn", "tomodrgn", "chimerax", "emdb", "csv"]


class ExportOptions(ComputeOptions, InputOptions, OutputOptions):
    """Options of `tiltwise export`."""

    command: ClassVar[str] = "export"

    form: Form = option(
        ...,
        flags=("--to",),
        help="relion5, relion4: optimisation set; warp: particles; cryodrgn, tomodrgn: stack of images with their "
        "poses and CTFs; chimerax: scene with maps and particles; emdb: files of a deposition; csv: table of particles",
    )
    box: int | None = option(
        None, flags=("--b",), unit="px", ge=4, help="cryodrgn, tomodrgn: box cut from the binned tilt images"
    )
    crop: int | None = option(None, unit="px", ge=4, help="cryodrgn, tomodrgn: box of the images; default: --b")
    binning: float = option(1.0, flags=("--bin",), ge=1, help="cryodrgn, tomodrgn: binning of the tilt images")
    coordinate_pixel_size: float | None = option(
        None,
        flags=("--coord-angpix",),
        unit="Å",
        gt=0,
        help="warp: pixel of the coordinates; default: the unbinned one",
    )
    map: Path | None = option(
        None, flags=("--map", "--in-3dref"), help="chimerax, emdb: map to show or deposit, as from postprocess"
    )
    mask: Path | None = option(None, flags=("--mask", "--in-mask"), help="emdb: mask of the FSC; default: found")
    half1: Path | None = option(None, help="emdb: first half map; default: the one the set names")
    half2: Path | None = option(None, help="emdb: second half map")
    coordinate_binning: float | None = option(
        None, gt=0, group="advanced", help="unbinned pixels per unit of rlnCoordinateX/Y/Z of the input"
    )

    @model_validator(mode="after")
    def _known(self) -> ExportOptions:
        if self.input is None and (self.particles is None or self.tomograms is None):
            raise ConfigError(
                "nothing to export",
                where="--i",
                expected="--i optimisation_set.star, or --p particles.star with --t tomograms.star",
                found="neither",
                fix="name the optimisation set of the last job",
            )
        if self.form in ("cryodrgn", "tomodrgn") and self.box is None:
            raise ConfigError(f"{self.form} needs the size of the images", where="--b", fix="give --b, as for refine")
        idle = [name for names, forms in ONLY_FOR if self.form not in forms for name in names]
        self.refuse_without_effect(idle, because=f"--to {self.form} has no use for it", fix="leave it out")
        return self
