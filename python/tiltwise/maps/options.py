"""Options of every command that works on particle images: which data, in which boxes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from tiltwise.config import ComputeOptions, InputOptions, option
from tiltwise.errors import ConfigError


def symmetry_name(name: str) -> str:
    """Name of a point group as `symmetry_matrices` has it; ValueError if there is none."""
    upper = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9]\d?|T|O|I[1-4]?", upper):
        raise ValueError("C1, C2, ..., D2, ..., T, O, I or I1 to I4")
    return upper


SymmetryName = Annotated[str, AfterValidator(symmetry_name)]


class BoxOptions(InputOptions):
    """Which data are used, and in which boxes images are cut."""

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

    @property
    def map_size(self) -> int:
        """Voxels along each side of the map."""
        return self.box if self.crop is None else self.crop

    @model_validator(mode="after")
    def _consistent(self) -> BoxOptions:
        self.require_particles()
        if self.crop is not None and self.crop > self.box:
            raise ConfigError(
                "the cropped box is larger than the box",
                where="--crop",
                expected=f"at most --b {self.box}",
                found=f"--crop {self.crop}",
                fix="choose a larger --b or a smaller --crop",
            )
        return self


class ImageOptions(BoxOptions):
    """Which part of the data is used, and what is known of the particle."""

    symmetry: SymmetryName = option("C1", flags=("--sym",), help="point group of the particle")
    particle_diameter: float | None = option(
        None, unit="Å", gt=0, help="diameter of the sphere that holds the particle; default: as large as the box allows"
    )
    mask: Path | None = option(
        None, flags=("--mask", "--in-mask", "--solvent-mask"), help="mask of the particle (MRC, 0 to 1) for FSC and map"
    )
    split: Literal["auto", "keep", "random", "object", "tomogram"] = option(
        "auto",
        group="advanced",
        help="half sets: keep those of the file, draw them at random, or so that overlapping particles (object) or "
        "tilt series (tomogram) stay together; auto: keep if there are any, else object",
    )
    split_distance: float | None = option(
        None,
        unit="Å",
        gt=0,
        group="advanced",
        help="--split object: particles closer than this stay together; default: the particle diameter",
    )
    seed: int = option(1, flags=("--seed", "--random-seed"), group="advanced", ge=0, help="seed of everything random")

    def size_of_particle(self, pixel_size: float) -> float:
        """`--particle-diameter` in Å, or half of the box, which usually has room for twice the particle."""
        return self.particle_diameter or self.map_size * pixel_size / 2


class FocusOptions(ComputeOptions, ImageOptions):
    """A part of the particle to work on."""

    focus: Path | None = option(
        None,
        help="mask (MRC, 0 to 1) of the part to work on, in the box of the map that the poses in the file gave; the "
        "rest of the particle is predicted and subtracted from the tilt images",
    )
    rest: Path | None = option(
        None, help="with --focus: mask of what is subtracted; default: the whole particle without --focus"
    )
    focus_center: Literal["mask", "box"] = option(
        "mask",
        flags=("--focus-center", "--focus-centre"),
        help="with --focus: boxes are centred on the middle of the part, or stay where they are",
    )
    subtract_neighbours: bool = option(
        False,
        flags=("--subtract-neighbours", "--subtract-neighbors"),
        help="with --focus: particles of the set are also subtracted from the images of those beside them",
    )

    @model_validator(mode="after")
    def _size_of_neighbours(self) -> FocusOptions:
        if self.subtract_neighbours and self.particle_diameter is None and self.rest is None:
            raise ConfigError(
                "it is not known how large a neighbour is",
                where="--subtract-neighbours",
                expected="--particle-diameter, or a mask with --rest",
                found="neither: the sphere as large as the box may hold several particles",
                fix="give the diameter of the particle",
            )
        return self
