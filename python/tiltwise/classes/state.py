"""What one iteration of a classification hands to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec import Checkpoint

F64 = NDArray[np.float64]

DEAD = 0.5
"""Particles below which a class has died."""


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

    @property
    def classes(self) -> NDArray[np.int64]:
        """(P,) most likely class, from 1 on."""
        return np.asarray(self.posterior.argmax(axis=1) + 1, np.int64)

    def checkpoint(self) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        """Arrays and plain values from which `load` makes the same state."""
        arrays = {"posterior": self.posterior, "share": self.share, "log_likelihood": self.log_likelihood}
        return arrays, {
            "iteration": self.iteration,
            "history": self.history,
            "dead": self.dead,
            "converged": self.converged,
        }

    @classmethod
    def load(cls, saved: Checkpoint) -> State:
        """State of a checkpoint."""
        arrays, values = saved.arrays, saved.state
        return cls(
            int(values["iteration"]),
            arrays["posterior"],
            arrays["share"],
            arrays["log_likelihood"],
            list(values["history"]),
            list(values["dead"]),
            bool(values["converged"]),
        )
