"""How certain particles are to lie on a lattice: each from its neighbours, as far as these do themselves.

Around a true particle every place holds a true neighbour with probability o.  It is off the place by Student's t, in
position and in rotation vector: the error of a particle moves all that it sees, which a Gaussian of every pair by
itself would take too ill.  Around a particle that is anywhere others have the density rho of its surroundings, and are
turned anyhow; around a misplaced one they are turned as on the lattice, but not in their places.  With b_j the
probability that j is true by all that it sees but i, pi the share of true particles, N the density of deviations, and M
that of turns over the density of uniform rotations, what i sees in place p is likelier if i is true, or misplaced, than
if it is anywhere, by

    L_ip = 1 - o + sum_j b_j o N_ij M_ij / (pi rho_i)        L'_ip = 1 + sum_j b_j M_ij

These are sums since of the particles in one place one is the neighbour: copies count once.  The odds of i are
pi prod_p L_ip to (1 - pi) (1 - e + e prod_p L'_ip), e the share `MISPLACED` of false particles.  The equations (belief
propagation) are iterated, and pi, o and the widths follow from them (expectation maximisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from tiltwise.selection.neighbours import F64, Rows

ROUNDS, SWEEPS = 12, 6
"""Estimates of the model, and sweeps over all pairs with each."""
DAMPING = 0.5
"""Share of the former value that a sweep leaves."""
SHARE = (0.02, 0.98)
"""Bounds of shares."""
FREEDOM = 6.0
"""Of deviations: 4 to 12 give the same to one part in a hundred."""
MISPLACED = 0.2
"""Share of false particles that are turned as on the lattice; too few see a neighbour to tell."""
NOBODY = 1e-6
"""Number of particles or pairs up to which there is none."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a lattice and the particles off it are like."""

    sigma_angstrom: float
    """scale of the deviations of neighbours from their places along each axis"""
    sigma_deg: float
    """and of their turns about each axis"""
    share: float = 0.5
    """pi, of particles that are true"""
    occupancy: float = 0.5
    """o, of places around true particles"""


@dataclass(frozen=True, slots=True)
class Sightings:
    """n neighbours in places, seen from the first of two particles."""

    first: Rows
    second: Rows
    place: NDArray[np.int64]
    off_angstrom: F64
    off_deg: F64
    back: NDArray[np.int64]
    """the same two seen from the other; -1 if that sees none in a place"""


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Of m particles and n sightings."""

    particles: F64
    """(m,) probability to be true"""
    pairs: F64
    """(n,) to be two true neighbours"""
    model: Model


def believed(seen: Sightings, density: F64, places: int, start: Model, narrowest: tuple[float, float]) -> Beliefs:
    """Iterate.

    `density` (m,) holds other particles per Å³ around each, `narrowest` the smallest widths, in Å and degrees.
    """
    count = len(density)
    slot = seen.first * places + seen.place
    behind = seen.back >= 0
    back = np.where(behind, seen.back, 0)
    model, cavity = start, np.full(len(slot), start.share)
    for _ in range(ROUNDS):
        # over that of uniform rotations, whose density is 1 / (8 pi^2)
        turn = 8.0 * np.pi**2 * _density(np.radians(seen.off_deg), float(np.radians(model.sigma_deg)))
        near = _density(seen.off_angstrom, model.sigma_angstrom)
        ratio = model.occupancy * near * turn / (model.share * density[seen.first])
        prior = np.log(model.share) - np.log1p(-model.share)
        for _ in range(SWEEPS):
            ours, theirs = cavity * ratio, cavity * turn
            level = 1.0 - model.occupancy + np.bincount(slot, ours, count * places)
            other = 1.0 + np.bincount(slot, theirs, count * places)
            true = np.log(level).reshape(count, places).sum(axis=1)
            wrong = np.log(other).reshape(count, places).sum(axis=1)
            # what the neighbour would be if this particle were not there
            left = np.maximum(level[slot] - ours, 1.0 - model.occupancy) / level[slot]
            left_other = np.maximum(other[slot] - theirs, 1.0) / other[slot]
            without = true[seen.second] + np.where(behind, np.log(left)[back], 0.0)
            without_other = wrong[seen.second] + np.where(behind, np.log(left_other)[back], 0.0)
            cavity *= DAMPING
            cavity += (1.0 - DAMPING) * _probability(prior + without - _false(without_other))
        particles = _probability(prior + true - _false(wrong))
        pairs = particles[seen.first] * ours / level[slot]
        model = _estimated(seen, particles, pairs, places, model, narrowest)
    return Beliefs(particles, pairs, model)


def _density(off: F64, scale: float) -> F64:
    """(n,) Student's t in three dimensions at distances `off`, in their unit to the power of -3."""
    top = gamma(0.5 * (FREEDOM + 3.0)) / gamma(0.5 * FREEDOM) / (FREEDOM * np.pi) ** 1.5 / scale**3
    return np.asarray(top * (1.0 + (off / scale) ** 2 / FREEDOM) ** (-0.5 * (FREEDOM + 3.0)))


def _scale(off: F64, weights: F64, scale: float) -> float:
    """The next scale of Student's t, from distances (n,) with weights."""
    far = (FREEDOM + 3.0) / (FREEDOM + (off / scale) ** 2)
    return float(np.sqrt((weights * far * off**2).sum() / (3.0 * weights.sum())))


def _false(wrong: F64) -> F64:
    """Logarithm of the likelihood of a false particle over that of one that is anywhere."""
    return np.asarray(np.logaddexp(np.log1p(-MISPLACED), np.log(MISPLACED) + wrong))


def _estimated(
    seen: Sightings, particles: F64, pairs: F64, places: int, model: Model, narrowest: tuple[float, float]
) -> Model:
    """The model that the beliefs tell."""
    true, total = float(particles.sum()), float(pairs.sum())
    if not (total > NOBODY and true > NOBODY):
        return model
    return Model(
        max(_scale(seen.off_angstrom, pairs, model.sigma_angstrom), narrowest[0]),
        max(_scale(seen.off_deg, pairs, model.sigma_deg), narrowest[1]),
        float(np.clip(true / len(particles), *SHARE)),
        float(np.clip(total / (places * true), *SHARE)),
    )


def _probability(logit: F64) -> F64:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0))))
