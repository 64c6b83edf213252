"""Where the neighbours of particles are, and how they are turned, seen from the particles.

Particle i has rotation `R_i` (reference to tomogram) and position `x_i`.  In the frame of the reference its neighbour j
lies at `t = R_i^T (x_j - x_i)` and is turned by `Q = R_i^T R_j`: where particles sit on a lattice both are the same all
over it, whatever way the lattice itself lies, and nearly so where it is bent.  With a point group `(g^T t, g^T Q h)`
are the same for all g and h of the group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of, series_index

F64 = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Pairs:
    """n ordered pairs of particles of one tomogram."""

    first: Rows
    """(n,) the particle that looks"""
    second: Rows
    """(n,) its neighbour"""
    shift: F64
    """(n, 3) Å, position of the neighbour in the frame of the particle"""
    turn: F64
    """(n, 3, 3) rotation of the neighbour in that frame"""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def distance(self) -> F64:
        """(n,) Å."""
        return np.asarray(np.linalg.norm(self.shift, axis=1))

    def take(self, rows: NDArray[np.generic]) -> Pairs:
        """Some of them; `rows` are indices or a mask."""
        return Pairs(self.first[rows], self.second[rows], self.shift[rows], self.turn[rows])

    def mates(self, symmetry: F64) -> Pairs:
        """As the mates of the first particle under a point group (G, 3, 3) see them: G n pairs."""
        inverse = np.swapaxes(symmetry, 1, 2)
        count = len(symmetry)
        return Pairs(
            np.tile(self.first, count),
            np.tile(self.second, count),
            np.einsum("gij,nj->gni", inverse, self.shift).reshape(-1, 3),
            np.einsum("gij,njk->gnik", inverse, self.turn).reshape(-1, 3, 3),
        )


def nearest_pairs(optset: OptimisationSet, rows: Rows, count: int) -> Pairs:
    """Every particle of `rows` with its `count` nearest neighbours among them."""
    parts = []
    position = poses_of(optset)[1]
    for members in _by_series(optset, rows):
        most = min(count, len(members) - 1)
        if most < 1:
            continue
        found = cKDTree(position[members]).query(position[members], k=most + 1)[1]
        first = np.repeat(np.arange(len(members)), most + 1)
        second = found.reshape(-1)
        other = first != second  # of particles in one place any may be found first
        parts.append(np.stack([members[first[other]], members[second[other]]], axis=1))
    return _pairs(optset, parts)


def close_pairs(optset: OptimisationSet, rows: Rows, least_angstrom: float, most_angstrom: float) -> Pairs:
    """All pairs of particles of `rows` whose distance lies between two bounds, either one first."""
    parts = []
    position = poses_of(optset)[1]
    for members in _by_series(optset, rows):
        found = cKDTree(position[members]).query_pairs(most_angstrom, output_type="ndarray")
        pairs = members[found]
        far = np.linalg.norm(position[pairs[:, 0]] - position[pairs[:, 1]], axis=1) >= least_angstrom
        parts += [pairs[far], pairs[far][:, ::-1]]
    return _pairs(optset, parts)


def _by_series(optset: OptimisationSet, rows: Rows) -> list[Rows]:
    series = series_index(optset)[rows]
    return [rows[series == number] for number in range(len(optset.series)) if (series == number).any()]


def _pairs(optset: OptimisationSet, parts: list[Rows]) -> Pairs:
    pairs = np.concatenate([np.zeros((0, 2), np.intp), *parts])
    first, second = pairs[:, 0], pairs[:, 1]
    rotation, position = poses_of(optset)
    inward = np.swapaxes(rotation[first], 1, 2)
    shift = np.einsum("nij,nj->ni", inward, position[second] - position[first])
    return Pairs(first, second, np.asarray(shift), np.asarray(inward @ rotation[second]))
