"""First guess of classes: places where particles differ, without any reference.

A direction in which particles differ stands out of the noise of D degrees of freedom only if its variance is well above
`sqrt(D / P)` times that of the noise, P being the number of particles (Baik, Ben Arous, Péché 2005).  Over a whole
particle D is tens of thousands; a small domain is hidden.  In a window about it D is a few dozen.  So the largest
singular value of the particles, see `particle_maps`, is looked at in every small ball of several radii, and in the
whole: over the edge of noise (Marchenko, Pastur 1967) in units of its fluctuation (Tracy, Widom; Johnstone 2001),
compared with what the other balls have.  Where none is significant nothing is found.  Along the direction of the most
significant window every particle has a number, by the direction of the particles of other folds, so that none finds
its own noise again.  For more classes, what this direction explains is taken off, and the next is sought.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree
from scipy.special import ai_zeros

from tiltwise.exec.threads import blas_threads, ordered_map

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

RADII = (2.05, 3.05)
"""Voxels: balls of 33 and 123."""
LEVELS = (1.0, 2.0 / 3.0)
"""Reach of coarser maps over that of the finest."""
LARGEST = 2.0
"""Length of a row, over the median of all, to which longer ones are cut: no particle is a direction of its own."""
NORMAL = 1.4826
"""Standard deviation over the median deviation from the median."""
DENSE = 200
"""Size of matrices of which all eigenvalues are found."""
SIGNIFICANT = 7.0
"""Significance below which a window shows noise: the largest of all balls reaches 5 or 6 where all are alike."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where particles differ."""

    significance: float
    centre_angstrom: tuple[float, float, float]
    """x, y, z from the centre of the box"""
    radius_angstrom: float
    """infinite for the whole"""
    scores: F64
    """(n,) of the particles along the direction of the others, noise of unit variance"""

    def __str__(self) -> str:
        where = "as a whole"
        if np.isfinite(self.radius_angstrom):
            x, y, z = self.centre_angstrom
            where = f"within {self.radius_angstrom:.0f} Å of ({x:.0f}, {y:.0f}, {z:.0f}) Å from the centre"
        return f"particles differ most {where} (significance {self.significance:.1f}, {SIGNIFICANT:g} at least)"


