"""Widths of priors and range of motion, learned from the data: the maximum of the marginal likelihood.

`log p(data | sigma_V, sigma_D)` is the log posterior at its maximum less half the log determinant of its curvature
(Laplace), with the poses of tilts and the positions of particles marginalised too: a common velocity of all
particles cannot be told from shifts of the tilts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.motion.climb import Climbed
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.objective import Evidence, Free

F64 = NDArray[np.float64]
Climb = Callable[[Specimen, Evidence, Alignment, Free], Climbed]

FIRST = (0.3, 2000.0)
"""Å per e/Å^2, Å: where the search starts"""
BOUNDS = ((0.005, 5.0), (250.0, 32000.0))
SERIES = 8
"""Series with most particles that are enough to learn two numbers."""
MOST_TRIALS = 16
WIDTHS = (0.1, 100.0)
"""Å: of deformations"""


@dataclass(frozen=True, slots=True)
class MotionPrior:
    """What was learned."""

    velocity: float
    """sigma_V, Å per e/Å^2"""
    length_angstrom: float
    """sigma_D"""
    trials: int


def usual_prior(velocity: float | None, length: float | None) -> MotionPrior:
    """What was given, else what is common: where the search for a better one starts."""
    return MotionPrior(velocity or FIRST[0], length or FIRST[1], 0)


def log_evidence(climbed: Climbed) -> float:
    """Laplace's approximation of the marginal likelihood, up to a constant that no prior changes."""
    return climbed.value - 0.5 * climbed.solver.log_determinant()


def as_coefficients(specimen: Specimen, velocity: F64) -> F64:
    """(F - 1, B, 3) coefficients whose velocities are closest to (P, F - 1, 3): a start for another prior."""
    modes = np.linalg.lstsq(specimen.basis, velocity.reshape(len(velocity), -1), rcond=1e-6)[0]
    per_step = modes.reshape(specimen.basis.shape[1], -1, 3)
    return np.asarray(np.moveaxis(per_step, 0, 1) / np.maximum(specimen.step_px, 1e-12)[:, None, None])


def learn(
    total: Callable[[float, float], float],
    velocity: float | None,
    length: float | None,
    first: MotionPrior | None = None,
) -> MotionPrior:
    """Maximise `total(velocity, length)`; given numbers stay, others begin at those of `first`."""
    first = first or usual_prior(velocity, length)
    start, open_ = (first.velocity, first.length_angstrom), (velocity is None, length is None)
    point, trials = _search(lambda values: total(*values), start, open_, BOUNDS)
    return MotionPrior(point[0], point[1], first.trials + trials)


def learn_width(total: Callable[[float], float], start: float) -> tuple[float, int]:
    """Maximum of `total(width)`, and trials."""
    point, trials = _search(lambda values: total(values[0]), (start,), (True,), (WIDTHS,))
    return point[0], trials


def _search(
    total: Callable[[tuple[float, ...]], float],
    start: Sequence[float],
    open_: Sequence[bool],
    bounds: Sequence[tuple[float, float]],
) -> tuple[list[float], int]:
    """Largest `total` by factors of two, then of the square root of two, one number after the other; and trials.

    Evidence changes slowly with any of them: a factor of 1.4 is finer than most data can tell.
    """
    point = [float(np.log2(value)) for value in start]
    limits = [(np.log2(low), np.log2(high)) for low, high in bounds]
    known: dict[tuple[float, ...], float] = {}

    def at(candidate: Sequence[float]) -> float:
        key = tuple(round(value, 3) for value in candidate)
        if key not in known:
            known[key] = total(tuple(float(2.0**value) for value in candidate))
        return known[key]

    step = 1.0
    while step >= 0.5 and len(known) < MOST_TRIALS and any(open_):
        moved = False
        for axis in range(len(point)):
            if not open_[axis]:
                continue
            for sign in (1.0, -1.0):
                while len(known) < MOST_TRIALS:
                    candidate = list(point)
                    candidate[axis] += sign * step
                    if not limits[axis][0] <= candidate[axis] <= limits[axis][1] or at(candidate) <= at(point):
                        break
                    point, moved = candidate, True
        if not moved:
            step /= 2.0
    return [float(2.0**value) for value in point], len(known)
