"""One shift per tilt from the summed correlations of all its particles: the start of every fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from tiltwise.motion.geometry import Alignment
from tiltwise.motion.objective import Evidence

F64 = NDArray[np.float64]

STANDS_OUT = 3.5
"""Gain of the best shift over none, in standard deviations of that of noise, from which it is believed."""


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

    def after(self, later: SharedShifts) -> SharedShifts:
        """These, and shifts found from there."""
        return replace(self, shift_px=self.shift_px + later.shift_px, clipped=self.clipped | later.clipped)

    def start(self, alignment: Alignment) -> Alignment:
        """An alignment shifted by them."""
        tilt = np.concatenate([np.zeros((len(self.shift_px), 3)), self.shift_px], axis=1)
        return alignment.moved(tilt, np.zeros_like(alignment.displacement_px), np.zeros_like(alignment.coefficients))


def tilt_sums(evidence: Evidence, displacement: F64 | None = None) -> Iterator[tuple[int, F64]]:
    """Tilts that show particles, and their summed correlations (S, S) on the points of the tables.

    With displacements (P, F, 2) of the particles, of shifts that all make from there, to half a point.
    """
    for tilt in np.unique(evidence.tilt):
        of_tilt = np.flatnonzero(evidence.tilt == tilt)
        away = None if displacement is None else displacement[evidence.particle[of_tilt], tilt]
        yield int(tilt), sum_of_tables(evidence, of_tilt, away)


def sum_of_tables(evidence: Evidence, images: NDArray[np.intp], displacement: F64 | None = None) -> F64:
    """Summed correlations (S, S) of some images on the points of the tables, zero where tables end.

    With displacements (n, 2) of the particles, of shifts that all make from there, to half a point.
    """
    middle, size = evidence.grid.half, evidence.grid.size
    rows = evidence.rows[images]
    if displacement is None:
        total = evidence.tables[rows].sum(axis=0, dtype=np.float64)
    else:
        total = np.zeros((size, size))
        away = displacement / (evidence.grid.step_px * evidence.scale)
        for row, (x, y) in zip(rows, np.clip(np.rint(away), -middle, middle).astype(int), strict=True):
            there = [slice(max(0, n), size + min(0, n)) for n in (y, x)]
            here = [slice(max(0, -n), size + min(0, -n)) for n in (y, x)]
            total[here[0], here[1]] += evidence.tables[row][there[0], there[1]]
    for axis in (0, 1):  # coefficients to values
        total = convolve1d(total, np.array([1.0, 4.0, 1.0]) / 6.0, axis=axis)
    return np.asarray(total, np.float64)


def shared_shifts(evidence: Evidence, tilts: int, displacement: F64 | None = None) -> SharedShifts:
    """Maxima of the sums of all tables of a tilt, where they stand out of noise.

    Shifts are those that all particles make, from where they were cut or from displacements (P, F, 2).  The sum is the
    likelihood of a common shift even where particles overlap: what neighbours add to each other's tables is the same at
    every such shift of the prediction.
    """
    grid = evidence.grid
    none = SharedShifts.none(tilts)
    shift, gain, clipped, unseen = none.shift_px, none.gain, none.clipped, none.unseen
    power = np.bincount(evidence.tilt, evidence.power, minlength=tilts)
    for tilt, total in tilt_sums(evidence, displacement):
        unseen[tilt] = False
        best = np.array(np.unravel_index(int(np.argmax(total)), total.shape))
        gain[tilt] = total[tuple(best)] - total[grid.half, grid.half]
        # noise alone has the variance `power` at every point, and a maximum of some three standard deviations
        if gain[tilt] >= STANDS_OUT * np.sqrt(2.0 * power[tilt]):
            shift[tilt] = (best[::-1] - grid.half) * grid.step_px * evidence.scale
            end = shift[tilt]
            if displacement is not None:
                end = end + displacement[evidence.particle[evidence.tilt == tilt], tilt].mean(axis=0)
            clipped[tilt] = np.abs(end).max() >= evidence.reach_px - grid.step_px * evidence.scale
    return SharedShifts(shift, gain, clipped, unseen)
