"""Options of `tiltwise initial-model`, and the boxes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from tiltwise.config import ComputeOptions, InputOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import ImageOptions, SymmetryName

ROOM = 1.5
"""Box of the map over the diameter of the particle."""
MARGIN = 4 / 3
"""Box that is cut from the tilt images over that of the map: room for what the CTF spreads."""
FEWEST_PX = 16
"""Smallest box of a map."""
FINEST = 0.8
"""Finest period of the pixels over the resolution that is aimed at."""
RESOLUTION_ANGSTROM, DETAIL = 25.0, 8.0
"""Resolution aimed at: this, or the diameter over that if it is coarser."""
FIRST_DETAIL = 0.3
"""Period over the diameter at which a start begins; it takes two shells more."""
FIRST_SHELL = 5
SIGMA_OF_REACH = 2 / 3
"""Width of the first prior on displacements over the radius of the search for shifts."""


class InitialModelOptions(ComputeOptions, InputOptions, OutputOptions):
    """Options of `tiltwise initial-model`."""

    command: ClassVar[str] = "initial-model"
    ignored_flags: ClassVar[Mapping[str, int]] = {
        "--grad": 0,
        "--denovo-3dref": 0,
        "--ctf": 0,
        "--zero-mask": 0,
        "--flatten-solvent": 0,
        "--auto-sampling": 0,
        "--iter": 1,
        "--tau2-fudge": 1,
        "--pool": 1,
        "--pad": 1,
        "--gpu": 1,
    }

    particle_diameter: float = option(..., unit="Å", gt=0, help="diameter of the sphere that holds the particle")
    symmetry: SymmetryName = option(
        "C1", flags=("--sym",), help="point group of the particle; a map is found without it, its axes then in the map"
    )
    find_symmetry: bool = option(False, help="say how well the map has each of the common point groups")
    resolution: float | None = option(
        None,
        unit="Å",
        gt=0,
        help="resolution to aim at; default: 25, or an eighth of the diameter if that is coarser; with --bin alone "
        "what the pixels hold",
    )
    starts: int = option(3, ge=1, le=100, help="starts from random orientations; the likeliest map goes on")
    subset: int = option(
        1000, ge=40, group="advanced", help="particles that the map is made from; the others are added at the end"
    )
    offset_range: float | None = option(
        None,
        unit="Å",
        gt=0,
        help="how far positions may be off; default: 15, or a twelfth of the diameter if more",
    )
    box: int | None = option(
        None, flags=("--b",), unit="px", ge=16, multiple_of=2, group="advanced", help="box that is cut; default: fits"
    )
    crop: int | None = option(
        None, unit="px", ge=12, multiple_of=2, group="advanced", help="box of the map; default: 1.5 diameters"
    )
    binning: float | None = option(
        None,
        flags=("--bin",),
        ge=1,
        group="advanced",
        help="binning of the images; default: as --resolution allows; with both, finer pixels change no resolution",
    )
    coordinate_binning: float | None = option(
        None,
        gt=0,
        group="advanced",
        help="unbinned pixels per unit of rlnCoordinateX/Y/Z, for coordinates in binned pixels",
    )
    split: Literal["auto", "keep", "random", "object", "tomogram"] = option(
        "auto", group="advanced", help="half sets, as in refine"
    )
    seed: int = option(1, flags=("--seed", "--random-seed"), group="advanced", ge=0, help="seed of everything random")

    @model_validator(mode="after")
    def _has_particles(self) -> InitialModelOptions:
        self.require_particles()
        return self

    @property
    def aim_angstrom(self) -> float:
        """Resolution to aim at."""
        return self.resolution or max(RESOLUTION_ANGSTROM, self.particle_diameter / DETAIL)

    @property
    def reach_angstrom(self) -> float:
        """Radius of the search for shifts."""
        return self.offset_range or max(15.0, self.particle_diameter / 12.0)

    @property
    def first_offset_sigma_angstrom(self) -> float:
        """Width, along each axis, of the prior on displacements until the first poses are known."""
        return SIGMA_OF_REACH * self.reach_angstrom

    @property
    def finest_angstrom(self) -> float:
        """Finest period that is looked at; zero if the pixels of --bin alone decide."""
        return 0.0 if self.resolution is None and self.binning is not None else FINEST * self.aim_angstrom

    def images(self, pixel_size: float) -> ImageOptions:
        """Which images are cut from tilt images of `pixel_size` Å, unbinned.

        Raises
        ------
        ConfigError
            if the pixels cannot hold the resolution, or the boxes not the particle.
        """
        binning = self.binning or max(1.0, float(np.floor(FINEST / 2.0 * self.aim_angstrom / pixel_size)))
        pixel = binning * pixel_size
        if self.finest_angstrom and 2.0 * pixel > self.aim_angstrom:
            raise ConfigError(
                "the pixels are too large for the resolution that is aimed at",
                where="--resolution" if self.binning is None else "--bin",
                expected=f"pixels of at most {self.aim_angstrom / 2:.3g} Å",
                found=f"{pixel:.3g} Å",
                fix=f"use --resolution {2.0 * pixel / FINEST:.0f}" + ("" if binning == 1.0 else ", or a smaller --bin"),
            )
        least = even(self.particle_diameter / pixel + 2)
        fits = max(even(ROOM * self.particle_diameter / pixel), least + 4, FEWEST_PX)
        crop = self.crop or self.box or fits
        box = self.box or even(MARGIN * crop)
        for flag, value in (("--crop" if self.crop else "--b", crop), ("--b", box)):
            if value < max(least, FEWEST_PX):
                raise ConfigError(
                    "the box is too small for the particle",
                    where=flag,
                    expected=f"at least {max(least, FEWEST_PX)} px of {pixel:.3g} Å for {self.particle_diameter:g} Å",
                    found=f"{value} px",
                    fix="leave --b and --crop out, or check --particle-diameter",
                )
        return ImageOptions(
            input=self.input,
            particles=self.particles,
            tomograms=self.tomograms,
            trajectories=self.trajectories,
            box=box,
            crop=crop,
            binning=binning,
            coordinate_binning=self.coordinate_binning,
            symmetry=self.symmetry,
            particle_diameter=self.particle_diameter,
            split=self.split,
            seed=self.seed,
        )


def even(size: float) -> int:
    """The next even number."""
    return 2 * int(np.ceil(size / 2 - 1e-9))
