"""Work units of an iteration: particles that are worked on together, and the sums they leave.

An iteration is an ordered list of units.  Which particles share a unit depends on the data alone, and partial sums
are added in the order of the units, so whoever computes them, in whatever order, the result has the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.maximisation import NoiseSums
from tiltwise.maps.volumes import Accumulator

UNIT = 96
"""Particles of a unit at most: enough to share the slices of a global search, few enough for many workers."""
AUDITED_UNITS = 4
"""Units, at least, with particles that are searched in full, to know what a global search misses."""
AUDIT = 4
"""Such particles of one unit."""

Key = tuple[int, int]
"""Half set and fold: what shares a reference and an accumulator."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Particles of one half set, fold and tilt series."""

    key: Key
    series: int
    """number of the tilt series in the set"""
    particles: NDArray[np.intp]
    """(n,) numbers in the set, ascending"""
    audited: int = 0
    """how many of them, the first, are searched in full as well"""


def units_of(
    halves: NDArray[np.int64], folds: NDArray[np.int64], series_of: NDArray[np.intp], size: int = UNIT
) -> list[Unit]:
    """Units of all particles, (P,) half set, fold and series of each, in the order of their sums.

    Units of one half set and fold follow each other.  Particles of a series are shared out evenly.
    """
    groups: list[tuple[Key, int, NDArray[np.intp]]] = []
    for half in np.unique(halves):
        for fold in np.unique(folds[halves == half]):
            for series in np.unique(series_of):
                members = np.flatnonzero((halves == half) & (folds == fold) & (series_of == series))
                parts = np.array_split(members, -(-len(members) // size)) if len(members) else []
                groups += [((int(half), int(fold)), int(series), part) for part in parts]
    every = max(1, len(groups) // AUDITED_UNITS)
    return [Unit(*group, audited=AUDIT if i % every == 0 else 0) for i, group in enumerate(groups)]


@dataclass(slots=True)
class UnitSums:
    """What a unit leaves: sums of the M-step and of the noise power, and an estimate of every particle."""

    accumulator: Accumulator
    noise: NoiseSums
    estimates: list[PoseEstimate]
    missed: list[float]
    """posterior mass that a global search missed, of the audited particles"""


@dataclass(slots=True)
class RunningSums:
    """Sums over the units of one half set and fold, from the first to number `done`."""

    accumulator: Accumulator
    noise: dict[int, NoiseSums] = field(default_factory=dict)
    """of every series"""
    estimates: dict[int, PoseEstimate] = field(default_factory=dict)
    """of every particle"""
    missed: list[float] = field(default_factory=list)
    done: int = 0
    """units that have been added"""

    def add(self, unit: Unit, sums: UnitSums) -> None:
        """Adds the sums of the next unit."""
        self.accumulator.add(sums.accumulator)
        noise = self.noise.get(unit.series)
        if noise is None:
            self.noise[unit.series] = sums.noise
        else:
            noise.add(sums.noise)
        self.estimates.update(zip((int(p) for p in unit.particles), sums.estimates, strict=True))
        self.missed += sums.missed
        self.done += 1


def total_noise(sums: Sequence[RunningSums], series: int, n_tilts: int, n_shells: int) -> NoiseSums:
    """Sums of Eq. 12 of one series over all half sets and folds."""
    total = NoiseSums.empty(n_tilts, n_shells)
    for part in sums:
        if series in part.noise:
            total.add(part.noise[series])
    return total
