"""Options of `tiltwise simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from tiltwise.config import OutputOptions, option
from tiltwise.errors import ConfigError

PHANTOM = "phantom"


class SimulateOptions(OutputOptions):
    """Specimen, microscope, errors planted in the metadata, and noise of simulated tilt series."""

    command: ClassVar[str] = "simulate"

    # Particle
    model: str = option(PHANTOM, help="`phantom`, a map (.mrc, .map) or an atomic model (.pdb, .cif)")
    particle_diameter: float | None = option(
        None, unit="Å", gt=0, help="diameter of the phantom (default: 180), or room that another model needs"
    )
    symmetry: str = option(
        "C1",
        flags=("--sym",),
        help="point group of the phantom: C1, C2, ..., D2, ..., T, O, I or I1 to I4",
        pattern=r"^([CcDd][1-9]\d?|[TtOo]|[Ii][1-4]?)$",
    )
    hinge: float = option(
        0.0,
        unit="°",
        ge=0,
        le=90,
        help="a second domain of the phantom rocks about a hinge by angles spread evenly up to this, either way",
    )
    beads: int = option(900, group="advanced", ge=20, help="Gaussians of the phantom")
    phantom_seed: int = option(1, group="advanced", ge=0, help="seed of the fold of the phantom")
    atomic_bfactor: float = option(40.0, unit="Å²", group="advanced", ge=0, help="B-factor of every atom of a model")

    # Amount and size
    pixel_size: float = option(5.4, flags=("--angpix",), unit="Å", gt=0, help="pixel size of the tilt images")
    box: int = option(64, flags=("--b",), unit="px", ge=8, help="box of the true map and of the starting reference")
    tilt_series: int = option(2, ge=1, le=999, help="number of tilt series")
    particles: int = option(75, ge=1, help="particles in each tilt series")
    width_px: int = option(384, unit="px", ge=16, multiple_of=2, help="width of the tilt images")
    height_px: int = option(384, unit="px", ge=16, multiple_of=2, help="height of the tilt images")
    thickness: float = option(700.0, unit="Å", gt=0, help="thickness of the slab that holds the particles")
    membrane_radius: float | None = option(
        None,
        unit="Å",
        gt=0,
        help="particles sit on a sphere of this radius in the middle of each tomogram, their z axis along its normal; "
        "the metadata hold the normal, and no rotation about it",
    )
    rocking: float = option(
        0.0,
        unit="°",
        ge=0,
        help="width of the tilt of particles off the normal of their membrane, or of their lattice, in each direction",
    )
    spacing: float | None = option(
        None, unit="Å", ge=0, group="advanced", help="smallest distance of two particles; default: the diameter"
    )
    lattice: float | None = option(
        None,
        unit="Å",
        gt=0,
        group="advanced",
        help="particles sit on a hexagonal lattice of this spacing in the middle plane of the slab",
    )
    margin_px: int | None = option(
        None, unit="px", ge=0, group="advanced", help="room between particles and image edges in all tilts; half --b"
    )
    orientations: Literal["random", "uniform", "aligned"] = option(
        "random",
        help="orientations drawn at random, spread evenly over all of them, or within --rocking of one (a lattice)",
    )

    # Tilts
    tilt_min: float = option(-60.0, unit="°", ge=-89, le=89, help="lowest tilt angle")
    tilt_max: float = option(60.0, unit="°", ge=-89, le=89, help="highest tilt angle")
    tilt_step: float = option(3.0, unit="°", gt=0, help="tilt increment; the order is dose-symmetric")
    tilt_axis: float = option(85.0, unit="°", group="advanced", help="in-plane angle of the tilt axis (rlnTomoZRot)")
    tilt_shift: float = option(10.0, unit="Å", ge=0, group="advanced", help="rms shift of the images along x and y")
    dose: float = option(3.0, unit="e/Å²", ge=0, help="dose of each tilt image")

    # Optics
    voltage: float = option(300.0, unit="kV", gt=0, group="advanced", help="acceleration voltage")
    spherical_aberration: float = option(2.7, flags=("--Cs",), unit="mm", ge=0, group="advanced", help="Cs")
    amplitude_contrast: float = option(0.1, flags=("--Q0",), ge=0, le=1, group="advanced", help="amplitude contrast")
    hand: int = option(-1, ge=-1, le=1, group="advanced", help="sign of defocus against depth: -1 as RELION, or 1")
    defocus: float = option(40000.0, unit="Å", help="mean underfocus")
    defocus_spread: float = option(4000.0, unit="Å", ge=0, group="advanced", help="rms difference between tilt series")
    defocus_jitter: float = option(200.0, unit="Å", ge=0, group="advanced", help="rms difference between tilts")
    astigmatism: float = option(0.0, unit="Å", ge=0, help="difference of the two defoci, at a random azimuth")
    scale_at_60: float = option(
        1.0, gt=0, le=1, group="advanced", help="amplitude left at 60° of tilt; falls with the path through the slab"
    )
    motion: float = option(
        0.0,
        unit="Å",
        ge=0,
        help="rms step of every particle along each axis from one tilt to the next, smooth in space",
    )
    deformation: Literal["none", "affine", "fourier", "spline"] = option(
        "none", help="random deformation of the tilt images in their plane, which the metadata do not state"
    )
    deformation_rms: float = option(
        5.0, unit="Å", gt=0, help="displacement of that deformation, root mean square over the image"
    )
    deformation_per: Literal["series", "tilt"] = option(
        "series", group="advanced", help="one deformation for all tilts of a series, or one for every tilt"
    )
    deformation_grid: int = option(
        3, ge=2, le=8, group="advanced", help="nodes of a spline along each axis, or grid that RELION counts waves by"
    )

    # Errors of the metadata
    error_position: float = option(0.0, unit="Å", ge=0, help="rms error of particle positions along each axis")
    error_orientation: float = option(0.0, unit="°", ge=0, help="rms rotation between true and stated orientations")
    error_shift: float = option(0.0, unit="Å", ge=0, help="rms error of the tilt shifts along x and y")
    error_angle: float = option(0.0, unit="°", ge=0, help="rms error of each of the three angles of every tilt")
    error_defocus: float = option(0.0, unit="Å", ge=0, help="rms error of the defocus of every tilt")
    astigmatism_known: bool = option(True, group="advanced", help="state the astigmatism in the metadata")
    scale_known: bool = option(True, group="advanced", help="state the scale of every tilt in the metadata")

    # Images
    snr: float | None = option(
        None, gt=0, help="energy of a particle image over that of the noise in its disc; default: 0.1 without --noise"
    )
    noise: float | None = option(
        None, ge=0, help="standard deviation of the noise, instead of --snr; the map's peak is 1"
    )
    noise_exponent: float = option(
        0.0, ge=0, le=4, group="advanced", help="noise power falls as |k| to minus this power; 0 is white"
    )
    signal: bool = option(True, group="advanced", help="draw the particles; without, images are noise alone")
    precision: Literal["float16", "float32"] = option("float16", group="advanced", help="numbers in the stacks")
    reference_resolution: float = option(
        40.0, unit="Å", gt=0, help="low-pass filter of the starting reference ref<N>.mrc"
    )
    seed: int = option(1, ge=0, help="seed of everything random but the phantom's fold")
    threads: int = option(0, flags=("--threads", "--j"), may_change=True, ge=0, help="threads; 0 means all cores")

    @model_validator(mode="after")
    def _consistent(self) -> SimulateOptions:
        if self.tilt_max < self.tilt_min:
            raise ConfigError(
                "the tilt range is empty",
                where="--tilt-min, --tilt-max",
                expected="lowest angle first",
                found=f"{self.tilt_min:g}° to {self.tilt_max:g}°",
                fix="swap --tilt-min and --tilt-max",
            )
        if self.hand == 0:
            raise ConfigError("the hand is a sign", where="--hand", expected="-1 or 1", found="0", fix="use --hand -1")
        if self.snr is not None and self.noise is not None:
            raise ConfigError("the noise is given twice", where="--snr, --noise", fix="leave one of them out")
        if not self.signal and self.noise is None:
            raise ConfigError(
                "images without particles have no signal-to-noise ratio", where="--no-signal", fix="give --noise"
            )
        if self.deformation == "fourier" and self.deformation_grid < 4:
            raise ConfigError(
                "a grid of waves is too small",
                where="--deformation-grid",
                expected="at least 4: smaller grids lack waves along one axis",
                found=str(self.deformation_grid),
                fix="give --deformation-grid 4, or splines",
            )
        if self.rocking > 0 and self.membrane_radius is None and self.orientations != "aligned":
            raise ConfigError(
                "there is no normal to rock about",
                where="--rocking",
                fix="give --membrane-radius or --orientations aligned, or leave it out",
            )
        if self.lattice is not None and self.membrane_radius is not None:
            raise ConfigError(
                "particles sit on a lattice or on a membrane",
                where="--lattice, --membrane-radius",
                fix="leave one of them out",
            )
        if self.hinge > 0 and (self.model != PHANTOM or self.symmetry.upper() != "C1"):
            raise ConfigError(
                "only the phantom without symmetry has a domain that rocks",
                where="--hinge",
                found=f"--model {self.model} --sym {self.symmetry}",
                fix="leave --hinge out, or --model and --sym",
            )
        if self.model != PHANTOM and self.symmetry.upper() != "C1":
            raise ConfigError(
                "only the phantom can be given a symmetry",
                where="--sym",
                found=f"--sym {self.symmetry} with --model {self.model}",
                fix="leave --sym out: the model has the symmetry it has",
            )
        return self

    @property
    def tomogram_size(self) -> tuple[int, int, int]:
        """(width, height, depth) in pixels, all even."""
        return self.width_px, self.height_px, 2 * max(1, round(self.thickness / self.pixel_size / 2))

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the tilt images in pixels."""
        return self.width_px, self.height_px


def is_map_file(path: str | Path) -> bool:
    """Whether the name is that of a map, not of an atomic model."""
    return Path(path).suffix.lower() in (".mrc", ".map", ".ccp4", ".rec")
