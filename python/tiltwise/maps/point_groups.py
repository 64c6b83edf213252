"""Axes of a point group in a map, and how well the map has the symmetry.

The score is the mean correlation of the map with its copies under the operations of the group, over all components,
after every shell has lost its mean, which any rotation keeps, and been given the same power.  A map that has the
symmetry scores the reliability of its detail, 1 without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.geometry.grids import direction_angles
from tiltwise.geometry.rotations import rotation_y, rotation_z
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.api import Backend
from tiltwise.maps.superpose import climb_simplex
from tiltwise.maps.turning import Turned, flattened, half_ball, turned, without_radial

COMMON = ("C2", "C3", "C4", "C5", "C6", "C7", "C8", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "T", "O", "I")
"""Groups that `rank_groups` tries."""
FIRST_RADIUS = 7.0
"""Shells of the first look, which steps of 7.5° resolve."""
DIRECTION_ORDER = 3
SPIN_DEG = 5.0
DIRECTIONS = 6
"""Directions of the principal axis that are looked at further."""
APART_DEG = 12.0
"""How far from each other these are."""
CANDIDATES = 3
"""Settings that are improved."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Where the axes of a point group lie in a map."""

    group: str
    rotation: NDArray[np.float64]
    """(3, 3) from the setting of the group into the map"""
    centre_px: NDArray[np.float64]
    """(3,) where they meet, from voxel N // 2 along x, y, z"""
    score: float
    """mean correlation of the map with its copies"""

    def applied(self, density: NDArray[np.float32], backend: Backend) -> NDArray[np.float32]:
        """The map turned and moved into the setting of the group, and averaged over its operations."""
        inwards = self.rotation.T
        straight = turned(density, inwards, -inwards @ self.centre_px, backend)
        group, still = symmetry_matrices(self.group), np.zeros(3)
        return np.asarray(np.mean([turned(straight, operator, still, backend) for operator in group], axis=0))


def find_axes(density: NDArray[np.float32], group: str, radius: float, backend: Backend) -> Axes:
    """Best axes of a point group, not C1, in a map (N, N, N) that is about in the middle of its box.

    `radius` are the cycles per box that count.
    """
    operators = _half_of(symmetry_matrices(group)[1:])
    copies = _Copies(density, min(radius, len(density) / 2 - 1), backend)
    centre = _centre_of_mass(density)
    look = _Copies(turned(density, np.eye(3), -centre, backend), min(FIRST_RADIUS, copies.radius), backend)
    settings = _settings(operators)
    found = look.scores(np.einsum("qij,gjk,qlk->qgil", settings.first, settings.principal, settings.first))
    chosen = _apart(settings.first[:, :, 2], found)
    every = (settings.first[chosen][:, None] @ settings.spins).reshape(-1, 3, 3)
    scores = look.scores(np.einsum("qij,gjk,qlk->qgil", every, operators, every))
    best = every[np.argsort(-scores, kind="stable")[:CANDIDATES]]
    return max((copies.climb(group, operators, one, centre) for one in best), key=lambda axes: axes.score)


def rank_groups(
    density: NDArray[np.float32], radius: float, backend: Backend, groups: Sequence[str] = COMMON
) -> list[Axes]:
    """Axes of every group, best score first."""
    return sorted((find_axes(density, name, radius, backend) for name in groups), key=lambda axes: -axes.score)


def _half_of(operators: NDArray[np.float64]) -> NDArray[np.float64]:
    """One of every operation and its inverse, which score the same."""
    kept: list[NDArray[np.float64]] = []
    for operator in operators:
        if all(np.abs(operator.T - other).max() > 1e-6 for other in kept):
            kept.append(operator)
    return np.stack(kept)


def _centre_of_mass(density: NDArray[np.float32]) -> NDArray[np.float64]:
    """(3,) of the positive density, from voxel N // 2 along x, y, z."""
    positive = np.maximum(density, 0.0).astype(np.float64)
    axis = np.arange(len(density)) - len(density) // 2
    total = max(float(positive.sum()), 1e-30)
    return np.array([positive.sum(axis=other) @ axis / total for other in ((0, 1), (0, 2), (1, 2))])


