"""Rotation matrices and RELION's ZYZ Euler angles.

All rotations are active and right-handed, all angles in degrees, and everything is vectorised over
leading axes.  The Euler matrix of (rot, tilt, psi) is

    A = Rz(-psi) Ry(-tilt) Rz(-rot)

and maps coordinates of the reference into the frame on its left (subtomogram or tomogram).  Its third
row is the viewing direction in the reference, (sin tilt cos rot, sin tilt sin rot, cos tilt).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiltwise.errors import ShapeError

_POLE = 1e-7
"""sin(tilt) below which rot and psi are one angle: float64 matrices lose them at about the root of 1e-16."""


def _axis_rotation(angle_deg: ArrayLike, axis: int) -> NDArray[np.float64]:
    angle = np.radians(np.asarray(angle_deg, dtype=np.float64))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., axis, axis] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., second, first] = np.sin(angle)
    matrix[..., first, second] = -matrix[..., second, first]
    return matrix


def rotation_x(angle_deg: ArrayLike) -> NDArray[np.float64]:
    """Active right-handed rotations about x, `(...)` degrees -> `(..., 3, 3)`."""
    return _axis_rotation(angle_deg, 0)


def rotation_y(angle_deg: ArrayLike) -> NDArray[np.float64]:
    """Active right-handed rotations about y, `(...)` degrees -> `(..., 3, 3)`."""
    return _axis_rotation(angle_deg, 1)


def rotation_z(angle_deg: ArrayLike) -> NDArray[np.float64]:
    """Active right-handed rotations about z, `(...)` degrees -> `(..., 3, 3)`."""
    return _axis_rotation(angle_deg, 2)


def euler_to_matrix(angles_deg: ArrayLike) -> NDArray[np.float64]:
    """RELION's matrices `A = Rz(-psi) Ry(-tilt) Rz(-rot)`.

    Parameters
    ----------
    angles_deg
        `(..., 3)` rot, tilt, psi in degrees.

    Returns
    -------
    `(..., 3, 3)` float64.

    Raises
    ------
    ShapeError
        if the last axis does not hold three angles.
    """
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.ndim == 0 or angles.shape[-1] != 3:
        raise ShapeError("Euler angles come in threes", expected="(..., 3)", found=str(angles.shape))
    c, s = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    (c1, c2, c3), (s1, s2, s3) = np.moveaxis(c, -1, 0), np.moveaxis(s, -1, 0)
    rows = [
        [c3 * c2 * c1 - s3 * s1, c3 * c2 * s1 + s3 * c1, -c3 * s2],
        [-s3 * c2 * c1 - c3 * s1, -s3 * c2 * s1 + c3 * c1, s3 * s2],
        [s2 * c1, s2 * s1, c2],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_euler(matrix: ArrayLike) -> NDArray[np.float64]:
    """Angles of rotation matrices, the inverse of `euler_to_matrix`.

    Returns `(..., 3)` rot and psi in (-180, 180], tilt in [0, 180].  Where tilt is 0 or 180 degrees only
    one combination of rot and psi is defined: rot is then 0.
    """
    a = _as_matrices(matrix)
    sin_tilt = np.hypot(a[..., 0, 2], a[..., 1, 2])
    tilt = np.arctan2(sin_tilt, a[..., 2, 2])
    pole = sin_tilt < _POLE
    rot = np.where(pole, 0.0, np.arctan2(a[..., 2, 1], a[..., 2, 0]))
    psi_at_pole = np.where(
        a[..., 2, 2] > 0, np.arctan2(-a[..., 1, 0], a[..., 0, 0]), np.arctan2(a[..., 1, 0], -a[..., 0, 0])
    )
    psi = np.where(pole, psi_at_pole, np.arctan2(a[..., 1, 2], -a[..., 0, 2]))
    return np.asarray(np.degrees(np.stack([rot, tilt, psi], axis=-1)))


def angular_distance_deg(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Rotation angle of `a @ b^T` in degrees, in [0, 180]; matrices `(..., 3, 3)` broadcast."""
    first, second = _as_matrices(a), _as_matrices(b)
    # The norm of the difference is 2 sqrt(2) sin(angle / 2): exact for small angles, where the trace is not.
    norm = np.sqrt(np.sum((first - second) ** 2, axis=(-2, -1)))
    return np.asarray(2.0 * np.degrees(np.arcsin(np.clip(norm / np.sqrt(8.0), 0.0, 1.0))))


def nearest_rotation(matrix: ArrayLike) -> NDArray[np.float64]:
    """Rotations closest to arbitrary matrices `(..., 3, 3)` in the Frobenius norm, determinant +1.

    Of a weighted sum of rotation matrices this is their mean rotation.
    """
    u, _, vt = np.linalg.svd(_as_matrices(matrix))
    u[..., :, 2] *= np.linalg.det(u @ vt)[..., None]
    return np.asarray(u @ vt)


def _as_matrices(matrix: ArrayLike) -> NDArray[np.float64]:
    matrices = np.asarray(matrix, dtype=np.float64)
    if matrices.shape[-2:] != (3, 3):
        raise ShapeError("not rotation matrices", expected="(..., 3, 3)", found=str(matrices.shape))
    return matrices
