"""What the user says about coordinates, optics and sizes, over what the program's files say."""

from __future__ import annotations

from dataclasses import replace

from tiltwise.errors import ConfigError
from tiltwise.interchange.conventions import CoordinateConvention
from tiltwise.interchange.drafts import Optics
from tiltwise.interchange.options import ImportOptions, whole_numbers


def coordinate_convention(program: CoordinateConvention, options: ImportOptions) -> CoordinateConvention:
    """Convention of the program's coordinates, with what the options say instead.

    Raises
    ------
    ConfigError
        if the options contradict each other.
    """
    convention = program
    if options.coordinate_unit is not None:
        convention = replace(convention, unit="px" if options.coordinate_unit == "px" else "Å")
    if options.coordinate_origin is not None:
        convention = replace(convention, origin=options.coordinate_origin)
    if options.coordinate_first is not None:
        convention = replace(convention, first=options.coordinate_first)
    if convention.unit == "Å" and not (options.coordinate_binning is None and options.coordinate_pixel_size is None):
        raise ConfigError(
            "coordinates in Å have no pixel size", where="--coord-binning, --coord-angpix", fix="leave them out"
        )
    if convention is program:
        return program
    return replace(convention, program=f"{program.program} as given", remark="")


def coordinate_binning(
    convention: CoordinateConvention, options: ImportOptions, pixel_size_angstrom: float, of_file: float | None = None
) -> float:
    """Unbinned pixels per pixel of the coordinates: `--coord-binning`, `--coord-angpix`, what the file says, or 1.

    Raises
    ------
    ConfigError
        if both options are given and differ.
    """
    if convention.unit == "Å":
        return 1.0
    given = options.coordinate_binning
    if options.coordinate_pixel_size is not None:
        binning = options.coordinate_pixel_size / pixel_size_angstrom
        if given is not None and abs(binning - given) > 1e-3 * given:
            raise ConfigError(
                "the pixel size of the coordinates is given twice",
                where="--coord-binning, --coord-angpix",
                expected=f"{binning:g} unbinned pixels of {pixel_size_angstrom:g} Å",
                found=f"{given:g}",
                fix="leave one out",
            )
        return binning
    return given if given is not None else of_file if of_file is not None else 1.0


def optics(program: Optics, options: ImportOptions) -> Optics:
    """Optics of the program's files, with what the options say instead."""
    return replace(
        program,
        voltage_kv=program.voltage_kv if options.voltage is None else options.voltage,
        spherical_aberration_mm=(
            program.spherical_aberration_mm if options.spherical_aberration is None else options.spherical_aberration
        ),
        amplitude_contrast=(
            program.amplitude_contrast if options.amplitude_contrast is None else options.amplitude_contrast
        ),
    )


def hand(program: float, options: ImportOptions) -> float:
    """Sign of defocus against depth: that of the program's frame, or of `--hand`."""
    return program if options.hand is None else float(options.hand)


def image_size(options: ImportOptions) -> tuple[int, int] | None:
    """(width, height) of `--image-size`.

    Raises
    ------
    ConfigError
        if it is not two numbers.
    """
    size = _size(options.image_size, 2, "--image-size")
    return None if size is None else (size[0], size[1])


def tomogram_size(options: ImportOptions) -> tuple[int, int, int] | None:
    """(x, y, z) of `--tomogram-size`.

    Raises
    ------
    ConfigError
        if it is not three numbers.
    """
    size = _size(options.tomogram_size, 3, "--tomogram-size")
    return None if size is None else (size[0], size[1], size[2])


def _size(text: str | None, count: int, option: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    values = whole_numbers(text)
    if len(values) != count:
        raise ConfigError(
            "a size has the wrong number of values",
            where=option,
            expected=str(count),
            found=text,
            fix=f"give {count} whole numbers with commas between them",
        )
    return values
