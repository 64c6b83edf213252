"""What one iteration of a classification hands to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.errors import DataError
from tiltwise.exec import Checkpoint
from tiltwise.extract.source import Poses
from tiltwise.geometry.rotations import angular_distance_deg

F64 = NDArray[np.float64]

MOVES = 0.3
"""Median move of a particle, over the width of its posterior, below which alignment gains nothing."""
DEAD = 0.5
"""Particles below which a class has died."""


@dataclass(frozen=True, slots=True)
class Search:
    """Where particles are sought, and in what noise."""

    poses: Poses
    noise: list[F64]
    """sigma^2 (F, S) of every series"""
    offset_sigma_angstrom: float
    """width of the prior on displacements from the coordinate"""


@dataclass(frozen=True, slots=True)
class Move:
    """How far the median particle has moved in an iteration."""

    angle_deg: float
    angstrom: float
    still: bool
    """whether both are little beside the widths of posteriors: alignment gains nothing any more"""

    @classmethod
    def of(cls, before: Poses, after: Poses, estimates: Sequence[PoseEstimate]) -> Move:
        """From poses before and after, and what is known of those after."""
        angle = float(np.median(angular_distance_deg(after.rotation, before.rotation)))
        shift = after.displacement_angstrom - before.displacement_angstrom
        angstrom = float(np.median(np.linalg.norm(shift, axis=1)))
        # widths are those of one axis of three
        width = MOVES * np.sqrt(3.0) * np.median([(one.std_deg, one.std_angstrom) for one in estimates], axis=0)
        return cls(angle, angstrom, bool(angle <= width[0] and angstrom <= width[1]))


@dataclass(slots=True)
class State:
    """Posteriors and shares of C classes; the one of junk is the last."""

    iteration: int
    posterior: F64
    """(P, C)"""
    share: F64
    """(C,) mixing proportions"""
    log_likelihood: F64
    """(P,) log evidence over that of nothing there"""
    history: list[dict[str, Any]] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    """classes, from 1 on, that have lost their particles"""
    converged: bool = False
    search: Search | None = None
    """of runs that align particles"""
    maps: dict[int, list[NDArray[np.float32]]] = field(default_factory=dict)
    """of such runs: fold to the maps of the classes without it"""
    shell: int = 0
    """last that is compared; of such runs"""
    pose_probability: F64 | None = None
    """(P,) of such runs: that of the best pose in the most likely class"""
    over_nothing: F64 | None = None
    """(P,) log evidence of the average over that of nothing; of alignment to one map, where junk is told"""
    move: Move | None = None
    """of the last iteration, of such runs"""
    near: bool = False
    """whether particles that were sought everywhere have been found, and are sought near their poses"""
    places: list[str] = field(default_factory=list)
    """what the first guess says of where particles differ; empty if it was made with given maps"""

    @property
    def classes(self) -> NDArray[np.int64]:
        """(P,) most likely class, from 1 on."""
        return np.asarray(self.posterior.argmax(axis=1) + 1, np.int64)

    def refuse_empty(self, junk: bool) -> None:
        """Raises DataError if no class that is not `junk` has particles."""
        kinds = len(self.share) - junk
        if (self.posterior[:, :kinds].sum(axis=0) < DEAD).all():
            raise DataError(
                "no position holds a particle",
                where=f"iteration {self.iteration}",
                expected="positions that a map explains better than nothing does",
                found=f"all {len(self.posterior)} are junk",
                fix="check the poses, and the map of --ref; without --junk the particles stay in their classes",
            )

    def bury(self, junk: bool) -> list[str]:
        """Empties classes that have lost their particles, for good, and says so; the last is that of `junk`, if any.

        Raises
        ------
        DataError
            if no class that is not junk is left.
        """
        expected = self.posterior.sum(axis=0)
        new = [number for number, count in enumerate(expected, 1) if count < DEAD and number not in self.dead]
        if not new:
            return []
        self.refuse_empty(junk)
        self.dead += new
        empty = np.array(self.dead) - 1
        kinds = len(self.share) - junk
        left = kinds - int((empty < kinds).sum())
        self.share[empty] = 0.0
        self.share /= self.share.sum()
        kept = self.posterior.copy()
        kept[:, empty] = 0.0
        total = kept.sum(axis=1, keepdims=True)
        self.posterior = np.where(total > 0, kept / np.where(total > 0, total, 1.0), self.share)
        return [
            f"iteration {self.iteration}: no position is junk ({expected[number - 1]:.2g} expected), and the class "
            "for it stays empty"
            if number > kinds
            else f"iteration {self.iteration}: class {number} has lost its particles ({expected[number - 1]:.2g} "
            f"expected) and stays empty: the images show no more than {left} {'class' if left == 1 else 'classes'} "
            "from here"
            for number in new
        ]

    def checkpoint(self) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        """Arrays and plain values from which `load` makes the same state."""
        arrays: dict[str, NDArray[Any]] = {
            "posterior": self.posterior,
            "share": self.share,
            "log_likelihood": self.log_likelihood,
        }
        arrays |= {f"map_{fold}_{k}": one for fold, maps in self.maps.items() for k, one in enumerate(maps)}
        if self.search is not None:
            poses = self.search.poses
            arrays |= {"rotation": poses.rotation, "displacement": poses.displacement_angstrom}
            arrays |= {f"noise_{i}": spectrum for i, spectrum in enumerate(self.search.noise)}
        optional = {"pose_probability": self.pose_probability, "over_nothing": self.over_nothing}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        return arrays, {
            "offset_sigma_angstrom": None if self.search is None else self.search.offset_sigma_angstrom,
            "maps": [[fold, len(maps)] for fold, maps in self.maps.items()],
            "iteration": self.iteration,
            "shell": self.shell,
            "history": self.history,
            "dead": self.dead,
            "converged": self.converged,
            "near": self.near,
            "places": self.places,
        }

    @classmethod
    def load(cls, saved: Checkpoint, stored_px: F64) -> State:
        """State of a checkpoint; `stored_px` (P, 3) are the coordinates of the particle file."""
        arrays, values = saved.arrays, saved.state
        search = None
        if values["offset_sigma_angstrom"] is not None:
            poses = Poses(stored_px.copy(), arrays["displacement"], arrays["rotation"])
            count = sum(name.startswith("noise_") for name in arrays)
            search = Search(poses, [arrays[f"noise_{i}"] for i in range(count)], values["offset_sigma_angstrom"])
        return cls(
            int(values["iteration"]),
            arrays["posterior"],
            arrays["share"],
            arrays["log_likelihood"],
            list(values["history"]),
            list(values["dead"]),
            bool(values["converged"]),
            search,
            {fold: [arrays[f"map_{fold}_{k}"] for k in range(count)] for fold, count in values["maps"]},
            int(values["shell"]),
            arrays.get("pose_probability"),
            arrays.get("over_nothing"),
            near=bool(values["near"]),
            places=list(values.get("places", [])),
        )
