"""What one iteration of a refinement hands to the next, and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.schedule import Schedule
from tiltwise.em.units import Key
from tiltwise.exec import Checkpoint
from tiltwise.extract.source import Poses
from tiltwise.model import OptimisationSet

HALVES = (1, 2)


@dataclass(slots=True)
class State:
    """Everything one iteration hands to the next."""

    iteration: int
    maps: dict[int, NDArray[np.float32]]
    """map of each half, in the grey scale of the images"""
    poses: Poses
    noise: list[NDArray[np.float64]]
    """sigma^2 (F, S) of every series"""
    schedule: Schedule
    offset_sigma_angstrom: float
    curve: NDArray[np.float64]
    contrast: NDArray[np.float64]
    """(n,) factor on the CTF of every series"""
    history: list[dict[str, float]] = field(default_factory=list)
    folds: dict[Key, NDArray[np.float32]] = field(default_factory=dict)
    """map of each half without one of its folds; empty at the start, and without folds"""

    def reference(self, key: Key) -> NDArray[np.float32]:
        """What the particles of a half set and fold are compared with."""
        return self.folds.get(key, self.maps[key[0]])


def checkpoint_of(
    state: State, halves: NDArray[np.int64], folds: NDArray[np.int64], rest_folds: int | None = None
) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
    """Arrays and plain values from which `state_from` continues; `halves` and `folds` (P,) are of every particle.

    `rest_folds` is the number of those that what is taken off the images is predicted with.
    """
    arrays: dict[str, NDArray[Any]] = {f"map_{half}": state.maps[half] for half in HALVES}
    arrays |= {f"noise_{i}": spectrum for i, spectrum in enumerate(state.noise)}
    arrays |= {"displacement": state.poses.displacement_angstrom, "rotation": state.poses.rotation}
    arrays |= {"curve": state.curve, "contrast": state.contrast, "halves": halves, "folds": folds}
    arrays |= {f"fold_{half}_{fold}": density for (half, fold), density in state.folds.items()}
    return arrays, {
        "iteration": state.iteration,
        "schedule": asdict(state.schedule),
        "offset_sigma_angstrom": state.offset_sigma_angstrom,
        "history": state.history,
        "rest_folds": rest_folds,
    }


def fold_count(saved: Checkpoint) -> int:
    """Folds of each half set that a checkpoint has; 1 for none."""
    return 1 + int(saved.arrays["folds"].max(initial=0))


def state_from(saved: Checkpoint, optset: OptimisationSet) -> tuple[State, NDArray[np.int64], NDArray[np.int64]]:
    """State, half sets and folds of a checkpoint."""
    arrays, values = saved.arrays, saved.state
    keys = sorted(set(zip(arrays["halves"].tolist(), arrays["folds"].tolist(), strict=True)))
    state = State(
        int(values["iteration"]),
        {half: arrays[f"map_{half}"] for half in HALVES},
        Poses(optset.particles.coordinate_px.copy(), arrays["displacement"], arrays["rotation"]),
        [arrays[f"noise_{i}"] for i in range(len(optset.series))],
        Schedule(**values["schedule"]),
        float(values["offset_sigma_angstrom"]),
        arrays["curve"],
        arrays["contrast"],
        list(values["history"]),
        {key: arrays["fold_{}_{}".format(*key)] for key in keys if "fold_{}_{}".format(*key) in arrays},
    )
    return state, arrays["halves"], arrays["folds"]
