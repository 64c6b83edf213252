"""Euler angles and rotation matrices against worked numbers, SciPy and their own inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tiltwise.errors import ShapeError
from tiltwise.geometry.rotations import (
    angular_distance_deg,
    euler_to_matrix,
    matrix_to_euler,
    nearest_rotation,
    rotation_x,
    rotation_y,
    rotation_z,
)

# Products of a handful of sines and cosines: a few units of the last place of float64.
EXACT = 1e-14

angles = st.tuples(st.floats(-180, 180), st.floats(0, 180), st.floats(-180, 180))


def test_subtomogram_matrix_has_the_worked_numbers() -> None:
    expected = [
        [-0.126826484, 0.926776695, -0.353553391],
        [-0.780330086, 0.126826484, 0.612372436],
        [0.612372436, 0.353553391, 0.707106781],
    ]
    # printed with 9 decimals
    np.testing.assert_allclose(euler_to_matrix([30, 45, 60]), expected, rtol=0, atol=6e-10)


def test_product_of_subtomogram_and_particle_has_the_worked_numbers() -> None:
    expected = [
        [-0.727324973, -0.199420974, 0.656680789],
        [0.322582636, -0.943901628, 0.070641057],
        [0.605754758, 0.263212824, 0.750852970],
    ]
    product = euler_to_matrix([30, 45, 60]) @ euler_to_matrix([-20, 70, 110])
    np.testing.assert_allclose(product, expected, rtol=0, atol=6e-10)


def test_composed_orientation_has_the_angles_relion_writes() -> None:
    composed = matrix_to_euler(euler_to_matrix([25, 60, -35]) @ euler_to_matrix([10, 40, 70]))
    # printed with 6 decimals
    np.testing.assert_allclose(composed, [83.011512, 64.434716, 10.221816], rtol=0, atol=6e-7)


def test_definition_and_scipy_agree() -> None:
    rng = np.random.default_rng(1)
    triplets = rng.uniform(-180, 180, (50, 3))
    rot, tilt, psi = triplets.T
    product = rotation_z(-psi) @ rotation_y(-tilt) @ rotation_z(-rot)
    np.testing.assert_allclose(euler_to_matrix(triplets), product, rtol=0, atol=EXACT)
    scipy = Rotation.from_euler("ZYZ", triplets, degrees=True).inv().as_matrix()
    np.testing.assert_allclose(euler_to_matrix(triplets), scipy, rtol=0, atol=EXACT)


@pytest.mark.parametrize(("rotation", "axis"), [(rotation_x, 0), (rotation_y, 1), (rotation_z, 2)])
def test_axis_rotations_are_active_and_right_handed(rotation, axis: int) -> None:  # type: ignore[no-untyped-def]
    first, second = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
    np.testing.assert_allclose(rotation(90.0) @ first, second, rtol=0, atol=EXACT)
    vector = np.zeros(3)
    vector[axis] = 1.0
    assert rotation([10.0, 20.0]).shape == (2, 3, 3)
    np.testing.assert_allclose(
        rotation(33.0), Rotation.from_rotvec(33.0 * vector, degrees=True).as_matrix(), rtol=0, atol=EXACT
    )


def test_third_row_is_the_viewing_direction() -> None:
    rot, tilt = np.radians(40.0), np.radians(70.0)
    direction = [np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)]
    np.testing.assert_allclose(euler_to_matrix([40.0, 70.0, -15.0])[2], direction, rtol=0, atol=EXACT)


@settings(deadline=None)
@given(angles)
@example((30.0, 0.0, 40.0))
@example((30.0, 180.0, 40.0))
@example((-170.0, 1e-9, 12.0))
@example((12.0, 179.9999999, -77.0))
def test_angles_of_a_matrix_give_it_back(triplet: tuple[float, float, float]) -> None:
    matrix = euler_to_matrix(triplet)
    again = matrix_to_euler(matrix)
    assert 0 <= again[1] <= 180
    # Below the pole threshold of 1e-7 rad tilt is kept while rot and psi merge: up to 1e-7 is lost.
    np.testing.assert_allclose(euler_to_matrix(again), matrix, rtol=0, atol=3e-7)


def test_inverse_is_exact_away_from_the_poles() -> None:
    rng = np.random.default_rng(2)
    triplets = np.column_stack([rng.uniform(-179, 179, 200), rng.uniform(1, 179, 200), rng.uniform(-179, 179, 200)])
    # Rounding of the matrix (1e-16) over sin(1 degree), in degrees.
    np.testing.assert_allclose(matrix_to_euler(euler_to_matrix(triplets)), triplets, rtol=0, atol=1e-11)


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 1.0, 90.0, 179.0, 180.0])
def test_distance_is_the_angle_of_the_relative_rotation(angle: float) -> None:
    rng = np.random.default_rng(3)
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis), degrees=True).as_matrix()
    base = euler_to_matrix([11, 22, 33])
    # The arcsine near 180 degrees magnifies the rounding of its argument: root of 1e-16 in radians.
    tolerance = 2e-6 if angle > 170 else 1e-6 * angle + 1e-13
    assert abs(float(angular_distance_deg(turn @ base, base)) - angle) <= tolerance


def test_nearest_rotation_is_the_mean_of_rotations_about_one_axis() -> None:
    base = euler_to_matrix([11, 22, 33])
    weights = np.array([0.5, 0.25, 0.25])
    # angles 0, 10, 30 with these weights: the mean direction of (cos, sin)
    angles = np.radians([0.0, 10.0, 30.0])
    mean = np.degrees(np.arctan2(weights @ np.sin(angles), weights @ np.cos(angles)))
    total = np.einsum("r,rij->ij", weights, rotation_y(np.degrees(angles)) @ base)
    np.testing.assert_allclose(nearest_rotation(total), rotation_y(mean) @ base, rtol=0, atol=EXACT)


def test_nearest_rotation_keeps_rotations_and_never_mirrors() -> None:
    rng = np.random.default_rng(9)
    rotations = euler_to_matrix(rng.uniform(-180, 180, (20, 3)))
    np.testing.assert_allclose(nearest_rotation(3.0 * rotations), rotations, rtol=0, atol=EXACT)
    anything = nearest_rotation(rng.normal(size=(50, 3, 3)))
    np.testing.assert_allclose(np.linalg.det(anything), 1.0, rtol=EXACT)
    np.testing.assert_allclose(
        anything @ anything.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=EXACT
    )


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="threes"):
        euler_to_matrix([1.0, 2.0])
    with pytest.raises(ShapeError, match="rotation matrices"):
        matrix_to_euler(np.eye(4))
