"""Grids over orientations and shifts for the search of poses.

Orientations are HEALPix pixels (NESTED) over the viewing direction (rot, tilt) times a regular grid over
psi, whose step at order o is `360 / (6 * 2^o)` degrees, about the distance of neighbouring pixels:

=====  ==========  ===  ============  ========
order  directions  psi  orientations  step
=====  ==========  ===  ============  ========
0              12    6            72  60
1              48   12           576  30
2             192   24         4 608  15
3             768   48        36 864   7.5
4           3 072   96       294 912   3.75
5          12 288  192     2 359 296   1.875
=====  ==========  ===  ============  ========

Angles are Euler angles (rot, tilt, psi) in degrees, see `tiltwise.geometry.rotations`; an orientation has
index `direction * n_psi + psi_index`.  Nothing here is random: perturbations are arguments.
"""

from __future__ import annotations

from functools import lru_cache

import healpix
import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.geometry.symmetry import canonical_direction

MAX_ORDER = 8
"""Finest grid: 0.23 degrees between neighbours."""

_PIXEL_RADIUS_DEG = 62.0
"""A pixel of order o lies within `_PIXEL_RADIUS_DEG / 2^o` of its centre: the largest is 61.2, at tilt 48 degrees."""


def angular_step_deg(order: int) -> float:
    """Step of psi, and about the distance of neighbouring directions, in degrees."""
    if not 0 <= order <= MAX_ORDER:
        raise ConfigError("no such orientation grid", expected=f"an order of 0 to {MAX_ORDER}", found=str(order))
    return float(60.0 / 2**order)


