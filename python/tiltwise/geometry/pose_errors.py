"""How far poses are from other poses of the same particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.rotations import angular_distance_deg, nearest_rotation

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PoseErrors:
    """Differences of P poses, and the motion of the reference that was removed from them."""

    angle_deg: F64
    """(P,)"""
    distance: F64
    """(P,) in the unit of the positions"""
    common_rotation: F64
    """(3, 3) R with `rotations @ R` near `true_rotations`; the identity if nothing was removed"""
    common_shift: F64
    """(3,) o in the true frame of the reference, with `positions` near `true_positions + true_rotations @ o`"""


def pose_errors(
    rotations: F64,
    positions: F64,
    true_rotations: F64,
    true_positions: F64,
    *,
    symmetry: F64 | None = None,
    remove_common: bool = False,
) -> PoseErrors:
    """Differences between two sets of poses of the same P particles.

    Parameters
    ----------
    rotations, true_rotations
        `(P, 3, 3)`, reference to tomogram.
    positions, true_positions
        `(P, 3)`, any unit.
    symmetry
        `(G, 3, 3)`: the equivalent pose nearest to the true one counts.
    remove_common
        first remove the one rotation and shift of the reference that all particles share: a map may turn
        during refinement, and its particles with it, without being wrong.
    """
    if symmetry is not None:
        mates = np.einsum("pij,gjk->pgik", rotations, symmetry)
        best = angular_distance_deg(mates, true_rotations[:, None]).argmin(axis=1)
        rotations = mates[np.arange(len(mates)), best]
    common_rotation, common_shift = np.eye(3), np.zeros(3)
    difference = positions - true_positions
    if remove_common:
        angle = angular_distance_deg(rotations, true_rotations)
        good = angle <= 2.0 * np.median(angle)  # lost particles have no say
        common_rotation = nearest_rotation(np.einsum("pji,pjk->ik", rotations[good], true_rotations[good]))
        rotations = rotations @ common_rotation
        common_shift = np.median(np.einsum("pji,pj->pi", true_rotations[good], difference[good]), axis=0)
        difference = difference - true_rotations @ common_shift
    return PoseErrors(
        angular_distance_deg(rotations, true_rotations),
        np.asarray(np.linalg.norm(difference, axis=-1)),
        common_rotation,
        common_shift,
    )