@dataclass(frozen=True, slots=True)
class Level:
    """White maps of one fineness, voxels inside the particle."""

    rows: F32
    """(n, V) without their mean"""
    points: F64
    """(V, 3) x, y, z in voxels"""
    voxel_angstrom: float
    mates: F64
    """(G, 3, 3) point group"""

    @classmethod
    def of(cls, maps: F32, inside: NDArray[np.bool_], voxel_angstrom: float, mates: F64) -> Level:
        """Of maps (n, S, S, S), of voxels `inside` (S, S, S)."""
        size = maps.shape[1]
        z, y, x = np.nonzero(inside)
        rows = maps[:, z, y, x]
        rows = np.asarray(rows - rows.mean(axis=0), np.float32)
        points = np.asarray(np.stack([x, y, z], axis=1) - float(size // 2), np.float64)
        return cls(rows, points, voxel_angstrom, mates)

    def without(self, scores: F64) -> Level:
        """Less what goes with `scores` (n,)."""
        unit = (scores / max(float(np.linalg.norm(scores)), 1e-30)).astype(np.float32)
        return Level(self.rows - unit[:, None] * (unit @ self.rows), self.points, self.voxel_angstrom, self.mates)

    def nearest(self, centre: F64, members: NDArray[np.intp]) -> NDArray[np.intp]:
        """Of voxels `members` those that are no nearer to a symmetry mate of `centre`: none counts twice."""
        if len(self.mates) == 1:
            return members
        points = self.points[members]
        own = np.linalg.norm(points - centre, axis=1)
        others = np.linalg.norm(points[:, None] - (self.mates[1:] @ centre)[None], axis=2).min(axis=1)
        return np.asarray(members[own <= others + 1e-6], np.intp)


def edge(eigenvalue: float, particles: int, dimensions: int) -> float:
    """Largest eigenvalue of a covariance of unit noise over the edge, in units of its fluctuation (Johnstone 2001)."""
    root = np.sqrt(max(particles - 1.0, 1.0)), np.sqrt(float(dimensions))
    centre = (root[0] + root[1]) ** 2 / particles
    width = (root[0] + root[1]) / particles * (1.0 / root[0] + 1.0 / root[1]) ** (1.0 / 3.0)
    return float((eigenvalue - centre) / width)


def cut(rows: F32) -> F32:
    """Rows of at most `LARGEST` times the median length."""
    length = np.linalg.norm(rows, axis=1)
    limit = LARGEST * float(np.median(length))
    if not (length > limit).any():
        return rows
    return np.asarray(rows * np.minimum(1.0, limit / np.maximum(length, 1e-30))[:, None], np.float32)


def even(rows: F32) -> F32:
    """Rows (n, V) of one length, without their mean: of many voxels the noisiest particle were else a direction."""
    length = np.linalg.norm(rows, axis=1)
    same = rows * (length.mean() / np.maximum(length, 1e-30))[:, None]
    return np.asarray(same - same.mean(axis=0), np.float32)


def gram(rows: F32) -> F64:
    """Covariance of rows (n, V), or what has the same eigenvalues, whichever is smaller."""
    wide = rows.shape[1] > len(rows)
    return np.asarray((rows @ rows.T if wide else rows.T @ rows).astype(np.float64) / len(rows))


def strongest(rows: F32, count: int = 1) -> tuple[F64, F64]:
    """(count,) largest eigenvalues, descending, of the covariance of rows (n, V), and (V,) direction of the first."""
    matrix = gram(rows)
    count = min(count, len(matrix))
    if len(matrix) <= DENSE:
        values, vectors = np.linalg.eigh(matrix)
    else:
        # a start that depends on nothing
        values, vectors = eigsh(matrix, k=count, which="LA", v0=np.cos(1.7 * np.arange(len(matrix))))
    order = np.argsort(values)[::-1][:count]
    vector = vectors[:, order[0]]
    if rows.shape[1] > len(rows):
        vector = vector @ rows
        vector = vector / max(float(np.linalg.norm(vector)), 1e-30)
    return values[order], np.asarray(vector, np.float64)


def cross_fitted(rows: F32, folds: NDArray[np.int64]) -> F64:
    """(n,) numbers of rows (n, V) along the direction of those of other folds."""
    _, common = strongest(cut(rows))
    common = common * np.sign(common[np.abs(common).argmax()])
    scores = np.zeros(len(rows))
    for fold in np.unique(folds):
        own = folds == fold
        _, direction = strongest(cut(rows[~own])) if (~own).any() else (None, common)
        sign = 1.0 if direction @ common >= 0 else -1.0
        scores[own] = rows[own] @ (sign * direction)
    return scores


def best_place(levels: list[Level], folds: NDArray[np.int64], directions: int, threads: int) -> Place | None:
    """The most significant window of every size, and of these the one along which particles spread most; or None.

    What they spread beyond noise is, up to its own noise, the square of how far apart classes are.  There may be
    `directions` in which particles differ.
    """
    found = [_ball(level, radius, threads) for level in levels for radius in RADII]
    found.append(_whole(levels[-1], directions))
    places = []
    for window in found:
        if window is not None and window.significance >= SIGNIFICANT:
            x, y, z = (float(value) for value in window.centre * window.level.voxel_angstrom)
            scores = cross_fitted(window.level.rows[:, window.members], folds)
            radius = window.radius * window.level.voxel_angstrom
            places.append(Place(window.significance, (x, y, z), radius, scores))
    return max(places, key=lambda place: float(place.scores.var()), default=None)


@dataclass(frozen=True, slots=True)
class _Window:
    """Voxels that are looked at together."""

    level: Level
    centre: F64
    """(3,) voxels"""
    radius: float
    members: NDArray[np.intp]
    significance: float


def _ball(level: Level, radius: float, threads: int) -> _Window | None:
    """The most significant ball of one radius."""
    points = level.points
    if radius > RADII[0]:
        # larger balls lie less densely: a quarter of the voxels, no other is further than 1.2 voxels from the nearest
        odd = np.rint(points).astype(np.int64) % 2
        points = points[(odd == odd[:, :1]).all(axis=1)]
    near = cKDTree(level.points).query_ball_point(points, radius, return_sorted=True)
    balls = [level.nearest(*pair) for pair in zip(points, (np.asarray(one, np.intp) for one in near), strict=True)]

    def over_noise(members: NDArray[np.intp]) -> float:
        rows = cut(level.rows[:, members])
        return edge(float(np.linalg.eigvalsh(gram(rows))[-1]), *rows.shape)

    values = ordered_map(over_noise, balls, threads)
    if not values:
        return None
    best = int(np.argmax(values))
    # noise is not quite white, and particles not quite alike otherwise: all balls have that in common
    middle = float(np.median(values))
    spread = max(1.0, NORMAL * float(np.median(np.abs(np.array(values) - middle))))
    return _Window(level, points[best], radius, balls[best], (values[best] - middle) / spread)


def _whole(level: Level, directions: int) -> _Window | None:
    """All voxels, of which there is one window: its largest eigenvalue is compared with those beyond `directions`.

    Eigenvalues of noise at the edge lie as far apart as the zeros of the Airy function, in units of their fluctuation.
    """
    # any place that has no mates
    general = np.array([0.31, 0.52, 0.77]) * float(np.abs(level.points).max(initial=1.0))
    members = level.nearest(general, np.arange(len(level.points)))
    rows = even(level.rows[:, members])
    if min(rows.shape) <= directions:
        return None
    values, _ = strongest(rows, directions + 1)
    zeros = ai_zeros(directions + 1)[0]
    gap = edge(values[0], *rows.shape) - edge(values[-1], *rows.shape) - (zeros[0] - zeros[-1])
    return _Window(level, np.zeros(3), np.inf, members, float(gap))


def places(levels: list[Level], folds: NDArray[np.int64], count: int, threads: int = 1) -> list[Place]:
    """Up to `count` places with different directions, in the order in which they are found."""
    found: list[Place] = []
    # matrices are small: threads of BLAS would wait for each other
    with blas_threads(1):
        for _ in range(count):
            place = best_place(levels, folds, count, threads)
            if place is None:
                break
            found.append(place)
            levels = [level.without(place.scores) for level in levels]
    return found
