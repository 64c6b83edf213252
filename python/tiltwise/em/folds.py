"""Cross-fitted references: every particle is compared with its own half set without its own fold.

A reference that contains the noise of a particle pulls the pose of that particle to where the noise was put before.
So each half is divided into folds that are frozen for a run (`tiltwise.maps.cross_fit.assign_folds`), and a particle
is scored against the others of its half, with the prior, mask and noise power of the whole half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.units import Key, RunningSums
from tiltwise.kernels.api import Backend
from tiltwise.maps.rigid import rigid_change
from tiltwise.maps.volumes import Accumulator, padded_shells

FOLDS = 5
MANY_OPERATIONS = 12
"""Operations of a point group that spread the noise of a particle over so many orientations that it pulls little, and
that are as many interpolations of the sums of every fold."""


def wanted_folds(asked: int | None, operations: int, *, fixed: bool) -> int:
    """Folds of each half as `--folds` asks, 1 for none; poses that are `fixed` cannot be pulled."""
    if fixed:
        return 1
    if asked is None:
        return FOLDS if operations < MANY_OPERATIONS else 1
    return max(asked, 1)


@dataclass(slots=True)
class HalfSums:
    """Completed sums of an E-step."""

    totals: dict[int, Accumulator]
    """of every half set"""
    folds: dict[Key, Accumulator]
    """of every half set and fold; empty without folds"""

    @classmethod
    def of(cls, sums: dict[Key, RunningSums], symmetry: NDArray[np.float64], backend: Backend) -> HalfSums:
        """Completes and symmetrises running sums, one after the other, and empties them; adds up folds in order."""
        result = cls({}, {})
        for key in sorted(sums):
            part = sums.pop(key).accumulator.complete().symmetrised(symmetry, backend)
            result.folds[key] = part
            if key[0] in result.totals:
                result.totals[key[0]].add(part)
            else:
                result.totals[key[0]] = part.copy()
        if len(result.folds) == len(result.totals):
            result.folds.clear()
        return result

    def without(self, key: Key, joined: int) -> Accumulator:
        """Sums of a half set without one of its folds.

        Up to shell `joined` the totals are the mean of both halves, in which a fold counts half.
        """
        total = self.totals[key[0]]
        share = np.where(padded_shells(total.box, total.padded) <= joined, 0.5, 1.0)
        return total.without(self.folds[key], share)


def drift(
    references: Mapping[Key, NDArray[np.float32]], maps: Mapping[int, NDArray[np.float32]], pixel_size: float
) -> tuple[float, float]:
    """Largest rigid motion, degrees and Å, of the particles of any fold against those of their half set.

    A reference is the half map without one of K folds: that fold has moved against the half by -(K - 1) times what
    the reference has.
    """
    worst = np.zeros(2)
    for key, reference in references.items():
        others = sum(other[0] == key[0] for other in references) - 1
        change = rigid_change(reference, maps[key[0]], pixel_size)
        worst = np.maximum(worst, [others * float(np.linalg.norm(part)) for part in change])
    return float(worst[0]), float(worst[1])
