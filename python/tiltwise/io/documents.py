"""What an optimisation set was read from, so that a writer can change a few columns and keep the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tiltwise.io.star import StarDocument
from tiltwise.model import OpticsGroup, Particles, TiltSeries


@dataclass(frozen=True, slots=True)
class CoordinateStyle:
    """How a particle file stores coordinates.

    `centred`: rlnCenteredCoordinate[XYZ]Angst, Å from the centre of the tomogram (RELION-5).  `pixel`:
    rlnCoordinate[XYZ]; the position from the corner is `stored * binning + offset`.
    """

    kind: Literal["centred", "pixel"] = "centred"
    offset: float = 0.0
    """1 where RELION-4's rule applies, which adds (1, 1, 1) to stored coordinates"""
    binning: float = 1.0


@dataclass(frozen=True, slots=True)
class Documents:
    """STAR documents of an optimisation set and the values they held when read.

    Writers compare with `series`, `particles` and `optics`, and rewrite only what differs.
    """

    tomograms: StarDocument
    tilt_tables: dict[str, StarDocument]
    """one document per tilt series (RELION-5); empty where the tables are embedded (RELION-4)"""
    particle_table: StarDocument
    coordinates: CoordinateStyle
    series: tuple[TiltSeries, ...]
    particles: Particles
    optics: tuple[OpticsGroup, ...]
    stacks_are_2d: bool
    notes: tuple[str, ...] = field(default=())
    """sentences about the input that a user should read"""
