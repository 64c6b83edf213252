"""Where simulated particles are, how they are turned, and how they move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler, rotation_y

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Poses:
    """P particles of one tilt series, true or as the metadata state them."""

    position_px: F64
    """(P, 3) 0-based unbinned pixels from the corner of the tomogram"""
    rotation: F64
    """(P, 3, 3) A, reference to tomogram"""
    frame: F64 | None = None
    """(P, 3, 3) of particles with a stored axis: z along it; None for others"""

    @property
    def angles_deg(self) -> F64:
        """(P, 3) rot, tilt, psi."""
        return matrix_to_euler(self.rotation)

    def perturbed(self, error_position_px: float, error_orientation_deg: float, rng: np.random.Generator) -> Poses:
        """Poses with Gaussian errors: rms per axis of the positions, rms angle of the rotations."""
        n = len(self.position_px)
        shift, turn = rng.standard_normal((2, n, 3))
        rotation = self.rotation @ rotation_from_vector(turn * (np.radians(error_orientation_deg) / np.sqrt(3.0)))
        return Poses(self.position_px + error_position_px * shift, rotation, self.frame)

    @property
    def subtomogram(self) -> F64:
        """(P, 3, 3) A_sub.

        That of particles with an axis is turned by 90 degrees about y, as RELION-5's tools do: the axis then has tilt
        90 and psi 0 in it, away from the pole where rot and psi are one angle.
        """
        if self.frame is None:
            return np.broadcast_to(np.eye(3), self.rotation.shape)
        return np.asarray(self.frame @ rotation_y(90.0))


def place_particles(
    n: int,
    tomogram_size: tuple[int, int, int],
    z_margin_px: float,
    spacing_px: float,
    allowed: Callable[[F64], NDArray[np.bool_]],
    rng: np.random.Generator,
) -> F64:
    """Positions `(n, 3)` at random in the slab, no two nearer than `spacing_px`, all of them `allowed`.

    Centres keep `z_margin_px` from the faces of the slab, or lie in its middle where it is too thin.

    Raises
    ------
    ConfigError
        if there is no room for so many.
    """
    size = np.asarray(tomogram_size, dtype=np.float64)
    low, high = np.zeros(3), size - 1
    middle = size[2] / 2
    reach = max(0.0, middle - z_margin_px)
    low[2], high[2] = middle - reach, middle + reach
    placed = np.empty((0, 3))
    for _ in range(400):
        candidates = rng.uniform(low, high, (4 * n + 64, 3))
        candidates = candidates[allowed(candidates)]
        if len(placed) and len(candidates):
            candidates = candidates[_distances(candidates, placed).min(axis=1) >= spacing_px]
        for candidate in candidates:
            if not len(placed) or _distances(candidate[None], placed).min() >= spacing_px:
                placed = np.concatenate([placed, candidate[None]])
            if len(placed) == n:
                return placed
    raise ConfigError(
        "there is no room for so many particles",
        where="--particles",
        expected=f"about {int(0.9 * len(placed))} in each tilt series at most",
        found=f"{n} at least {spacing_px:.1f} px apart and inside the image in all tilts",
        fix="lower --particles, --spacing or --margin-px, or make the images larger or the slab thicker",
    )


def place_on_sphere(
    n: int,
    centre: F64,
    radius_px: float,
    spacing_px: float,
    allowed: Callable[[F64], NDArray[np.bool_]],
    rng: np.random.Generator,
) -> tuple[F64, F64]:
    """Positions `(n, 3)` at random on a sphere, as of `place_particles`, and the outward normals `(n, 3)` there.

    Raises
    ------
    ConfigError
        if there is no room for so many.
    """
    placed = np.empty((0, 3))
    for _ in range(400):
        normals = rng.standard_normal((4 * n + 64, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals[allowed(centre + radius_px * normals)]
        for normal in normals:
            if not len(placed) or radius_px * _distances(normal[None], placed).min() >= spacing_px:
                placed = np.concatenate([placed, normal[None]])
            if len(placed) == n:
                return centre + radius_px * placed, placed
    raise ConfigError(
        "there is no room for so many particles on the membrane",
        where="--membrane-radius",
        expected=f"about {int(0.9 * len(placed))} in each tilt series at most",
        found=f"{n} at least {spacing_px:.1f} px apart and inside the image in all tilts",
        fix="lower --particles, --spacing or --margin-px, or make the radius or the images larger",
    )


def place_on_lattice(
    n: int, tomogram_size: tuple[int, int, int], spacing_px: float, allowed: Callable[[F64], NDArray[np.bool_]]
) -> F64:
    """Positions `(n, 3)` of a hexagonal lattice in the middle plane, those nearest to the centre that are `allowed`.

    Raises
    ------
    ConfigError
        if there is no room for so many.
    """
    reach = int(np.ceil(2.0 * max(tomogram_size[:2]) / spacing_px))
    i, j = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    flat = np.stack([i + 0.5 * j, np.sqrt(0.75) * j, 0.0 * i], axis=-1).reshape(-1, 3) * spacing_px
    points = flat + np.asarray(tomogram_size) / 2.0
    # the direction breaks ties: the same particles on every machine
    order = np.lexsort((np.round(np.arctan2(flat[:, 1], flat[:, 0]), 6), np.round(np.linalg.norm(flat, axis=1), 6)))
    points = points[order]
    points = points[allowed(points)]
    if len(points) < n:
        raise ConfigError(
            "there is no room for so many particles on the lattice",
            where="--particles",
            expected=f"{len(points)} in each tilt series at most",
            found=f"{n} inside the image in all tilts",
            fix="lower --particles, --lattice or --margin-px, or make the images larger",
        )
    return points[:n]


def _distances(a: F64, b: F64) -> F64:
    return np.asarray(np.sqrt(np.square(a[:, None] - b).sum(axis=-1)))


def rotation_from_vector(vector: F64) -> F64:
    """Rotations `(..., 3, 3)` about the direction of a vector `(..., 3)` by its length in radians."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([np.stack(row, axis=-1) for row in ([zero, -z, y], [z, zero, -x], [-y, x, zero])], axis=-2)
    # sinc keeps both factors finite at angle zero
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))


