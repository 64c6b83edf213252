"""Particles whose neighbours are where the lattice has them, and turned as it turns them.

The places that neighbours take are clusters of `(t, Q)` (`tiltwise.selection.neighbours`) of all pairs: found one after
the other, the fullest first, and believed where the space around them is emptier than they are.  A place counts for a
particle once, however many copies of a neighbour there are.  Particles with too few are left out, then those that have
too few without them, until none is left out any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.rotations import angular_distance_deg, nearest_rotation
from tiltwise.model import OptimisationSet
from tiltwise.selection.neighbours import F64, Pairs, Rows, close_pairs, nearest_pairs

NEAREST = (12, 48)
"""Neighbours of every particle among which the spacing is looked for; the second number if the first finds none."""
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
WIDTH, ANGLE_DEG = 0.25, 25.0
"""Largest width of a place over the spacing, and largest turn off it."""
MEDIANS = 3.0
"""Widths over the median deviation of those inside: 4.6 standard deviations of a Gaussian in three dimensions."""
NARROWEST, NARROWEST_DEG = 0.05, 3.0
REACH, TOO_CLOSE = 1.5, 0.5
"""Distances over the spacing up to which, and from which on, particles are neighbours."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a neighbour is to be found."""

    shift: F64
    """(3,) Å, in the frame of the particle"""
    turn: F64
    """(3, 3)"""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Places of neighbours, and which particles have which of them taken."""

    places: list[Place]
    spacing_angstrom: float
    """distance of the nearest place"""
    reach_angstrom: float
    """distance up to which neighbours were looked for"""
    width_angstrom: float
    """how far from its place a neighbour may be"""
    width_deg: float
    """and how far turned"""
    least: int
    """places that must be taken"""
    pairs: Pairs
    """neighbours that were compared with the places"""
    off_angstrom: F64
    """(n,) distance of every neighbour from the nearest place whose orientation it has; infinite without one"""
    off_deg: F64
    """(n,) its turn from the place that is nearest to it, wherever it is turned"""
    taken: NDArray[np.int64]
    """(P,) places taken of every particle by neighbours that are kept"""
    kept: NDArray[np.bool_]
    """(P,)"""


def conforming(
    optset: OptimisationSet,
    rows: Rows,
    symmetry: F64,
    *,
    least: int | None = None,
    reach_angstrom: float | None = None,
    width_angstrom: float | None = None,
    width_deg: float | None = None,
) -> Lattice:
    """Which particles of `rows` have their neighbours in place.

    Parameters
    ----------
    rows
        (n,) particles that take part; others are not kept, and nobody's neighbours.
    symmetry
        (G, 3, 3) point group of the particle.
    least
        places that must be taken; None: half of them, 2 at most and 1 at least.
    reach_angstrom
        distance of the farthest neighbours; None: `REACH` times the spacing.
    width_angstrom, width_deg
        how far from its place a neighbour may be; None: `MEDIANS` times the median, but no more than `WIDTH` times
        the spacing and `ANGLE_DEG`.

    Raises
    ------
    DataError
        if neighbours have no places: there is no lattice.
    """
    angle = ANGLE_DEG if width_deg is None else width_deg
    first: list[Place] = []
    for count in NEAREST if reach_angstrom is None else NEAREST[:1]:
        if reach_angstrom is None:
            near = nearest_pairs(optset, rows, count)
        else:
            near = close_pairs(optset, rows, 0.0, reach_angstrom)
        first = find_places(near, symmetry, len(rows), None, angle)
        if first:
            break
    if not first:
        raise DataError(
            "the particles are on no lattice",
            where="--lattice",
            expected="neighbours that lie and are turned to each other alike in much of the set",
            found=f"no such place among {len(near)} pairs of near neighbours of {len(rows)} particles",
            fix="refine the poses first; take copies of one particle out with --min-distance in a job before; give "
            "--neighbour-distance, --lattice-angle and --sym; or leave --lattice out",
        )
    spacing = min(float(np.linalg.norm(place.shift)) for place in first)
    reach = REACH * spacing if reach_angstrom is None else reach_angstrom
    pairs = close_pairs(optset, rows, TOO_CLOSE * spacing, reach)
    width = WIDTH * spacing if width_angstrom is None else width_angstrom
    places = find_places(pairs, symmetry, len(rows), width, angle) or first
    places = closed(places, symmetry, width, angle)
    far, turned = deviations(pairs, places, symmetry, angle)
    inside = far <= width
    if width_angstrom is None:
        width = float(np.clip(MEDIANS * _median(far[inside]), NARROWEST * spacing, width))
    if width_deg is None:
        angle = float(np.clip(MEDIANS * _median(turned[inside]), NARROWEST_DEG, angle))
    of_pair, of_place = _members(pairs, places, symmetry, width, angle)
    needed = max(1, min(2, len(places) // 2)) if least is None else least
    kept, taken = _core(len(optset.particles), rows, pairs, of_pair, of_place, needed)
    far, turned = deviations(pairs, places, symmetry, angle)
    return Lattice(places, spacing, reach, width, angle, needed, pairs, far, turned, taken, kept)


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
            if not (_angles(turns, mate.turn, symmetry) <= width_deg).any():
                result.append(mate)
    return result


def deviations(pairs: Pairs, places: list[Place], symmetry: F64, width_deg: float) -> tuple[F64, F64]:
    """Of pairs: distance (n,) Å from the nearest place with their orientation, and angle (n,) to the nearest place."""
    far, nearest, turned = (np.full(len(pairs), np.inf) for _ in range(3))
    for place in places:
        distance = np.linalg.norm(pairs.shift - place.shift, axis=1)
        angle = _angles(pairs.turn, place.turn, symmetry)
        np.minimum(far, np.where(angle <= width_deg, distance, np.inf), out=far)
        turned = np.where(distance < nearest, angle, turned)
        np.minimum(nearest, distance, out=nearest)
    return far, turned


def _core(
    count: int, rows: Rows, pairs: Pairs, of_pair: Rows, of_place: Rows, least: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Particles that have `least` places taken by others of which that is true as well; and places taken."""
    alive = np.zeros(count, bool)
    alive[rows] = True
    first, second = pairs.first[of_pair], pairs.second[of_pair]
    while True:
        both = alive[first] & alive[second]
        taken = np.unique(np.stack([first[both], of_place[both]], axis=1), axis=0)[:, 0]
        counts = np.bincount(taken, minlength=count)
        left = alive & (counts >= least)
        if (left == alive).all():
            return alive, counts
        alive = left


def _members(
    pairs: Pairs, places: list[Place], symmetry: F64, width_angstrom: float, width_deg: float
) -> tuple[Rows, Rows]:
    """Pairs in places: indices of pairs, and of the places they are in."""
    found = [np.flatnonzero(_inside(place, pairs, symmetry, width_angstrom, width_deg)) for place in places]
    return np.concatenate(found), np.repeat(np.arange(len(places)), [len(one) for one in found])


def _inside(place: Place, pairs: Pairs, symmetry: F64, width_angstrom: float, width_deg: float) -> NDArray[np.bool_]:
    close = np.linalg.norm(pairs.shift - place.shift, axis=1) <= width_angstrom
    rows = np.flatnonzero(close)
    close[rows] = _angles(pairs.turn[rows], place.turn, symmetry) <= width_deg
    return np.asarray(close)


def _angles(turns: F64, other: F64, symmetry: F64) -> F64:
    """(n,) angles to a rotation or the nearest of the mates `other h`."""
    return np.asarray(np.min([angular_distance_deg(turns, other @ h) for h in symmetry], axis=0))


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


def _median(values: F64) -> float:
    return float(np.median(values)) if len(values) else 0.0
