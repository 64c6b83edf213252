"""Particles whose neighbours are where the lattice has them, and turned as it turns them.

Places of neighbours (`tiltwise.selection.places`) are looked for among all particles, then among those that are likely
to be on the lattice (`tiltwise.selection.belief`), until these do not change: that finds the places that false
particles hid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.model import OptimisationSet
from tiltwise.selection.belief import Beliefs, Model, Sightings, believed
from tiltwise.selection.neighbours import F64, Pairs, Rows, close_pairs, nearest_pairs
from tiltwise.selection.places import Place, angles_deg, closed, deviations, find_places

NEAREST = (12, 48)
"""Neighbours of every particle among which the spacing is looked for; the second number if the first finds none."""
COPIES_ANGSTROM = 1.0
"""Distance below which two particles are one: twice in a set all would have the place of a neighbour in themselves."""
WIDTH, ANGLE_DEG = 0.25, 25.0
"""Width over the spacing, and turn, within which the pairs of a place are counted."""
FARTHEST = 0.4
"""Distance over the spacing within which a neighbour may be in a place."""
NARROWEST, NARROWEST_DEG = 0.02, 1.0
"""Smallest deviations from places: over the spacing, and turn."""
FIRST, FIRST_DEG = 0.12, 6.0
"""Deviations that are assumed at first."""
REACH, TOO_CLOSE = 1.5, 0.5
"""Distances over the spacing up to which, and from which on, particles are neighbours."""
LOOKS = 4
"""Times that places are looked for at most."""
LIKELY = 0.5
"""Probability from which on places are looked for around a particle."""
CERTAIN = 0.8
"""Probability from which on a particle is kept."""


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
    model: Model
    """how neighbours deviate from their places, and how many there are"""
    certain: float
    """probability from which on particles are kept"""
    least: int
    """places that must be taken"""
    pairs: Pairs
    """neighbours that were compared with the places"""
    off_angstrom: F64
    """(n,) distance of every neighbour from the nearest place whose orientation it has; infinite without one"""
    off_deg: F64
    """(n,) its turn from the place that is nearest to it, wherever it is turned"""
    probability: F64
    """(P,) of particles to be on the lattice; 0 of those that take no part"""
    took_part: Rows
    """(m,) those that do"""
    taken: NDArray[np.int64]
    """(P,) places taken of every particle by neighbours that are kept"""
    kept: NDArray[np.bool_]
    """(P,)"""


def conforming(
    optset: OptimisationSet,
    rows: Rows,
    symmetry: F64,
    *,
    certain: float = CERTAIN,
    least: int = 1,
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
    certain
        probability to be on the lattice from which on particles are kept.
    least
        places that must be taken by particles that are kept, besides.
    reach_angstrom
        distance of the farthest neighbours; None: `REACH` times the spacing.
    width_angstrom, width_deg
        how far from its place a neighbour may be; None: `FARTHEST` times the spacing, and `ANGLE_DEG`.

    Raises
    ------
    DataError
        if neighbours have no places: there is no lattice.
    """
    angle = ANGLE_DEG if width_deg is None else width_deg
    places = _first_places(optset, rows, symmetry, reach_angstrom, angle)
    among = rows
    for _ in range(LOOKS):
        spacing = _spacing(places)
        near = WIDTH * spacing if width_angstrom is None else width_angstrom
        pairs = close_pairs(optset, among, TOO_CLOSE * spacing, reach_angstrom or REACH * spacing)
        found = find_places(pairs, symmetry, len(among), near, angle)
        places = closed(found or places, symmetry, near, angle)
        spacing = _spacing(places)
        reach = REACH * spacing if reach_angstrom is None else reach_angstrom
        width = FARTHEST * spacing if width_angstrom is None else width_angstrom
        pairs = close_pairs(optset, rows, TOO_CLOSE * spacing, reach)
        seen = sightings(pairs, places, symmetry, width, angle)
        beliefs = _beliefs(rows, seen, pairs, len(places), spacing, reach)
        likely = rows[beliefs.particles >= LIKELY]
        if np.array_equal(likely, among) or not len(likely):
            break
        among = likely
    probability = np.zeros(len(optset.particles))
    probability[rows] = beliefs.particles
    kept, taken = _core(probability >= certain, seen, least)
    far, turned = deviations(pairs, places, symmetry, angle)
    return Lattice(
        places,
        spacing,
        reach,
        width,
        angle,
        beliefs.model,
        certain,
        least,
        pairs,
        far,
        turned,
        probability,
        rows,
        taken,
        kept,
    )


