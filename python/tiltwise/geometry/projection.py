"""Projection of tomogram positions into tilt images, and where particles are.

Positions are 0-based unbinned pixels from the corner of the tomogram, voxel centres at integers.  The
projection matrix of a tilt image gives `(qx, qy, depth, 1) = P @ (x, y, z, 1)`: image pixels, 0-based,
pixel centres at integers, and a depth along the beam in pixels.

RELION-4 files store P itself.  RELION-5 files store angles and shifts, from which

    P = T(shift / px) T(W // 2, H // 2, 0) Rz(z_rot) Ry(y_tilt) Rx(x_tilt) T(-(w // 2, h // 2, d // 2))

with image size (W, H) and tomogram size (w, h, d).  The centre in P is an integer; the reference of depth
and of centred coordinates is `size / 2`, which differs by half a pixel where a size is odd.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.rotations import euler_to_matrix, rotation_x, rotation_y, rotation_z

RIGID_TOLERANCE = 2e-5
"""Largest deviation of P P^T from the identity that still counts as a rotation: what it moves a point 2000
pixels from the axis is below 0.05 pixel, and 5-digit files stay inside."""


class ProjectionAngles(NamedTuple):
    """RELION-5's description of a tilt series, `(F,)` each: degrees and Å."""

    x_tilt_deg: NDArray[np.float64]
    y_tilt_deg: NDArray[np.float64]
    z_rot_deg: NDArray[np.float64]
    x_shift_angstrom: NDArray[np.float64]
    y_shift_angstrom: NDArray[np.float64]


def projection_matrices_from_angles(
    x_tilt_deg: ArrayLike,
    y_tilt_deg: ArrayLike,
    z_rot_deg: ArrayLike,
    x_shift_angstrom: ArrayLike,
    y_shift_angstrom: ArrayLike,
    pixel_size: float,
    tomogram_size: tuple[int, int, int],
    image_size: tuple[int, int],
) -> NDArray[np.float64]:
    """RELION-5 angles and shifts to projection matrices.

    Parameters
    ----------
    x_tilt_deg, y_tilt_deg, z_rot_deg
        `(F,)` rotations of the specimen about x, then y, then z, in degrees.
    x_shift_angstrom, y_shift_angstrom
        `(F,)` shift of the projected specimen towards +x, +y of the image, in Å.
    pixel_size
        Å per unbinned pixel.
    tomogram_size, image_size
        (width, height, depth) and (width, height) in unbinned pixels.

    Returns
    -------
    `(F, 4, 4)` float64.
    """
    rotation = rotation_z(z_rot_deg) @ rotation_y(y_tilt_deg) @ rotation_x(x_tilt_deg)
    matrices = np.zeros((*rotation.shape[:-2], 4, 4))
    matrices[..., :3, :3] = rotation
    matrices[..., :3, 3] = -rotation @ _integer_centre(tomogram_size)
    matrices[..., 0, 3] += np.asarray(x_shift_angstrom) / pixel_size + image_size[0] // 2
    matrices[..., 1, 3] += np.asarray(y_shift_angstrom) / pixel_size + image_size[1] // 2
    matrices[..., 3, 3] = 1.0
    return matrices


