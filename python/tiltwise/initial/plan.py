"""Stages of an initial model: how many particles, shells and orientations, and when there is nothing left to gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.schedule import Schedule
from tiltwise.errors import ConfigError
from tiltwise.initial.options import FIRST_DETAIL, FIRST_SHELL
from tiltwise.maps.spectra import last_shell_above

FIRST_PARTICLES = 30
"""Whose images at random orientations are the first map: so few that it is no ball."""
STEP_OF_RESOLUTION = 0.2
"""Step of shifts over the finest period that is compared."""
MOST_STEPS = 1.5
"""Steps of shifts on either side at most: climbs find what lies between."""
AHEAD = 2
"""Shells beyond those in which the half maps agree that the next iteration takes."""
WIDE_ORDER, LOCAL_ORDER = 2, 3
"""HEALPix orders of the searches everywhere, and near the last orientations, once the starts are done."""
WIDE_ITERATIONS = 2
MOST_ITERATIONS = 12
PATIENCE = 1
"""Iterations without gain after which it ends; the last one of all particles follows."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One iteration of a start."""

    more_shells: int
    """beyond those of the first"""
    oversampling: int
    particles: int
    """at most"""


START = (Stage(0, 0, 100),) * 6 + (Stage(1, 1, 200),) * 2 + (Stage(2, 1, 300),)
START_ORDER = 1


@dataclass(frozen=True, slots=True)
class Shells:
    """Cycles per box of a map."""

    box_angstrom: float
    first: int
    """in which starts are compared with images at first"""
    last: int
    """beyond which nothing is looked at"""

    @classmethod
    def of(cls, box: int, pixel_size: float, diameter_angstrom: float, finest_angstrom: float = 0.0) -> Shells:
        """Of maps (N, N, N) of a particle, in which periods down to `finest_angstrom` are looked at.

        One shell more than starts have is always looked at.

        Raises
        ------
        ConfigError
            if the pixels are too large for even a start.
        """
        size = box * pixel_size
        first = max(FIRST_SHELL, round(size / (FIRST_DETAIL * diameter_angstrom)))
        least = first + START[-1].more_shells + 1
        if least > box // 2:
            raise ConfigError(
                "the pixels are too large for the particle",
                where="--bin, --resolution",
                expected=f"pixels of at most {size / least / 2:.3g} Å",
                found=f"{pixel_size:.3g} Å",
                fix="use a smaller --bin or a finer --resolution, or check --particle-diameter",
            )
        last = max(int(size / finest_angstrom + 1e-6), least) if finest_angstrom else box // 2
        return cls(size, first, min(last, box // 2))

    @property
    def of_start(self) -> int:
        """Last shell of a map that a start leaves."""
        return self.first + START[-1].more_shells

    def schedule(self, radius: float, order: int, oversampling: int, reach_angstrom: float) -> Schedule:
        """Sampling of an iteration that compares `radius` shells."""
        step = max(STEP_OF_RESOLUTION * self.box_angstrom / radius, reach_angstrom / MOST_STEPS)
        return Schedule(
            order=order,
            local_order=LOCAL_ORDER,
            oversampling=oversampling,
            sigma_ang_deg=None,
            offset_range_angstrom=reach_angstrom,
            offset_step_angstrom=step,
            resolution_shell=round(radius),
            incr_size=0,
            climb=order >= WIDE_ORDER,
        )


@dataclass(slots=True)
class March:
    """How far the half maps agree, and whether they still gain; plain numbers, so that a checkpoint can hold it."""

    radius: int
    iteration: int = 0
    best: int = 0
    stalled: int = 0

    @property
    def order(self) -> int:
        """HEALPix order of the next iteration."""
        return WIDE_ORDER if self.iteration < WIDE_ITERATIONS else LOCAL_ORDER

    @property
    def done(self) -> bool:
        """Whether there is nothing left to gain."""
        return self.iteration >= MOST_ITERATIONS or self.stalled >= PATIENCE

    def update(self, curve: NDArray[np.float64], last: int) -> None:
        """Takes in the FSC of the half maps of one iteration."""
        agree = last_shell_above(curve, 0.143)
        radius = min(max(self.radius, agree + AHEAD), last)
        gained = agree > self.best or radius > self.radius or self.order != LOCAL_ORDER
        self.iteration += 1
        self.best, self.radius = max(self.best, agree), radius
        self.stalled = 0 if gained else self.stalled + 1
