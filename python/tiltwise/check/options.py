"""Options of `tiltwise check`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from tiltwise.config import InputOptions, OutputOptions, option
from tiltwise.errors import ConfigError


class _What(InputOptions):
    """What is examined, and how closely."""

    command: ClassVar[str] = "check"

    images: bool = option(False, help="read all pixels: NaN, blank tilts, noise of every tilt")
    reference: Path | None = option(
        None,
        flags=("--ref",),
        help="map of the particle: compare it with the images under every convention",
    )
    particle_diameter: float | None = option(
        None, unit="Å", gt=0, help="diameter of the particle, for neighbours that are too close or in different halves"
    )
    coordinate_binning: float | None = option(
        None,
        gt=0,
        group="advanced",
        help="unbinned pixels per unit of rlnCoordinateX/Y/Z, for coordinates in binned pixels",
    )
    reach: float = option(
        12.0, unit="Å", ge=0, group="advanced", help="--ref: how far particles may lie off their coordinates"
    )
    sample: int = option(
        50, ge=4, le=400, group="advanced", help="--ref: particles of each of up to three tilt series that are compared"
    )
    strict: bool = option(False, help="exit with code 4 if there are warnings")

    @model_validator(mode="after")
    def _consistent(self) -> _What:
        if self.input is None and (self.particles is None or self.tomograms is None):
            raise ConfigError(
                "there is nothing to check",
                where="--i",
                expected="--i optimisation_set.star, or --p particles.star with --t tomograms.star",
                found="neither",
                fix="name the optimisation set of the last job",
            )
        return self


class CheckOptions(_What):
    """As the command line takes them: without a folder nothing is written."""

    output: Path | None = option(None, flags=("--o",), help="folder for report.html and findings.json")


class CheckFolderOptions(OutputOptions, _What):
    """The same with a folder, as its manifest records them."""