def axis_frames(axes: F64) -> F64:
    """Rotations `(n, 3, 3)` that take z to the unit vectors `(n, 3)`, by tilt and psi alone."""
    x, y, z = axes.T
    tilt, psi = np.degrees(np.arccos(np.clip(z, -1.0, 1.0))), np.degrees(np.arctan2(y, -x))
    return euler_to_matrix(np.stack([np.zeros_like(tilt), tilt, psi], axis=-1))


def rocked(frames: F64, rocking_deg: float, rng: np.random.Generator) -> F64:
    """Rotations `(n, 3, 3)` with any turn about z, whose z axis is off that of `frames` by Gaussians of a width.

    The width is that of each of the two angles across the axis.
    """
    tilt, turn = np.zeros((2, len(frames), 3))
    tilt[:, :2] = np.radians(rocking_deg) * rng.standard_normal((len(frames), 2))
    turn[:, 2] = rng.uniform(-np.pi, np.pi, len(frames))
    return np.asarray(frames @ rotation_from_vector(tilt) @ rotation_from_vector(turn))


def random_rotations(n: int, rng: np.random.Generator) -> F64:
    """`(n, 3, 3)` rotations, uniformly distributed."""
    return _quaternion_matrices(rng.standard_normal((n, 4)))


def uniform_rotations(n: int, rng: np.random.Generator) -> F64:
    """`(n, 3, 3)` rotations spread evenly: a spiral in the space of quaternions, turned as a whole at random.

    Super-Fibonacci sampling (Alexa 2022): two irrational steps around two circles of growing and falling radius.
    """
    s = np.arange(n) + 0.5
    t = s / n
    alpha, beta = 2 * np.pi * s / np.sqrt(2.0), 2 * np.pi * s / 1.533751168755204288118041
    r, big = np.sqrt(t), np.sqrt(1 - t)
    spiral = np.stack([r * np.sin(alpha), r * np.cos(alpha), big * np.sin(beta), big * np.cos(beta)], axis=-1)
    turned = random_rotations(1, rng) @ _quaternion_matrices(spiral)
    return np.asarray(turned[rng.permutation(n)])


def aligned_rotations(n: int, rng: np.random.Generator, width_deg: float) -> F64:
    """`(n, 3, 3)` rotations by Gaussians of a width about each of the three axes: particles of a lattice."""
    return np.asarray(rotation_from_vector(np.radians(width_deg) * rng.standard_normal((n, 3))))


def _quaternion_matrices(quaternion: F64) -> F64:
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def smooth_motion(
    position_px: F64,
    tomogram_size: tuple[int, int, int],
    acquisition: NDArray[np.int64],
    step_px: float,
    rng: np.random.Generator,
) -> F64:
    """Displacements `(F, P, 3)` in pixels, zero in the first image taken.

    A random walk, from one image to the next in the order they were taken, of the coefficients of the fields
    1, x, y, z and xy; the rms step of the particles along each axis is `step_px`.  `acquisition[f]` is the
    rank of row f.
    """
    unit = (position_px - np.asarray(tomogram_size) / 2.0) / (np.asarray(tomogram_size) / 2.0)
    x, y, z = unit.T
    fields = np.stack([np.ones_like(x), x, y, z, x * y])
    fields *= step_px / np.sqrt(np.square(fields).sum(axis=0).mean())
    steps = np.einsum("tac,ap->tpc", rng.standard_normal((len(acquisition), len(fields), 3)), fields)
    steps[0] = 0.0
    return np.asarray(np.cumsum(steps, axis=0)[acquisition])
