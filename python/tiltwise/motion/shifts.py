"""One shift per tilt from the summed correlations of all its particles: the start of every fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from tiltwise.motion.geometry import Alignment
from tiltwise.motion.objective import Evidence

F64 = NDArray[np.float64]

LEAST_GAIN = 8.0
"""Nats that the best shift must gain over none: the best of some hundred points of pure noise gains less."""


@dataclass(frozen=True, slots=True)
class SharedShifts:
    """Best shift of every tilt in the order of dose, to half a point of the tables."""

    shift_px: F64
    """(F, 2) unbinned; zero without evidence"""
    gain: F64
    """(F,) nats over no shift"""
    clipped: NDArray[np.bool_]
    """(F,) the best shift lies at the rim of what was looked at: it may be larger"""
    unseen: NDArray[np.bool_]
    """(F,) no particle is visible"""

    @classmethod
    def none(cls, tilts: int) -> SharedShifts:
        """Of a series that no particle shows."""
        return cls(np.zeros((tilts, 2)), np.zeros(tilts), np.zeros(tilts, bool), np.ones(tilts, bool))

    def start(self, alignment: Alignment) -> Alignment:
        """An alignment shifted by them."""
        tilt = np.concatenate([np.zeros((len(self.shift_px), 3)), self.shift_px], axis=1)
        return alignment.moved(tilt, np.zeros_like(alignment.displacement_px), np.zeros_like(alignment.coefficients))


def shared_shifts(evidence: Evidence, tilts: int) -> SharedShifts:
    """Maxima of the sums of all tables of a tilt."""
    grid = evidence.grid
    none = SharedShifts.none(tilts)
    shift, gain, clipped, unseen = none.shift_px, none.gain, none.clipped, none.unseen
    for tilt in range(tilts):
        rows = np.flatnonzero(evidence.tilt == tilt)
        if not len(rows):
            continue
        unseen[tilt] = False
        total = evidence.tables[rows].sum(axis=0, dtype=np.float64)
        for axis in (0, 1):  # coefficients to values
            total = convolve1d(total, np.array([1.0, 4.0, 1.0]) / 6.0, axis=axis)
        best = np.array(np.unravel_index(int(np.argmax(total)), total.shape))
        gain[tilt] = total[tuple(best)] - total[grid.half, grid.half]
        if gain[tilt] >= LEAST_GAIN:
            shift[tilt] = (best[::-1] - grid.half) * grid.step_px * evidence.scale
            clipped[tilt] = np.abs(shift[tilt]).max() >= evidence.reach_px - grid.step_px * evidence.scale
    return SharedShifts(shift, gain, clipped, unseen)