def direction_angles(order: int, pixels: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """(D, 2) rot and tilt in degrees of all pixels of a HEALPix order, or of those given."""
    if pixels is None:
        pixels = _all_pixels(order)
    tilt, rot = healpix.pix2ang(2**order, pixels, nest=True)
    return np.asarray(np.degrees(np.stack([rot, tilt], axis=-1)))


def psi_angles(order: int) -> NDArray[np.float64]:
    """(6 * 2^order,) psi in degrees, from 0."""
    return np.asarray(np.arange(6 * 2**order) * angular_step_deg(order))


def orientation_angles(order: int, symmetry: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """All orientations of a grid, `(R, 3)` rot, tilt, psi in degrees.

    Parameters
    ----------
    order
        0 to 8, see the table above.
    symmetry
        `(G, 3, 3)` point group; only one of every set of equivalent directions is kept, about R / G
        orientations: each direction of the full grid has a mate inside a kept pixel.  A grid that is turned
        afterwards by `matrices @ p` needs the group turned likewise, `p @ symmetry @ p.T`.
    """
    pixels = _all_pixels(order)
    if symmetry is not None and len(symmetry) > 1:
        mates = canonical_direction(symmetry, _vectors(order, pixels))
        pixels = np.unique(healpix.vec2pix(2**order, *mates.T, nest=True))
    return _product(direction_angles(order, pixels), psi_angles(order))


def orientation_children(order: int, angles_deg: NDArray[np.float64], oversampling: int = 1) -> NDArray[np.float64]:
    """Finer orientations inside the cells of a grid, `(R, 3)` -> `(R, 8^oversampling, 3)` degrees.

    A cell has the `4^oversampling` HEALPix pixels inside its own as directions, and for each of them
    `2^oversampling` values of psi centred on the one that reaches it from the centre of the cell without a
    twist.  (Keeping psi itself would put children far from their parent near the poles, where rot turns
    quickly.)  Children surround their parent, never coincide with it, and those of all cells fill the
    group evenly.
    """
    tilt, rot = np.radians(angles_deg[:, 1]), np.radians(angles_deg[:, 0])
    pixels = np.asarray(healpix.ang2pix(2**order, tilt, rot, nest=True), dtype=np.int64)
    finer = pixels[:, None] * 4**oversampling + np.arange(4**oversampling)
    directions = direction_angles(order + oversampling, finer)
    psi = _untwisted_psi(directions, euler_to_matrix(angles_deg)[:, None])
    steps = _sub_steps(angular_step_deg(order), oversampling)
    children = np.empty((*directions.shape[:2], len(steps), 3))
    children[..., :2] = directions[:, :, None]
    children[..., 2] = psi[..., None] + steps
    return children.reshape(len(angles_deg), -1, 3)


def orientation_indices(order: int, angles_deg: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index in `orientation_angles(order)` of orientations that are points of the grid, `(R, 3)` -> `(R,)`."""
    tilt, rot = np.radians(angles_deg[:, 1]), np.radians(angles_deg[:, 0])
    pixels = np.asarray(healpix.ang2pix(2**order, tilt, rot, nest=True), dtype=np.int64)
    psi = np.rint(angles_deg[:, 2] / angular_step_deg(order)).astype(np.int64) % (6 * 2**order)
    return np.asarray(pixels * (6 * 2**order) + psi, dtype=np.intp)


def parent_orientations(order: int, angles_deg: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index in `orientation_angles(order - 1)` of the cell each orientation of a grid lies in, `(R, 3)` -> `(R,)`.

    The cell has the coarser HEALPix pixel, and of its values of psi the nearest after the twist between the two
    directions is taken out, as in `orientation_children`.
    """
    tilt, rot = np.radians(angles_deg[:, 1]), np.radians(angles_deg[:, 0])
    parents = np.asarray(healpix.ang2pix(2**order, tilt, rot, nest=True), dtype=np.int64) // 4
    above = direction_angles(order - 1, parents)
    step, count = angular_step_deg(order - 1), 6 * 2 ** (order - 1)
    psi = np.rint(_untwisted_psi(above, euler_to_matrix(angles_deg)) / step).astype(np.int64) % count
    return np.asarray(parents * count + psi, dtype=np.intp)


def neighbours(
    rotations: NDArray[np.float64], reach_deg: float, symmetry: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For every rotation (R, 3, 3) those within an angle of it or of a mate `R @ g`, itself included.

    Returns `starts` (R + 1,) and `members`: the neighbours of i are `members[starts[i] : starts[i + 1]]`.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.transform import Rotation

    def quaternions(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(Rotation.from_matrix(matrices).as_quat())

    mates = [rotations] if symmetry is None else [rotations @ g for g in symmetry]
    copies = np.concatenate([quaternions(mate) for mate in mates])
    # Rotations by the angle a have quaternions 2 sin(a / 4) apart; q and -q are the same rotation.
    tree = cKDTree(np.concatenate([copies, -copies]))
    found = tree.query_ball_point(quaternions(rotations), 2.0 * np.sin(np.radians(reach_deg) / 4.0))
    members = [np.unique(np.asarray(near, dtype=np.intp) % len(rotations)) for near in found]
    starts = np.concatenate([[0], np.cumsum([len(near) for near in members])])
    return np.asarray(starts, dtype=np.intp), np.concatenate(members)


@lru_cache(maxsize=4)
def grid_neighbours(order: int, steps: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """`neighbours` of the orientations of a whole grid, within a number of steps."""
    return neighbours(euler_to_matrix(orientation_angles(order)), steps * angular_step_deg(order))


def local_orientations(order: int, centre: NDArray[np.float64], radius_deg: float) -> NDArray[np.float64]:
    """Orientations of a grid around a rotation, `(R, 3)` degrees.

    The rotation from the centre to an orientation is a swing of the viewing direction followed by a twist
    about it; orientations with swing <= radius and |twist| <= radius are kept.  All of them are within
    about sqrt(2) * radius of the centre, and all within `radius` of it are among them.  Near the poles,
    where rot and psi become one angle, this selects about as many orientations as elsewhere.  Where no
    direction is in reach the pixel that contains the centre's is taken, and likewise the nearest psi.

    `centre` is a `(3, 3)` rotation matrix.  The cost grows with the size of the answer, not of the grid.
    """
    step = angular_step_deg(order)
    pixels = _directions_within(order, centre[2], radius_deg)
    if not pixels.size:
        pixels = np.atleast_1d(healpix.vec2pix(2**order, *centre[2], nest=True))
    directions = direction_angles(order, pixels)
    best = _untwisted_psi(directions, centre)
    if radius_deg >= 180.0:
        index = np.broadcast_to(np.arange(6.0 * 2**order), (len(pixels), 6 * 2**order))
        keep = np.ones(index.shape, bool)
    else:
        reach = int(radius_deg // step) + 1
        index = np.rint(best / step)[:, None] + np.arange(-reach, reach + 1)
        keep = np.abs(index * step - best[:, None]) <= radius_deg
        keep[:, reach] |= ~keep.any(axis=1)
    row, column = np.nonzero(keep)
    psi = np.mod(index[row, column], 6 * 2**order) * step
    return np.column_stack([directions[row], psi])


def translation_ball(search_range: float, step: float) -> NDArray[np.float64]:
    """Shifts `(T, 3)` x, y, z on a cubic lattice of spacing `step` with |t| <= `search_range`, same units.

    Sorted by length, so the first one is zero.
    """
    if not (step > 0 and search_range >= 0):
        raise ConfigError(
            "cannot make a grid of shifts",
            where="offset range and step",
            expected="range >= 0 and step > 0",
            found=f"{search_range:g} and {step:g}",
        )
    # A lattice point exactly on the sphere belongs to it whatever the rounding of range / step.
    limit = search_range / step * (1 + 1e-9)
    n = int(np.floor(limit))
    axis = np.arange(-n, n + 1)
    z, y, x = (a.ravel() for a in np.meshgrid(axis, axis, axis, indexing="ij"))
    square = x * x + y * y + z * z
    inside = square <= limit * limit
    x, y, z, square = x[inside], y[inside], z[inside], square[inside]
    order = np.lexsort((x, y, z, square))
    return np.asarray(np.stack([x, y, z], axis=1)[order] * float(step))


def shift_children(step: float, oversampling: int = 1) -> NDArray[np.float64]:
    """Offsets `(8^oversampling, 3)` of the finer shifts inside a cell of width `step`, centred on it."""
    axis = _sub_steps(step, oversampling)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)


def _untwisted_psi(directions: NDArray[np.float64], matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles psi (...) in degrees with which rot and tilt `(..., 2)` are reached from rotations without a twist.

    The rotation from `matrices` `(..., 3, 3)` to (rot, tilt, psi) is then a pure swing of the direction.
    """
    # With B the matrix of (rot, tilt, 0) it is Rz(-psi) B matrix^T; psi takes out the turn about z of the rest.
    without_psi = np.concatenate([directions, np.zeros((*directions.shape[:-1], 1))], axis=-1)
    rest = euler_to_matrix(without_psi) @ np.swapaxes(matrices, -1, -2)
    return np.asarray(np.degrees(np.arctan2(rest[..., 1, 0] - rest[..., 0, 1], rest[..., 0, 0] + rest[..., 1, 1])))


def _sub_steps(step: float, oversampling: int) -> NDArray[np.float64]:
    count = 2**oversampling
    return np.asarray((np.arange(count) - (count - 1) / 2) * (step / count))


def _product(directions: NDArray[np.float64], psi: NDArray[np.float64]) -> NDArray[np.float64]:
    angles = np.empty((len(directions), len(psi), 3))
    angles[..., :2] = directions[:, None]
    angles[..., 2] = psi
    return angles.reshape(-1, 3)


def _all_pixels(order: int) -> NDArray[np.int64]:
    angular_step_deg(order)  # refuses orders that do not exist
    return np.arange(12 * 4**order)


def _vectors(order: int, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.stack(healpix.pix2vec(2**order, pixels, nest=True), axis=-1)


def _directions_within(order: int, centre: NDArray[np.float64], radius_deg: float) -> NDArray[np.int64]:
    """Pixels of an order whose centres lie within `radius_deg` of a unit vector, found from order 0 down."""
    pixels = np.arange(12)
    for level in range(order + 1):
        if level:
            pixels = (pixels[:, None] * 4 + np.arange(4)).ravel()
        reach = radius_deg + (_PIXEL_RADIUS_DEG / 2**level if level < order else 0.0)
        # Chord lengths: the cosine of a small angle loses half of the digits.
        chord = np.linalg.norm(_vectors(level, pixels) - centre, axis=-1)
        pixels = pixels[chord <= 2.0 * np.sin(np.radians(min(reach, 180.0)) / 2.0)]
    return pixels
