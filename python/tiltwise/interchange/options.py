"""Options of `tiltwise import`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from tiltwise.config import OutputOptions, option
from tiltwise.errors import ConfigError

Source = Literal["auto", "relion4", "relion5", "imod", "aretomo", "warp", "particles"]


class ImportOptions(OutputOptions):
    """Options of `tiltwise import`."""

    command: ClassVar[str] = "import"

    input: Path = option(
        ..., flags=("--i", "--ios"), help="file or folder of the other program, such as an optimisation_set.star"
    )
    source: Source = option("auto", flags=("--from",), help="program that wrote it; auto: recognised")
    particles: Path | None = option(None, flags=("--p", "--in-parts"), help="particles, where they are in another file")
    tomograms: Path | None = option(None, flags=("--t",), help="tomogram set, instead of the one of the set")
    trajectories: Path | None = option(None, flags=("--mot",), group="advanced", help="motion.star of the particles")
    coordinate_binning: float | None = option(
        None,
        flags=("--coord-binning",),
        gt=0,
        help="unbinned pixels per pixel of the coordinates; of RELION: 1 by default",
    )
    coordinate_pixel_size: float | None = option(
        None, flags=("--coord-angpix",), unit="Å", gt=0, help="the same as the size of a pixel of the coordinates"
    )
    coordinate_unit: Literal["px", "angstrom"] | None = option(
        None, flags=("--coord-units",), help="unit of the coordinates; default: that of the program"
    )
    coordinate_origin: Literal["corner", "centre"] | None = option(
        None, flags=("--coord-origin",), help="where coordinates count from; default: as the program"
    )
    coordinate_first: float | None = option(
        None,
        flags=("--coord-first",),
        group="advanced",
        help="what is stored for the centre of the first voxel, 0 or 1; default: as the program",
    )
    pixel_size: float | None = option(
        None, flags=("--angpix",), unit="Å", gt=0, help="of the tilt images, where no file says or it is wrong there"
    )
    voltage: float | None = option(None, flags=("--voltage", "--kV"), unit="kV", gt=0, help="where no file says")
    spherical_aberration: float | None = option(
        None, flags=("--cs",), unit="mm", ge=0, group="advanced", help="where no file says; 2.7 if nobody does"
    )
    amplitude_contrast: float | None = option(
        None, flags=("--q0",), ge=0, lt=1, group="advanced", help="where no file says; 0.1 if nobody does"
    )
    hand: Literal["1", "-1"] | None = option(
        None, group="advanced", help="sign of defocus against depth, instead of that of the program's frame"
    )
    odd_centre: Literal["relion-5.0", "consistent"] = option(
        "relion-5.0",
        group="advanced",
        help="odd or unset tomogram sizes: coordinates were used by RELION-5.0, half a pixel off, or by a program "
        "with one centre",
    )
    image_size: str | None = option(
        None, unit="px", group="advanced", help="WIDTH,HEIGHT of the tilt images, where they are not at hand"
    )
    tomogram_size: str | None = option(
        None, unit="px", group="advanced", help="X,Y,Z of the tomograms in unbinned pixels, where no file says"
    )

    mdoc: Path | None = option(
        None, help="mdoc, or folder of mdocs, with order and dose of the views; default: those beside the alignment"
    )
    order_list: Path | None = option(None, help="lines number,angle in the order of acquisition, in place of an mdoc")
    dose_list: Path | None = option(None, help="dose before every section of the stack, in place of an mdoc")
    dose_per_view: float | None = option(
        None, flags=("--dose",), unit="e/Å²", gt=0, help="dose of one view, where the mdoc has none"
    )
    ctf: Path | None = option(
        None, help="defocus of the views: table of CTFFIND, AreTomo, Ctfplotter or Gctf, or a folder of them"
    )
    ctf_angles: Path | None = option(
        None, group="advanced", help="tilt angle of every row of --ctf, where it is not of the whole stack"
    )
    imod_centre: Literal["imod", "relion5"] = option(
        "imod", group="advanced", help="centre of rotation: as IMOD has it, or half a pixel off as RELION-5 reads IMOD"
    )
    local_alignment: Literal["auto", "motion", "deformation", "ignore"] = option(
        "auto",
        group="advanced",
        help="local alignment of AreTomo: as motion of the particles, exactly, or as deformation of the images; auto: "
        "motion if there are particles",
    )
    x_tilt: Literal["refuse", "apply", "reverse", "ignore"] = option(
        "refuse",
        group="advanced",
        help="rotation about x of an IMOD alignment (XAXISTILT, .xtilt) above 0.1 degree",
    )
    tomogram_names: Path | None = option(
        None, help="lines NUMBER NAME: which tilt series a tomogram number of a particle list means"
    )

    @field_validator("image_size", "tomogram_size")
    @classmethod
    def _whole_numbers(cls, value: str | None) -> str | None:
        if value is not None:
            whole_numbers(value)
        return value


def whole_numbers(text: str) -> tuple[int, ...]:
    """`3710,3838` or `3710x3838` to numbers.

    Raises
    ------
    ConfigError
        if they are not whole numbers above 0.
    """
    try:
        values = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        values = ()
    if not values or min(values) <= 0:
        raise ConfigError(
            "a size cannot be read",
            expected="whole numbers such as 4000,4000,2000",
            found=text,
            fix="give whole numbers with commas between them",
        )
    return values
