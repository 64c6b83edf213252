"""Point groups in the axis settings of RELION.

A map with the symmetry of a group obeys `V(g x) = V(x)` for every matrix g; poses A and A @ g are
equivalent.  All axes pass through the origin of the map, voxel N // 2.

=====  =====  ==========================================================================================
group  order  where the axes lie
=====  =====  ==========================================================================================
Cn     n      n-fold on z
Dn     2n     n-fold on z, 2-fold on x
T      12     3-fold on z, another 3-fold in the yz plane at y < 0, z > 0; the 2-fold there has y > 0
O      24     4-folds on x, y, z
I, I2  60     2-folds on x, y, z; the 5-folds next to z in the xz plane (I means I2)
I1     60     2-folds on x, y, z; the 5-folds next to z in the yz plane (I2 turned by 90 degrees about z)
I3     60     5-fold on z, 2-fold on y; the next 5-fold in the xz plane at x < 0, z > 0
I4     60     as I3, at x > 0
=====  =====  ==========================================================================================

The settings were read off the matrices that RELION prints for each name.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import angular_distance_deg, rotation_y, rotation_z

_GOLDEN = (1.0 + np.sqrt(5.0)) / 2.0


def symmetry_matrices(name: str) -> NDArray[np.float64]:
    """All rotations of a point group, `(G, 3, 3)`, the identity first.

    `name` is Cn, Dn, T, O, I, I1, I2, I3 or I4, in either case.

    Raises
    ------
    ConfigError
        if there is no such group.
    """
    text = name.strip().upper()
    cyclic = re.fullmatch(r"([CD])([1-9]\d{0,2})", text)
    if cyclic is not None:
        return _cyclic(int(cyclic[2]), dihedral=cyclic[1] == "D")
    settings = _settings()
    if text not in settings:
        raise ConfigError(
            "unknown point group",
            where="--sym",
            expected="C1, C2, ..., D1, D2, ..., T, O, I, I1, I2, I3 or I4",
            found=name,
            fix="write it as RELION does: C1, C6, D2, T, O, I2",
        )
    from scipy.spatial.transform import Rotation

    turn = settings[text]
    group = turn @ Rotation.create_group(text[0]).as_matrix() @ turn.T
    return np.asarray(group[np.argsort(-np.trace(group, axis1=1, axis2=2), kind="stable")])


def canonical_direction(symmetry: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetry mates of unit vectors `(P, 3)` that lie in one asymmetric unit, `(P, 3)`.

    The unit is the set of directions closer to a fixed general direction than all their mates are.
    """
    mates = np.einsum("gij,pj->pgi", symmetry, directions)
    best = np.argmax(np.round(mates @ _general_direction(), 12), axis=1)
    return np.asarray(mates[np.arange(len(directions)), best])


def _general_direction() -> NDArray[np.float64]:
    """Near z, but on no axis or mirror plane of any group above, so that no mates tie."""
    vector = np.array([0.0612, 0.0271, 1.0])
    return np.asarray(vector / np.linalg.norm(vector))


def _cyclic(n: int, *, dihedral: bool) -> NDArray[np.float64]:
    about_z = rotation_z(np.arange(n) * (360.0 / n))
    if not dihedral:
        return about_z
    return np.concatenate([about_z, about_z @ np.diag([1.0, -1.0, -1.0])])


def _settings() -> dict[str, NDArray[np.float64]]:
    """Rotation from SciPy's setting (that of I1; 2-folds of T on the axes) to RELION's, by name."""
    three_fold = np.array([1.0, 1.0, 1.0]) / np.sqrt(3.0)
    in_plane = np.array([-1.0, -1.0, 2.0]) / np.sqrt(6.0)
    tetrahedral = np.stack([np.cross(in_plane, three_fold), in_plane, three_fold])
    # Angle between z and the next 5-fold in the settings with 2-folds on the axes.
    five_fold = float(np.degrees(np.arctan(1.0 / _GOLDEN)))
    i2 = rotation_z(90.0)
    return {
        "T": tetrahedral,
        "O": np.eye(3),
        "I": i2,
        "I1": np.eye(3),
        "I2": i2,
        "I3": rotation_y(-five_fold) @ i2,
        "I4": rotation_y(five_fold) @ i2,
    }


def distance_to_mates_deg(
    rotations: NDArray[np.float64], others: NDArray[np.float64], symmetry: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(P,) angles in degrees between rotations (P, 3, 3) and the nearest of their mates `other @ g`."""
    nearest = np.full(len(rotations), np.inf)
    for operator in symmetry:
        np.minimum(nearest, angular_distance_deg(rotations, others @ operator), out=nearest)
    return nearest
