"""Places that the neighbours of particles take on a lattice.

They are clusters of `(t, Q)` (`tiltwise.selection.neighbours`) of all pairs: found one after the other, the fullest
first, and believed where the space around them is emptier than they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.rotations import angular_distance_deg, nearest_rotation
from tiltwise.selection.neighbours import F64, Pairs

SEEDS, VOTES = 1500, 6000
"""Pairs around which places are looked for, and pairs that are counted, at most."""
LEAST_PAIRS = 8
"""Pairs in a place that is believed, of those counted, at least."""
LEAST_SHARE = 0.02
"""Share of the particles that have a neighbour in a place that is believed, at least."""
LEAST_OF_FULLEST = 0.3
"""Share of the pairs of the fullest place that others have, at least: false particles make places of few."""
CLEAR = 2.0
"""Standard deviations of its number by which a place is fuller than the space around it, seven times as large."""
MOST_PLACES = 240
FIRST_WIDTH = 0.2
"""Width of a place over its distance while the spacing is not known."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a neighbour is to be found."""

    shift: F64
    """(3,) Å, in the frame of the particle"""
    turn: F64
    """(3, 3)"""


def find_places(
    pairs: Pairs, symmetry: F64, particles: int, width_angstrom: float | None, width_deg: float
) -> list[Place]:
    """Clusters of neighbours, the fullest first; none where there is no lattice.

    `width_angstrom` None takes `FIRST_WIDTH` of the distance.
    """
    rng = np.random.default_rng(0)
    some = _sample(pairs, max(1, VOTES // len(symmetry)), rng)
    votes = some.mates(symmetry)
    seeds = _sample(votes, SEEDS, rng)
    if not len(votes):
        return []
    share = len(some) / len(pairs)
    least = max(LEAST_PAIRS, LEAST_SHARE * particles * share)
    widths = FIRST_WIDTH * seeds.distance if width_angstrom is None else np.full(len(seeds), width_angstrom)
    near = _near(seeds.shift, seeds.turn, votes, symmetry, widths, width_deg)
    free = np.ones(len(votes), bool)
    places: list[Place] = []
    while len(places) < MOST_PLACES:
        counts = near @ free.astype(np.float32)
        seed = int(np.argmax(counts))
        if counts[seed] < least:
            break
        place, width = Place(seeds.shift[seed], seeds.turn[seed]), float(widths[seed])
        for _ in range(3):
            member = _inside(place, votes, symmetry, width, width_deg) & free
            if not member.any():
                break
            place = _mean(votes.take(member), place, symmetry)
        close = _inside(place, votes, symmetry, width, width_deg)
        wide = _inside(place, votes, symmetry, 2.0 * width, width_deg)
        inside, around = float((close & free).sum()), float((wide & ~close).sum())
        if inside >= least and inside - CLEAR * np.sqrt(inside) > around:
            places.append(place)
            least = max(least, LEAST_OF_FULLEST * inside)
        free &= ~(close | (near[seed] > 0))
    return places


def closed(places: list[Place], symmetry: F64, width_angstrom: float, width_deg: float) -> list[Place]:
    """With the places that follow from these: those of symmetry mates, and of the particle seen from its neighbour."""
    result = list(places)
    for place in places:
        back = Place(-place.turn.T @ place.shift, place.turn.T)
        for mate in [Place(g.T @ one.shift, g.T @ one.turn) for one in (place, back) for g in symmetry]:
            known = np.linalg.norm(np.stack([other.shift for other in result]) - mate.shift, axis=1) <= width_angstrom
            turns = np.stack([other.turn for other in result])[known]
            if not (angles_deg(turns, mate.turn, symmetry) <= width_deg).any():
                result.append(mate)
    return result


def deviations(pairs: Pairs, places: list[Place], symmetry: F64, width_deg: float) -> tuple[F64, F64]:
    """Of pairs: distance (n,) Å from the nearest place with their orientation, and angle (n,) to the nearest place."""
    far, nearest, turned = (np.full(len(pairs), np.inf) for _ in range(3))
    for place in places:
        distance = np.linalg.norm(pairs.shift - place.shift, axis=1)
        angle = angles_deg(pairs.turn, place.turn, symmetry)
        np.minimum(far, np.where(angle <= width_deg, distance, np.inf), out=far)
        turned = np.where(distance < nearest, angle, turned)
        np.minimum(nearest, distance, out=nearest)
    return far, turned


def angles_deg(turns: F64, other: F64, symmetry: F64) -> F64:
    """(n,) angles in degrees to a rotation or the nearest of the mates `other h`."""
    return np.asarray(np.min([angular_distance_deg(turns, other @ h) for h in symmetry], axis=0))


def _inside(place: Place, pairs: Pairs, symmetry: F64, width_angstrom: float, width_deg: float) -> NDArray[np.bool_]:
    close = np.linalg.norm(pairs.shift - place.shift, axis=1) <= width_angstrom
    rows = np.flatnonzero(close)
    close[rows] = angles_deg(pairs.turn[rows], place.turn, symmetry) <= width_deg
    return np.asarray(close)


def _mean(pairs: Pairs, place: Place, symmetry: F64) -> Place:
    """Centre of the pairs of a place."""
    mates = pairs.turn[:, None] @ symmetry
    overlap = np.einsum("ngij,ij->ng", mates, place.turn)
    nearest = mates[np.arange(len(mates)), np.argmax(overlap, axis=1)]
    return Place(pairs.shift.mean(axis=0), nearest_rotation(nearest.sum(axis=0)))


def _near(shift: F64, turn: F64, votes: Pairs, symmetry: F64, widths: F64, width_deg: float) -> NDArray[np.float32]:
    """(seeds, votes) 1 where a vote is in the place around a seed, else 0."""
    square = (shift**2).sum(axis=1)[:, None] + (votes.shift**2).sum(axis=1) - 2.0 * shift @ votes.shift.T
    near = square <= widths[:, None] ** 2
    # the trace of a rotation is 1 + 2 cos of its angle
    trace = np.full(near.shape, -1.0)
    for h in symmetry:
        np.maximum(trace, (turn @ h).reshape(-1, 9) @ votes.turn.reshape(-1, 9).T, out=trace)
    near &= trace >= 1.0 + 2.0 * np.cos(np.radians(width_deg))
    return np.asarray(near, dtype=np.float32)


def _sample(pairs: Pairs, most: int, rng: np.random.Generator) -> Pairs:
    if len(pairs) <= most:
        return pairs
    return pairs.take(np.sort(rng.choice(len(pairs), most, replace=False)))
