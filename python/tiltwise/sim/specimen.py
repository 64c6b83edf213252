"""Where simulated particles are, how they are turned, and how they move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import matrix_to_euler

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Poses:
    """P particles of one tilt series, true or as the metadata state them."""

    position_px: F64
    """(P, 3) 0-based unbinned pixels from the corner of the tomogram"""
    rotation: F64
    """(P, 3, 3) A, reference to tomogram"""

    @property
    def angles_deg(self) -> F64:
        """(P, 3) rot, tilt, psi."""
        return matrix_to_euler(self.rotation)

    def perturbed(self, error_position_px: float, error_orientation_deg: float, rng: np.random.Generator) -> Poses:
        """Poses with Gaussian errors: rms per axis of the positions, rms angle of the rotations."""
        n = len(self.position_px)
        shift, turn = rng.standard_normal((2, n, 3))
        rotation = self.rotation @ rotation_from_vector(turn * (np.radians(error_orientation_deg) / np.sqrt(3.0)))
        return Poses(self.position_px + error_position_px * shift, rotation)


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
