"""Running sums of an iteration on disk, so that a run that is killed continues in the middle of it.

Sums of one half set and fold are one checkpoint, which holds everything that its units have left so far: whenever it
was written, going on from it gives the bytes of a run that was never stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.units import Key, RunningSums
from tiltwise.exec import Checkpoint, Job
from tiltwise.maps.volumes import Accumulator

EVERY_S = 60.0
"""Seconds of work that may be lost, if writing takes little of them."""
COST = 20.0
"""Work between two writes, at least, in units of the time the last one took."""

_NOISE = tuple(f.name for f in fields(NoiseSums))
_ESTIMATE = tuple(f.name for f in fields(PoseEstimate))


def arrays_of(sums: RunningSums) -> dict[str, NDArray[Any]]:
    """Arrays from which `sums_from` makes the same sums."""
    particles, estimates = list(sums.estimates), list(sums.estimates.values())
    arrays: dict[str, NDArray[Any]] = {"data": sums.accumulator.data, "weight": sums.accumulator.weight}
    arrays["series"] = np.array(list(sums.noise), np.int64)
    for series, noise in sums.noise.items():
        arrays |= {f"noise_{series}_{name}": getattr(noise, name) for name in _NOISE}
    arrays["particles"] = np.array(particles, np.int64)
    arrays |= {f"estimate_{name}": np.array([getattr(e, name) for e in estimates]) for name in _ESTIMATE}
    arrays["missed"] = np.array(sums.missed, np.float64)
    return arrays


def sums_from(saved: Checkpoint, box: int) -> RunningSums:
    """Sums that were saved as `arrays_of` them."""
    arrays = saved.arrays
    columns = [[row if row.ndim else row.item() for row in arrays[f"estimate_{name}"]] for name in _ESTIMATE]
    return RunningSums(
        Accumulator(box, arrays["data"], arrays["weight"]),
        {int(i): NoiseSums(*(arrays[f"noise_{i}_{name}"] for name in _NOISE)) for i in arrays["series"]},
        {int(p): PoseEstimate(*values) for p, *values in zip(arrays["particles"], *columns, strict=True)},
        [float(share) for share in arrays["missed"]],
        int(saved.state["done"]),
    )


@dataclass(slots=True)
class KeptSums:
    """Keeps the running sums of one E-step in checkpoints of the job."""

    job: Job
    keys: Collection[Key]
    identity: Mapping[str, Any]
    """what tells this E-step from others of the run"""
    _last: float = field(init=False, default_factory=monotonic)
    _wait: float = field(init=False, default=0.0)
    _saved: dict[Key, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._wait = EVERY_S

    @staticmethod
    def _name(key: Key) -> str:
        return f"sums-{key[0]}-{key[1]}"

    def load(self, box: int) -> dict[Key, RunningSums]:
        """Sums of this E-step that an earlier run has left; those of others are removed."""
        found: dict[Key, RunningSums] = {}
        for key in self.keys:
            saved = self.job.load_checkpoint(self._name(key))
            if saved is None:
                continue
            if saved.state["of"] != dict(self.identity):
                self.job.drop_checkpoint(self._name(key))
                continue
            found[key] = sums_from(saved, box)
            self._saved[key] = found[key].done
        return found

    def keep(self, sums: Mapping[Key, RunningSums], *, now: bool = False) -> None:
        """Writes what is not on disk, if it is time to, or `now`."""
        if not now and monotonic() - self._last < self._wait:
            return
        began = monotonic()
        for key, part in sums.items():
            if self._saved.get(key, 0) < part.done:
                state = {"of": dict(self.identity), "done": part.done}
                self.job.save_checkpoint(self._name(key), arrays_of(part), state)
                self._saved[key] = part.done
        self._last = monotonic()
        self._wait = max(EVERY_S, COST * (self._last - began))

    def drop(self) -> None:
        """Removes the sums: the E-step is in the checkpoint of the run, or in its results."""
        for key in self.keys:
            self.job.drop_checkpoint(self._name(key))
