"""Options of `tiltwise select` and `tiltwise expand`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from tiltwise.config import InputOptions, OutputOptions, option
from tiltwise.errors import ConfigError
from tiltwise.maps.options import SymmetryName


class ParticleSetOptions(InputOptions, OutputOptions):
    """A set whose particles are handled without their images."""

    coordinate_binning: float | None = option(
        None,
        gt=0,
        group="advanced",
        help="unbinned pixels per unit of rlnCoordinateX/Y/Z, for coordinates in binned pixels",
    )

    @model_validator(mode="after")
    def _has_input(self) -> ParticleSetOptions:
        self.require_particles()
        return self


class SelectOptions(ParticleSetOptions):
    """Criteria, in the order in which they are applied: each is asked of what those before it have left."""

    command: ClassVar[str] = "select"

    tomo: str | None = option(None, help="names of tomograms to keep, with * and ?, several with commas")
    not_tomo: str | None = option(None, help="names of tomograms to leave out, likewise")
    classes: str | None = option(None, flags=("--class", "--keep"), help="classes to keep: numbers with commas")
    min_class_posterior: float | None = option(
        None,
        ge=0,
        le=1,
        help="tiltwiseClassPosterior at least: how certain the class is, as tiltwise classify writes it",
    )
    min_probability: float | None = option(
        None, ge=0, le=1, help="rlnMaxValueProbDistribution at least: how certain the pose is"
    )
    min_log_likelihood: float | None = option(None, help="rlnLogLikeliContribution at least")
    where: str | None = option(
        None, help="a condition on columns, such as 'rlnNrOfSignificantSamples < 50', see tiltwise star filter -h"
    )
    min_tilts: int | None = option(None, ge=1, help="tilts at least that show the particle")
    border: float | None = option(
        None, unit="Å", gt=0, help="distance at least from the centre of the particle to the faces of the tomogram"
    )
    lattice: bool = option(
        False, help="particles must lie and be turned to their neighbours as most of the set are: a lattice, a coat"
    )
    lattice_probability: float = option(
        0.8, gt=0, lt=1, help="--lattice: probability to be on it, by all neighbours, from which on particles are kept"
    )
    lattice_neighbours: int = option(
        1, ge=1, help="--lattice: places of neighbours that must be taken by particles that are kept, besides"
    )
    neighbour_distance: float | None = option(
        None, unit="Å", gt=0, help="--lattice: neighbours are looked for up to here; default: 1.5 times the spacing"
    )
    lattice_shift: float | None = option(
        None,
        unit="Å",
        gt=0,
        group="advanced",
        help="--lattice: how far a neighbour may be from its place; default: 0.4 of the spacing",
    )
    lattice_angle: float | None = option(
        None,
        unit="°",
        gt=0,
        le=180,
        group="advanced",
        help="--lattice: how far a neighbour may be turned off its place; default: 25",
    )
    symmetry: SymmetryName = option(
        "C1", flags=("--sym",), help="--lattice: point group of the particle, whose mates are the same"
    )
    min_distance: float | None = option(
        None, unit="Å", gt=0, help="of particles closer than this the one with the best score is kept"
    )
    score: str | None = option(
        None,
        help="--min-distance: column whose largest value is best; default: rlnLogLikeliContribution, "
        "rlnMaxValueProbDistribution, or the order of the file",
    )

    @model_validator(mode="after")
    def _all_have_effect(self) -> SelectOptions:
        of_columns = (
            "tomo",
            "not_tomo",
            "classes",
            "min_class_posterior",
            "min_probability",
            "min_log_likelihood",
            "where",
        )
        criteria = (*of_columns, "min_tilts", "border", "min_distance")
        if not self.lattice and all(getattr(self, name) is None for name in criteria):
            raise ConfigError(
                "nothing to select by",
                where="tiltwise select",
                expected=f"at least one of --lattice, {', '.join(self.spec(name).flag for name in criteria)}",
                found="none",
                fix="see tiltwise select -h",
            )
        if not self.lattice:
            of_lattice = (
                "lattice_probability",
                "lattice_neighbours",
                "neighbour_distance",
                "lattice_shift",
                "lattice_angle",
                "symmetry",
            )
            self.refuse_without_effect(of_lattice, because="there is no --lattice", fix="give --lattice as well")
        if self.min_distance is None:
            self.refuse_without_effect(
                ("score",), because="there is no --min-distance", fix="give --min-distance as well, or use --where"
            )
        return self


class ExpandOptions(ParticleSetOptions):
    """Which symmetry mates every particle is copied to."""

    command: ClassVar[str] = "expand"

    symmetry: SymmetryName = option(..., flags=("--sym",), help="point group of the particle, and of its poses")