def sightings(pairs: Pairs, places: list[Place], symmetry: F64, width_angstrom: float, width_deg: float) -> Sightings:
    """The pairs whose second particle is in a place of the first, each in the nearest; particles by their rows."""
    distance, off_angstrom, off_deg = (np.full(len(pairs), np.inf) for _ in range(3))
    where = np.zeros(len(pairs), np.int64)
    for number, place in enumerate(places):
        off = np.linalg.norm(pairs.shift - place.shift, axis=1)
        some = np.flatnonzero(off <= width_angstrom)
        off, turned = off[some], angles_deg(pairs.turn[some], place.turn, symmetry)
        score = np.where(turned <= width_deg, (off / width_angstrom) ** 2 + (turned / width_deg) ** 2, np.inf)
        better = score < distance[some]
        here = some[better]
        distance[here], where[here] = score[better], number
        off_angstrom[here], off_deg[here] = off[better], turned[better]
    used = np.flatnonzero(np.isfinite(distance))
    first, second = pairs.first[used], pairs.second[used]
    count = int(max(first.max(), second.max())) + 1 if len(used) else 1
    key, turned_round = first * count + second, second * count + first
    order = np.argsort(key)
    found = order[np.minimum(np.searchsorted(key[order], turned_round), len(used) - 1)] if len(used) else order
    back = np.where(key[found] == turned_round, found, -1)
    return Sightings(first, second, where[used], off_angstrom[used], off_deg[used], back)


def _first_places(
    optset: OptimisationSet, rows: Rows, symmetry: F64, reach_angstrom: float | None, width_deg: float
) -> list[Place]:
    """Places among the nearest neighbours of all particles, or those up to a distance."""
    for count in NEAREST if reach_angstrom is None else NEAREST[:1]:
        if reach_angstrom is None:
            near = nearest_pairs(optset, rows, count)
        else:
            near = close_pairs(optset, rows, 0.0, reach_angstrom)
        near = near.take(near.distance >= COPIES_ANGSTROM)
        found = find_places(near, symmetry, len(rows), None, width_deg)
        if found:
            return found
    raise DataError(
        "the particles are on no lattice",
        where="--lattice",
        expected="neighbours that lie and are turned to each other alike in much of the set",
        found=f"no such place among {len(near)} pairs of near neighbours of {len(rows)} particles",
        fix="refine the poses first; take copies of one particle out with --min-distance in a job before; give "
        "--neighbour-distance, --lattice-angle and --sym; or leave --lattice out",
    )


def _spacing(places: list[Place]) -> float:
    return min(float(np.linalg.norm(place.shift)) for place in places)


def _beliefs(rows: Rows, seen: Sightings, pairs: Pairs, places: int, spacing: float, reach: float) -> Beliefs:
    """Of the particles of `rows`, by their number in it."""
    number = np.full(int(rows.max()) + 1, -1, np.intp)
    number[rows] = np.arange(len(rows))
    around = np.bincount(number[pairs.first], minlength=len(rows))
    shell = 4.0 / 3.0 * np.pi * (reach**3 - (TOO_CLOSE * spacing) ** 3)
    density: F64 = np.asarray((around + 1.0) / shell)  # one more: the density is not known to be 0 where nobody is
    start = Model(FIRST * spacing, FIRST_DEG)
    local = replace(seen, first=number[seen.first], second=number[seen.second])
    return believed(local, density, places, start, (NARROWEST * spacing, NARROWEST_DEG))


def _core(alive: NDArray[np.bool_], seen: Sightings, least: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of some particles (P,) those that have `least` places taken by others of which that is true; and places taken."""
    while True:
        both = alive[seen.first] & alive[seen.second]
        taken = np.unique(np.stack([seen.first[both], seen.place[both]], axis=1), axis=0)[:, 0]
        counts = np.bincount(taken, minlength=len(alive))
        left = alive & (counts >= least)
        if (left == alive).all():
            return alive, counts
        alive = left
