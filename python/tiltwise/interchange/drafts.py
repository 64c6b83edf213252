"""What the files of another program are assembled into, before it becomes an optimisation set.

A reader in `tiltwise.io.foreign` gives the numbers of one file as they stand.  The module of a program in this
package joins several such files into a `SeriesDraft` for every tilt series and a `ParticleDraft` for every list of
particles, in which each number has one meaning.  `tiltwise.interchange.assemble` checks them and makes the set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.interchange.conventions import CoordinateConvention, EulerConvention
from tiltwise.model import OptimisationSet

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Optics:
    """Optics of one session."""

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    group_name: str = "opticsGroup1"


@dataclass(frozen=True, slots=True)
class ViewCtf:
    """CTF of F views; RELION's signs: underfocus positive, angle from the image's x axis to U."""

    defocus_u_angstrom: F64
    defocus_v_angstrom: F64
    defocus_angle_deg: F64
    phase_shift_deg: F64 | None = None
    """None: no phase plate"""

    def take(self, rows: NDArray[np.intp]) -> ViewCtf:
        """Some of the views, in the order of `rows`."""
        phase = None if self.phase_shift_deg is None else self.phase_shift_deg[rows]
        return ViewCtf(
            self.defocus_u_angstrom[rows], self.defocus_v_angstrom[rows], self.defocus_angle_deg[rows], phase
        )


@dataclass(frozen=True, slots=True)
class SeriesDraft:
    """One tilt series of F views that are kept; row f of every array is the same view."""

    name: str
    where: str
    """files it was made from, for messages"""
    pixel_size_angstrom: float
    """of the images the projection refers to"""
    image_size: tuple[int, int]
    """(width, height) in pixels; (0, 0) where the images are not at hand"""
    tomogram_size: tuple[int, int, int]
    """(width, height, depth) in unbinned pixels"""
    projection: F64
    """(F, 4, 4) from 0-based positions (pixels from the corner of the tomogram) to 0-based image pixels and depth"""
    tilt_deg: F64
    """(F,) angle of the stage"""
    pre_exposure: F64
    """(F,) dose before the view, e/Å²"""
    ctf: ViewCtf | None
    """None where no CTF is known"""
    image_files: tuple[str, ...]
    """(F,) file of every view; empty when the images are not at hand"""
    image_index: NDArray[np.int64]
    """(F,) 0-based section of every view in its file"""
    hand: float = -1.0
    ctf_scale: F64 | None = None
    """(F,) amplitude of every view; None: 1"""
    optics: Optics = field(default_factory=Optics)
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """label -> one value per view, written as further columns of the tilt table"""
    notes: tuple[str, ...] = ()
    """sentences a user should read: what was assumed, left out or ignored"""
    applied: tuple[str, ...] = ()
    """sentences that say which files and conventions were used"""


@dataclass(frozen=True, slots=True)
class ParticleDraft:
    """P particles of any number of tomograms."""

    where: str
    """file they are from, for messages"""
    tomogram: tuple[str, ...]
    """(P,) names of their tilt series"""
    coordinate: F64
    """(P, 3) as stored, (x, y, z)"""
    convention: CoordinateConvention
    """unit and origin of `coordinate`"""
    coordinate_binning: float
    """unbinned pixels per pixel of `coordinate`; 1 where the unit is Å"""
    angles_deg: F64 | None = None
    """(P, 3) as stored; None: no orientations"""
    euler: EulerConvention | None = None
    """meaning of `angles_deg`"""
    shift: F64 | None = None
    """(P, 3) to be added to `coordinate`, same unit, along the axes of the tomogram"""
    half_set: NDArray[np.int64] | None = None
    """(P,) 1 or 2"""
    name: tuple[str, ...] = ()
    """(P,) unique; empty: `TOMOGRAM/N`"""
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """label -> one value per particle, written as further columns"""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tomogram)


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an importer: a set that can be written, and what to tell the user."""

    optset: OptimisationSet
    notes: tuple[str, ...] = ()
    conventions: tuple[str, ...] = ()
    """sentences that say which offset, sign or axis order was applied"""
    particle_columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    tilt_columns: Mapping[str, Mapping[str, Sequence[object]]] = field(default_factory=dict)
    """per tilt series: further columns of its table"""
