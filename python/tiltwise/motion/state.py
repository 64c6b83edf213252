"""What an alignment has found so far, and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec import Job
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.shifts import SharedShifts
from tiltwise.motion.whole_images import WholeShifts

F64 = NDArray[np.float64]
NAME = "align"


@dataclass(frozen=True, slots=True)
class Fitted:
    """State of one series between rounds."""

    specimen: Specimen
    alignment: Alignment
    shared: SharedShifts | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything a stopped run needs to end with the same bytes."""

    rounds: int
    """that are done"""
    fold: NDArray[np.int64]
    """(P,)"""
    folds: int
    fitted_with: Mapping[str, float]
    """velocity and length of the motion, width of deformations, as far as they were fitted"""
    curves: list[F64]
    """FSC of the references of every round"""
    found: Sequence[tuple[Alignment, SharedShifts]]
    """of every series"""
    searched: list[WholeShifts]
    """of every series if whole images were searched, else empty"""

    def save(self, job: Job) -> None:
        """Replaces the checkpoint."""
        arrays: dict[str, NDArray[Any]] = {f"curve_{i}": curve for i, curve in enumerate(self.curves)}
        for i, (alignment, shared) in enumerate(self.found):
            parts = {
                "turn": alignment.turn,
                "shift": alignment.shift_px,
                "displacement": alignment.displacement_px,
                "coefficients": alignment.coefficients,
                "amplitudes": alignment.amplitudes,
                "shared_shift": shared.shift_px,
                "shared_gain": shared.gain,
                "shared_clipped": shared.clipped,
                "shared_unseen": shared.unseen,
            }
            arrays |= {f"{name}_{i}": array for name, array in parts.items()}
        arrays["fold"] = self.fold
        arrays |= {f"searched_{i}": found.as_array() for i, found in enumerate(self.searched)}
        state = {
            "rounds": self.rounds,
            "folds": self.folds,
            "series": len(self.found),
            "fitted_with": dict(self.fitted_with),
        }
        job.save_checkpoint(NAME, arrays, state)

    @classmethod
    def load(cls, job: Job) -> State | None:
        """The checkpoint of an earlier run of this job; None without one."""
        saved = job.load_checkpoint(NAME)
        if saved is None:
            return None
        arrays, state = saved.arrays, saved.state
        rounds = int(state["rounds"])
        found = []
        for i in range(int(state["series"])):
            names = ("turn", "shift", "displacement", "coefficients", "amplitudes")
            alignment = Alignment(*(arrays[f"{name}_{i}"] for name in names))
            shared = [arrays[f"shared_{name}_{i}"] for name in ("shift", "gain", "clipped", "unseen")]
            found.append((alignment, SharedShifts(*shared)))
        whole = [arrays[f"searched_{i}"] for i in range(len(found)) if f"searched_{i}" in arrays]
        return cls(
            rounds,
            arrays["fold"],
            int(state["folds"]),
            state["fitted_with"],
            [arrays[f"curve_{i}"] for i in range(rounds)],
            found,
            [WholeShifts.from_array(one) for one in whole],
        )