@dataclass(frozen=True, slots=True)
class _Settings:
    """Candidates for the rotation of a group."""

    first: NDArray[np.float64]
    """(Q, 3, 3) that bring the z axis into all directions of a half sphere"""
    principal: NDArray[np.float64]
    """(g, 3, 3) rotations about z of the principal axis, as of the group with that axis along z"""
    spins: NDArray[np.float64]
    """(s, 3, 3) from the setting of the group into one with the principal axis along z, turned about it"""


def _settings(operators: NDArray[np.float64]) -> _Settings:
    vectors = Rotation.from_matrix(operators).as_rotvec()
    angle = np.linalg.norm(vectors, axis=1)
    main = int(np.argmin(np.round(angle, 6)))  # the smallest turn: the axis of highest order
    axis, order = vectors[main] / angle[main], round(2 * np.pi / angle[main])
    upright = Rotation.align_vectors([[0.0, 0.0, 1.0]], [axis])[0].as_matrix()
    turns = rotation_z(360.0 / order * np.arange(1, order // 2 + 1))
    # spins by a step of the axis make the same group; of a cyclic group all do
    cyclic = np.allclose(operators @ axis, axis, atol=1e-6)
    spins = rotation_z(np.zeros(1) if cyclic else np.arange(0.0, 360.0 / order, SPIN_DEG)) @ upright
    rot, tilt = direction_angles(DIRECTION_ORDER).T
    first = rotation_z(rot) @ rotation_y(tilt)
    return _Settings(first[first[:, 2, 2] > -1e-9], turns, spins)


def _apart(directions: NDArray[np.float64], scores: NDArray[np.float64]) -> list[int]:
    """The best axes that are apart; an axis has no sign."""
    chosen: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(abs(directions[i] @ directions[j]) < np.cos(np.radians(APART_DEG)) for j in chosen):
            chosen.append(int(i))
        if len(chosen) == DIRECTIONS:
            break
    return chosen


class _Copies:
    """Correlation of a map with itself turned."""

    def __init__(self, density: NDArray[np.float32], radius: float, backend: Backend) -> None:
        self.box, self.radius = len(density), radius
        points, self.shells, self.weight = half_ball(radius)
        self.points, self.map = points.astype(np.float64), Turned(density, points, backend)
        self.still = self.map.still()

    def scores(self, rotations: NDArray[np.float64]) -> NDArray[np.float64]:
        """(Q,) mean correlation with the copies by rotations (Q, g, 3, 3) about the origin."""
        return np.array([self._score(some) for some in rotations])

    def _score(self, rotations: NDArray[np.float64], centre: NDArray[np.float64] | None = None) -> float:
        """Mean correlation with the copies by rotations (g, 3, 3) about a centre (3,) px, the origin if None."""
        values = np.concatenate([self.still[None], self.map.by(rotations)])
        if centre is not None:
            # as if the map had been moved to bring its centre to the origin
            moves = np.concatenate([centre[None], rotations @ centre])
            values = values * np.exp(2j * np.pi / self.box * (moves @ self.points.T))
        mean = np.stack([without_radial(one, self.shells, self.weight) for one in values])
        flat = flattened(mean, self.shells, self.weight)
        return float((self.weight * (flat[0].conj() * flat[1:]).real).sum(axis=1).mean() / self.weight.sum())

    def climb(
        self, group: str, operators: NDArray[np.float64], rotation: NDArray[np.float64], centre: NDArray[np.float64]
    ) -> Axes:
        """The best setting nearby."""
        unit = self.box / (2 * np.pi * self.radius)

        def pose(steps: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            turn = Rotation.from_rotvec(steps[:3] / self.radius).as_matrix() @ rotation
            return np.asarray(turn), centre + steps[3:] * unit

        def score(steps: NDArray[np.float64]) -> float:
            turn, move = pose(steps)
            return self._score(turn @ operators @ turn.T, move)

        steps, best = climb_simplex(score, 6)
        return Axes(group, *pose(steps), best)
