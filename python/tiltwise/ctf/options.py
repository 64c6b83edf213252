"""Options of `tiltwise refine-ctf`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import ImageOptions


class RefineCtfOptions(ComputeOptions, ImageOptions, OutputOptions):
    """Options of `tiltwise refine-ctf`."""

    command: ClassVar[str] = "refine-ctf"

    defocus: bool = option(
        True, flags=("--defocus", "--do-defocus"), help="refine defocus and astigmatism of every tilt"
    )
    phase_shift: bool = option(
        False,
        flags=("--phase-shift", "--do-phase-shift"),
        help="refine the phase shift of every tilt, with its defocus (phase plates)",
    )
    spherical_aberration: bool = option(
        False,
        flags=("--spherical-aberration", "--cs"),
        help="refine the spherical aberration Cs of every optics group, instead of the Zernike coefficient of k^4",
    )
    scale: bool = option(True, flags=("--scale", "--do-scale"), help="refine the contrast scale of every tilt")
    scale_model: Literal["tilt", "lambert", "lambert-global"] = option(
        "tilt",
        help="scales: one per tilt, those of a slab of ice that absorbs (Lambert), or of slabs with one luminance in "
        "common, times the dose of a tilt",
    )
    even_order: int = option(
        0,
        flags=("--even-order", "--ne"),
        ge=0,
        le=8,
        help="even aberrations up to this order; 0: none",
    )
    odd_order: int = option(
        0, flags=("--odd-order",), ge=0, le=7, help="odd aberrations up to this order (3: coma, trefoil); 0: none"
    )
    split_optics: str = option(
        "no",
        help="optics groups of aberrations: no, those of the file; series, one for every tilt series; or a regular "
        "expression whose match in the name of a tilt series tells its acquisition area",
    )
    d0: float = option(-3000.0, unit="Å", help="smallest change of defocus that is searched")
    d1: float = option(3000.0, unit="Å", help="largest change of defocus that is searched")
    kmin: float = option(30.0, unit="Å", gt=0, help="resolution from which on phases are fitted")
    scale_kmin: float = option(
        60.0, unit="Å", gt=0, group="advanced", help="resolution from which on scales are fitted"
    )
    resolution: float | None = option(
        None,
        flags=("--resolution", "--freq-cutoff"),
        unit="Å",
        gt=0,
        help="resolution up to which images are used; default: as far as the half maps agree",
    )
    sigma_defocus: float | None = option(
        None, unit="Å", gt=0, help="scatter of the defocus about that of its series; default: learned from the data"
    )
    sigma_astigmatism: float | None = option(
        None, unit="Å", gt=0, help="scatter of the astigmatism about that of its series; default: learned"
    )
    sigma_phase_shift: float | None = option(
        None, unit="°", gt=0, group="advanced", help="scatter of the phase shift about that of its series"
    )
    folds: int = option(
        5, ge=2, le=20, group="advanced", help="parts of each half set; an image is predicted without its own"
    )
    leave_out: Literal["tilt", "particle", "series"] = option(
        "tilt",
        group="advanced",
        help="what shares a part: tilt images, whose noise and CTF are then in no reference they are compared with; "
        "particles, whose references hold the same tilts of others; or whole tilt series",
    )
    ref1: Path | None = option(None, help="half map 1, instead of cross-fitted references: biased to the present CTFs")
    ref2: Path | None = option(None, help="half map 2")
    opposite_half: bool = option(
        False, group="advanced", help="with --ref1 and --ref2: predict particles from the other half map"
    )
    force: bool = option(False, help="apply what was fitted, whatever held-out particles say")

    @property
    def families(self) -> int:
        """Families of parameters that are judged."""
        even = self.even_order or self.spherical_aberration
        return sum(map(bool, (self.defocus, self.phase_shift, self.scale, even, self.odd_order)))

    @property
    def aberrations(self) -> bool:
        """Is anything fitted to optics groups?"""
        return bool(self.even_order or self.odd_order or self.spherical_aberration)

    @model_validator(mode="after")
    def _usable(self) -> RefineCtfOptions:
        if (self.ref1 is None) != (self.ref2 is None):
            raise ConfigError(
                "one half map is not enough", where="--ref1, --ref2", expected="both, or neither", fix="give both"
            )
        if self.opposite_half and self.ref1 is None:
            raise ConfigError(
                "--opposite-half is about given half maps",
                where="--opposite-half",
                expected="--ref1 and --ref2",
                found="neither",
                fix="leave it out: cross-fitted references do not contain the particle",
            )
        if not self.d0 < 0 < self.d1:
            raise ConfigError(
                "the search range must contain no change",
                where="--d0, --d1",
                expected="a negative and a positive change in Å",
                found=f"{self.d0:g} to {self.d1:g} Å",
                fix="for example --d0 -3000 --d1 3000",
            )
        if self.even_order not in (0, 4, 6, 8) or self.odd_order not in (0, 3, 5, 7):
            raise ConfigError(
                "aberrations have no such order",
                where="--even-order, --odd-order",
                expected="4, 6 or 8, and 3, 5 or 7; or 0 for none",
                found=f"{self.even_order}, {self.odd_order}",
                fix="defocus and astigmatism (order 2) are those of tilts, shifts (order 1) belong to the alignment",
            )
        if self.phase_shift and not self.defocus:
            raise ConfigError(
                "phase shifts are fitted with the defocus",
                where="--phase-shift, --no-defocus",
                fix="leave --no-defocus out: a wrong phase shift has made the defocus wrong",
            )
        if not self.families:
            raise ConfigError("nothing to refine", where="--defocus, --scale", fix="switch on at least one")
        return self

    @model_validator(mode="after")
    def _all_have_effect(self) -> RefineCtfOptions:
        if self.ref1 is not None:
            self.refuse_without_effect(
                ("folds", "leave_out", "symmetry"),
                because="given half maps are used as they are",
                fix="leave out --ref1 and --ref2, or these options; symmetrise half maps beforehand",
            )
        if not self.scale:
            self.refuse_without_effect(
                ("scale_model", "scale_kmin"), because="--no-scale keeps all scales", fix="leave --no-scale out"
            )
        if not self.defocus:
            self.refuse_without_effect(
                ("d0", "d1", "sigma_defocus", "sigma_astigmatism"),
                because="--no-defocus keeps defocus and astigmatism",
                fix="leave --no-defocus out",
            )
        if not self.aberrations:
            self.refuse_without_effect(
                ("split_optics",), because="no aberrations are fitted", fix="add --even-order, --odd-order or --cs"
            )
        if not self.phase_shift:
            self.refuse_without_effect(
                ("sigma_phase_shift",), because="phase shifts are kept as they are", fix="add --phase-shift"
            )
        return self
