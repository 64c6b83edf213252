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
    """Particles of one half set and fold."""

    key: Key
    parts: tuple[tuple[int, NDArray[np.intp]], ...]
    """number of a tilt series in the set, and (n,) numbers of its particles"""
    audited: int = 0
    """how many particles of the first series, the first, are searched in full as well"""

    @property
    def particles(self) -> NDArray[np.intp]:
        """Numbers of all particles in the set, series by series."""
        return np.concatenate([members for _, members in self.parts])


def units_of(
    halves: NDArray[np.int64], folds: NDArray[np.int64], series_of: NDArray[np.intp], size: int = UNIT
) -> list[Unit]:
    """Units of all particles, (P,) half set, fold and series of each, in the order of their sums.

    Units of one half set and fold follow each other, and share its particles out evenly, in the order of their
    series.
    """
    shares: list[tuple[Key, NDArray[np.intp]]] = []
    for half, fold in np.unique(np.stack([halves, folds], axis=1), axis=0):
        members = np.flatnonzero((halves == half) & (folds == fold))
        members = members[np.argsort(series_of[members], kind="stable")]
        shares += [((int(half), int(fold)), part) for part in np.array_split(members, -(-len(members) // size))]
    every = max(1, len(shares) // AUDITED_UNITS)
    units = []
    for number, (key, members) in enumerate(shares):
        of_members = series_of[members]
        parts = [(int(series), members[of_members == series]) for series in np.unique(of_members)]
        units.append(Unit(key, tuple(parts), AUDIT if number % every == 0 else 0))
    return units


@dataclass(slots=True)
class UnitSums:
    """What a unit leaves: sums of the M-step and of the noise power, and an estimate of every particle."""

    accumulator: Accumulator
    noise: dict[int, NoiseSums]
    """of every series"""
    estimates: list[PoseEstimate]
    """in the order of `Unit.particles`"""
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
        for series, noise in sums.noise.items():
            if series in self.noise:
                self.noise[series].add(noise)
            else:
                self.noise[series] = noise
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
