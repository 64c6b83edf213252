"""Superposition of two maps: the rotation, shift and, if asked for, hand in which one lies best on the other.

The score is the correlation of the transforms after every shell of both has been given the same power: the mean of
the FSC over all components.  All rotations of a grid are tried at low resolution, each at all shifts by one transform;
the best ones are improved without a grid at full resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from tiltwise.geometry.grids import orientation_angles
from tiltwise.geometry.rotations import angular_distance_deg, euler_to_matrix
from tiltwise.kernels.api import Backend
from tiltwise.maps.turning import Turned, flattened, half_ball, mirrored

FIRST_RADIUS = 6.0
"""Shells of the first look, which its steps of 15° resolve."""
ORDER = 2
CANDIDATES = 6
"""Rotations of the first look that are improved."""
APART_DEG = 20.0
"""How far from each other these are."""
TILE = 256


@dataclass(frozen=True, slots=True)
class Superposition:
    """Where a map lies on another: `fixed(x) ~ moving(h R^T (x - t))`, h the mirror z -> -z if `mirrored`."""

    rotation: NDArray[np.float64]
    """(3, 3) R"""
    shift_px: NDArray[np.float64]
    """(3,) t along x, y, z"""
    mirrored: bool
    score: float
    """mean correlation of the components up to the radius"""


def superpose(
    moving: NDArray[np.float32],
    fixed: NDArray[np.float32],
    radius: float,
    backend: Backend,
    *,
    hands: bool = False,
    reach_px: float | None = None,
    nearby: bool = False,
) -> Superposition:
    """How `moving` lies best on `fixed`, both (N, N, N) with the origin at voxel N // 2.

    Parameters
    ----------
    radius
        cycles per box up to which they are compared.
    hands
        try the mirror image of `moving` as well.
    reach_px
        largest shift; default: a quarter of the box.
    nearby
        improve the pose that both have now, and look nowhere else.
    """
    box = len(fixed)
    reach = box / 4 if reach_px is None else reach_px
    found = []
    for mirror in (False, True) if hands else (False,):
        density = mirrored(moving) if mirror else moving
        overlap = _Overlap(density, fixed, min(radius, box / 2 - 1), backend)
        starts: list[Pose] = [(np.eye(3), np.zeros(3))]
        if not nearby:
            starts = _first_look(density, fixed, min(FIRST_RADIUS, overlap.radius), backend, reach)
        found += [Superposition(*pose, mirror, score) for pose, score in map(overlap.climb, starts)]
    return max(found, key=lambda one: one.score)


Pose = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Rotation (3, 3) and shift (3,) in px."""


def _first_look(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], radius: float, backend: Backend, reach: float
) -> list[Pose]:
    """The best cells that are apart."""
    points, shells, weight = half_ball(radius)
    source = Turned(moving, points, backend)
    target = flattened(Turned(fixed, points, backend).still(), shells, weight)
    size = 4 * int(radius)
    axis = np.fft.fftfreq(size, 1.0 / size) * (len(fixed) / size)
    # at least the nearest shifts
    near = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) <= max(reach, axis[1]) ** 2
    place = tuple(points[:, i].astype(int) for i in (2, 1, 0))
    rotations = euler_to_matrix(orientation_angles(ORDER))
    scores, shifts = np.empty(len(rotations)), np.empty((len(rotations), 3))
    own = source.still()[None]
    for start in range(0, len(rotations), TILE):
        part = slice(start, start + TILE)
        values = np.concatenate([own, source.by(rotations[part])])  # all in the scale of the first
        cross = target * flattened(values, shells, weight)[1:].conj()
        spectra = np.zeros((len(cross), size, size, size // 2 + 1), np.complex64)
        spectra[:, place[0], place[1], place[2]] = cross
        maps = np.where(near, np.fft.irfftn(spectra, s=(size,) * 3, axes=(1, 2, 3)), -np.inf).reshape(len(cross), -1)
        z, y, x = np.unravel_index(maps.argmax(axis=1), (size,) * 3)
        scores[part], shifts[part] = maps.max(axis=1), np.stack([axis[x], axis[y], axis[z]], axis=1)
    chosen: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(angular_distance_deg(rotations[i], rotations[j]) > APART_DEG for j in chosen):
            chosen.append(int(i))
        if len(chosen) == CANDIDATES:
            break
    return [(rotations[i], shifts[i]) for i in chosen]


class _Overlap:
    """Score as a function of rotation and shift."""

    def __init__(
        self, moving: NDArray[np.float32], fixed: NDArray[np.float32], radius: float, backend: Backend
    ) -> None:
        self.box, self.radius = len(fixed), radius
        points, self.shells, self.weight = half_ball(radius)
        self.points, self.moving = points.astype(np.float64), Turned(moving, points, backend)
        self.target = flattened(Turned(fixed, points, backend).still(), self.shells, self.weight).conj()

    def score(self, rotation: NDArray[np.float64], shift: NDArray[np.float64]) -> float:
        """Mean correlation."""
        values = flattened(self.moving.by(rotation[None])[0], self.shells, self.weight)
        moved = values * np.exp(-2j * np.pi / self.box * (self.points @ shift))
        return float(self.weight @ (self.target * moved).real / self.weight.sum())

    def climb(self, start: Pose) -> tuple[Pose, float]:
        """The best pose nearby and its score."""
        unit = self.box / (2 * np.pi * self.radius)  # px that turn the phase of the finest shell by a radian

        def pose(steps: NDArray[np.float64]) -> Pose:
            turn = Rotation.from_rotvec(steps[:3] / self.radius).as_matrix() @ start[0]
            return np.asarray(turn), start[1] + steps[3:] * unit

        steps, score = climb_simplex(lambda steps: self.score(*pose(steps)), 6)
        return pose(steps), score


def climb_simplex(score: Callable[[NDArray[np.float64]], float], dimensions: int) -> tuple[NDArray[np.float64], float]:
    """Largest score near zero, in steps of the order of one; a simplex, as interpolation makes small kinks."""
    simplex = np.concatenate([np.zeros((1, dimensions)), np.eye(dimensions)])
    settings = {"xatol": 1e-2, "fatol": 1e-5, "initial_simplex": simplex, "maxfev": 400}
    found = minimize(lambda steps: -score(steps), np.zeros(dimensions), method="Nelder-Mead", options=settings)
    return np.asarray(found.x), -float(found.fun)