def angles_from_projection_matrices(
    projection: ArrayLike,
    pixel_size: float,
    tomogram_size: tuple[int, int, int],
    image_size: tuple[int, int],
    name: str = "",
) -> ProjectionAngles:
    """Projection matrices to RELION-5 angles and shifts, exact inverse in image coordinates.

    The depth offset of a matrix (its element [2, 3]) has no counterpart and is dropped; only differences
    of depth have a meaning.

    Parameters are those of `projection_matrices_from_angles`; `projection` is `(F, 4, 4)`, and errors tell `name`.

    Raises
    ------
    DataError
        if a matrix mirrors, magnifies, stretches or skews: RELION-5 has no words for that.
    """
    matrices = np.asarray(projection, dtype=np.float64)
    rotation = matrices[..., :3, :3]
    _refuse_unless_rigid(rotation, name)
    cosine = np.hypot(rotation[..., 2, 1], rotation[..., 2, 2])
    pole = cosine < 1e-6
    # Not the arcsine: near 90 degrees it would magnify the rounding of single-precision matrices.
    y_tilt = np.arctan2(-rotation[..., 2, 0], cosine)
    x_tilt = np.where(pole, 0.0, np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2]))
    z_rot = np.where(
        pole,
        np.arctan2(-rotation[..., 0, 1], rotation[..., 1, 1]),
        np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0]),
    )
    shift = (rotation @ _integer_centre(tomogram_size) + matrices[..., :3, 3])[..., :2]
    shift = (shift - np.asarray([image_size[0] // 2, image_size[1] // 2])) * pixel_size
    return ProjectionAngles(np.degrees(x_tilt), np.degrees(y_tilt), np.degrees(z_rot), shift[..., 0], shift[..., 1])


def project_points(projection: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions `(P, 3)` seen in F tilts: `(P, F, 3)`, columns qx, qy and depth in unbinned pixels."""
    return np.asarray(np.einsum("fij,pj->pfi", projection[:, :3, :3], points) + projection[:, :3, 3])


def is_visible(q: NDArray[np.float64], image_size: tuple[int, int], radius: float) -> NDArray[np.bool_]:
    """Whether points `(..., 2)` lie more than `radius` pixels inside the image: `radius < q < size - radius`."""
    size = np.asarray(image_size, dtype=np.float64)
    return np.asarray(np.all((q > radius) & (q < size - radius), axis=-1))


def depth_offset_px(
    projection: NDArray[np.float64], points: NDArray[np.float64], tomogram_size: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Depth of positions `(P, 3)` relative to the tomogram's centre `size / 2`, `(P, F)` unbinned pixels.

    The defocus a particle adds is `hand * slope * pixel_size * depth` (Eq. 16: one offset per tilt, the
    rest follows from the 3D position).
    """
    centred = np.asarray(points, dtype=np.float64) - np.asarray(tomogram_size, dtype=np.float64) / 2.0
    return np.asarray(centred @ projection[:, 2, :3].T)


def particle_positions(
    coordinate_px: ArrayLike, origin_angstrom: ArrayLike, subtomogram_angles_deg: ArrayLike, pixel_size: ArrayLike
) -> NDArray[np.float64]:
    """Centres of particles, `coordinate - A_sub @ origin / pixel_size`, `(P, 3)` unbinned pixels.

    `coordinate_px` and `origin_angstrom` are `(P, 3)`; origins are stored in the frame of the subtomogram,
    whose angles `(P, 3)` are rot, tilt, psi in degrees.  `pixel_size` is one number or `(P,)`, Å.
    """
    rotation = euler_to_matrix(subtomogram_angles_deg)
    offset = np.einsum("...ij,...j->...i", rotation, np.asarray(origin_angstrom, dtype=np.float64))
    pixel = np.asarray(pixel_size, dtype=np.float64)[..., None]
    return np.asarray(np.asarray(coordinate_px, dtype=np.float64) - offset / pixel)


def _integer_centre(tomogram_size: tuple[int, int, int]) -> NDArray[np.float64]:
    return np.asarray([size // 2 for size in tomogram_size], dtype=np.float64)


def _refuse_unless_rigid(rotation: NDArray[np.float64], name: str) -> None:
    deviation = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max(axis=(-2, -1))
    first_two = np.cross(rotation[..., 0, :], rotation[..., 1, :])
    determinant = np.sum(first_two * rotation[..., 2, :], axis=-1)
    bad = np.atleast_1d(~(deviation <= RIGID_TOLERANCE) | ~(determinant > 0))
    if not bad.any():
        return
    first = int(np.flatnonzero(bad)[0])
    mirrored = np.atleast_1d(determinant)[first] < 0
    raise DataError(
        "projection matrices cannot be written as RELION-5 angles",
        where=(f"{name}: " if name else "") + f"{int(bad.sum())} of {bad.size} tilts, first at row {first}",
        expected="pure rotations (determinant +1, no magnification)",
        found=f"determinant {np.atleast_1d(determinant)[first]:.6f}, "
        f"deviation from orthogonality {np.atleast_1d(deviation)[first]:.2e}",
        fix="these matrices mirror the tomogram: import with both IMOD flips"
        if mirrored
        else "keep the RELION-4 matrices, or align without magnification or stretch",
    )
