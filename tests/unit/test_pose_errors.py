from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.pose_errors import pose_errors
from tiltwise.geometry.rotations import euler_to_matrix, rotation_z
from tiltwise.geometry.symmetry import symmetry_matrices

RNG = np.random.default_rng(5)


def random_rotations(n: int) -> NDArray[np.float64]:
    angles = np.stack(
        [RNG.uniform(-180, 180, n), np.degrees(np.arccos(RNG.uniform(-1, 1, n))), RNG.uniform(-180, 180, n)], axis=1
    )
    return euler_to_matrix(angles)


def test_plain_differences() -> None:
    true = random_rotations(20)
    errors = pose_errors(true @ rotation_z(3.0), np.ones((20, 3)), true, np.zeros((20, 3)))
    np.testing.assert_allclose(errors.angle_deg, 3.0, rtol=1e-9)
    np.testing.assert_allclose(errors.distance, np.sqrt(3.0), rtol=1e-12)


def test_common_motion_of_the_reference_is_removed_and_reported() -> None:
    true, where = random_rotations(50), RNG.normal(size=(50, 3))
    turn, shift = euler_to_matrix(np.array([10.0, 7.0, -4.0])), np.array([1.0, -2.0, 0.5])
    found = true @ turn.T
    errors = pose_errors(found, where + true @ shift, true, where, remove_common=True)
    # Rounding of matrix products only; angles near 0 are exact to the square root of nothing worse.
    assert errors.angle_deg.max() < 1e-6
    assert errors.distance.max() < 1e-9
    np.testing.assert_allclose(errors.common_rotation, turn, atol=1e-9)
    np.testing.assert_allclose(errors.common_shift, shift, atol=1e-9)


def test_lost_particles_do_not_disturb_the_common_motion() -> None:
    true = random_rotations(60)
    turn = rotation_z(5.0)
    found = true @ turn.T
    found[:10] = random_rotations(10)
    errors = pose_errors(found, np.zeros((60, 3)), true, np.zeros((60, 3)), remove_common=True)
    assert errors.angle_deg[10:].max() < 1e-6


def test_equivalent_poses_are_equal() -> None:
    group = symmetry_matrices("C6")
    true = random_rotations(30)
    found = true @ group[RNG.integers(0, 6, 30)]
    position = np.zeros((30, 3))
    assert pose_errors(found, position, true, position, symmetry=group).angle_deg.max() < 1e-6
    assert pose_errors(found, position, true, position).angle_deg.max() > 30
