"""What an initial model keeps between iterations, and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec import Checkpoint
from tiltwise.exec.protocols import Scalar
from tiltwise.extract.source import Poses
from tiltwise.initial.plan import March

HALVES = (1, 2)


@dataclass(slots=True)
class Frame:
    """A picture of the film: central slices (3, N, N) of a map, across z, y and x."""

    title: str
    slices: NDArray[np.float32]

    @classmethod
    def of(cls, title: str, density: NDArray[np.float32]) -> Frame:
        """Of a map (N, N, N)."""
        middle = len(density) // 2
        return cls(title, np.stack([np.take(density, middle, axis=axis) for axis in range(3)]))


@dataclass(slots=True)
class Start:
    """What a start from random orientations has come to."""

    map: NDArray[np.float32]
    evidence: list[float]
    """mean log evidence of a particle at every iteration; the last is of the same particles in all starts"""
    film: list[Frame]


@dataclass(slots=True)
class State:
    """Everything one step hands to the next."""

    offset_sigma_angstrom: float
    """width of the prior on displacements along each axis"""
    starts: list[Start] = field(default_factory=list)
    choice: dict[str, Any] = field(default_factory=dict)
    """which start, hand and axes were chosen; empty before"""
    maps: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """of each half; empty before the choice"""
    poses: Poses | None = None
    noise: list[NDArray[np.float64]] = field(default_factory=list)
    """sigma^2 (F, S) of every series"""
    curve: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    march: March = field(default_factory=lambda: March(0))
    film: list[Frame] = field(default_factory=list)
    history: list[dict[str, Scalar]] = field(default_factory=list)


def checkpoint_of(state: State) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
    """Arrays and plain values from which `state_from` continues."""
    arrays: dict[str, NDArray[Any]] = {f"noise_{i}": spectrum for i, spectrum in enumerate(state.noise)}
    for number, start in enumerate(state.starts):
        arrays[f"start_{number}"] = start.map
        arrays |= {f"start_{number}_film_{i}": frame.slices for i, frame in enumerate(start.film)}
    arrays |= {f"film_{i}": frame.slices for i, frame in enumerate(state.film)}
    arrays |= {f"map_{half}": density for half, density in state.maps.items()}
    if state.poses is not None:
        arrays |= {"displacement": state.poses.displacement_angstrom, "rotation": state.poses.rotation}
    arrays["curve"] = state.curve
    return arrays, {
        "starts": [
            {"evidence": start.evidence, "film": [frame.title for frame in start.film]} for start in state.starts
        ],
        "film": [frame.title for frame in state.film],
        "choice": state.choice,
        "offset_sigma_angstrom": state.offset_sigma_angstrom,
        "march": asdict(state.march),
        "history": state.history,
        "n_series": len(state.noise),
    }


def state_from(saved: Checkpoint, stored_px: NDArray[np.float64]) -> State:
    """State of a checkpoint; `stored_px` (P, 3) are the coordinates of the particle file."""
    arrays, values = saved.arrays, saved.state
    starts = [
        Start(
            arrays[f"start_{number}"],
            list(one["evidence"]),
            [Frame(title, arrays[f"start_{number}_film_{i}"]) for i, title in enumerate(one["film"])],
        )
        for number, one in enumerate(values["starts"])
    ]
    poses = Poses(stored_px, arrays["displacement"], arrays["rotation"]) if "rotation" in arrays else None
    return State(
        float(values["offset_sigma_angstrom"]),
        starts,
        dict(values["choice"]),
        {half: arrays[f"map_{half}"] for half in HALVES if f"map_{half}" in arrays},
        poses,
        [arrays[f"noise_{i}"] for i in range(values["n_series"])],
        arrays["curve"],
        March(**values["march"]),
        [Frame(title, arrays[f"film_{i}"]) for i, title in enumerate(values["film"])],
        list(values["history"]),
    )
