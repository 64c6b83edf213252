"""Orientation and shift grids: counts, spacing, children, local selection, symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.errors import ConfigError
from tiltwise.geometry.grids import (
    angular_step_deg,
    direction_angles,
    local_orientations,
    orientation_angles,
    orientation_children,
    shift_children,
    translation_ball,
)
from tiltwise.geometry.rotations import angular_distance_deg, euler_to_matrix, matrix_to_euler
from tiltwise.geometry.symmetry import symmetry_matrices


def random_rotations(n: int, seed: int = 7) -> NDArray[np.float64]:
    quaternions = np.random.default_rng(seed).normal(size=(n, 4))
    return np.asarray(Rotation.from_quat(quaternions).as_matrix())


@pytest.mark.parametrize(("order", "count", "step"), [(0, 72, 60), (1, 576, 30), (2, 4608, 15), (3, 36864, 7.5)])
def test_counts_and_steps(order: int, count: int, step: float) -> None:
    matrices, found = euler_to_matrix(orientation_angles(order)), angular_step_deg(order)
    assert matrices.shape == (count, 3, 3)
    assert found == angular_step_deg(order) == step
    angles = orientation_angles(order)
    assert len(np.unique(angles.round(9), axis=0)) == count
    assert np.diff(angles[:6, 2]).tolist() == [step] * 5, "psi runs fastest"


@pytest.mark.parametrize("order", [-1, 9])
def test_orders_beyond_the_table_are_refused(order: int) -> None:
    with pytest.raises(ConfigError, match="orientation grid"):
        orientation_angles(order)


@pytest.mark.parametrize("order", [1, 2])
def test_every_rotation_has_a_neighbour_within_about_the_step(order: int) -> None:
    grid, step = euler_to_matrix(orientation_angles(order)), angular_step_deg(order)
    nearest = np.array([angular_distance_deg(grid, r).min() for r in random_rotations(300)])
    # A cube of side `step` has corners at 0.87 steps and a mean distance of 0.48; HEALPix pixels are slightly larger
    # than psi steps, (4 pi / 12)^(1/2) = 58.6 degrees against 60, and not square.
    assert nearest.max() <= 1.0 * step
    assert 0.40 * step <= nearest.mean() <= 0.55 * step


def test_directions_cover_the_sphere_evenly() -> None:
    rot, tilt = np.radians(direction_angles(3)).T
    vectors = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)])
    np.testing.assert_allclose(vectors.mean(axis=1), 0.0, atol=1e-12)
    # equal areas: the second moments are 1/3, up to the area of a pixel
    np.testing.assert_allclose(vectors @ vectors.T / vectors.shape[1], np.eye(3) / 3, atol=1e-3)


@pytest.mark.parametrize("oversampling", [1, 2])
def test_children_surround_their_parent(oversampling: int) -> None:
    order = 2
    parents = orientation_angles(order)[::37]
    children = orientation_children(order, parents, oversampling)
    assert children.shape == (len(parents), 8**oversampling, 3)
    matrices, centres = euler_to_matrix(children), euler_to_matrix(parents)[:, None]
    # Swing to a pixel inside that of the parent, and a twist of less than half a step, also at the poles.
    swing = np.degrees(np.arccos(np.clip((matrices[..., 2, :] * centres[..., 2, :]).sum(axis=-1), -1, 1)))
    assert 0 < swing.min() <= swing.max() <= 62.0 / 4
    step = angular_step_deg(order)
    half = np.radians(swing / 2), np.radians(0.5 * step * (1 - 0.5**oversampling) / 2)
    limit = 2 * np.degrees(np.arccos(np.cos(half[0]) * np.cos(half[1])))
    distance = angular_distance_deg(matrices, centres)
    assert (distance - limit).max() <= 1e-6
    # every child direction has its psi in steps of the finer grid
    psi = np.sort(children.reshape(len(parents), 4**oversampling, 2**oversampling, 3)[..., 2], axis=-1)
    np.testing.assert_allclose(np.diff(psi, axis=-1), step / 2**oversampling)


def test_children_cover_the_group_as_finely_as_the_finer_grid() -> None:
    children = euler_to_matrix(orientation_children(1, orientation_angles(1), 1).reshape(-1, 3))
    nearest = np.array([angular_distance_deg(children, r).min() for r in random_rotations(200)])
    assert nearest.max() <= 1.0 * angular_step_deg(2)
    assert 0.40 * angular_step_deg(2) <= nearest.mean() <= 0.55 * angular_step_deg(2)


def test_children_of_all_cells_are_all_finer_directions() -> None:
    children = orientation_children(1, orientation_angles(1), 1)[..., :2].reshape(-1, 2)
    assert len(np.unique(children.round(9), axis=0)) == 12 * 4**2


def brute_force_count(order: int, centre: NDArray[np.float64], radius: float) -> int:
    return int((angular_distance_deg(euler_to_matrix(orientation_angles(order)), centre) <= radius).sum())


POLES = [[0.0, 0.0, 0.0], [10.0, 1e-4, 30.0], [10.0, 180.0, 30.0], [10.0, 179.9, -70.0], [200.0, 0.3, 100.0]]


@pytest.mark.parametrize("radius", [12.0, 40.0, 110.0])
@pytest.mark.parametrize("order", [2, 3])
def test_local_selection_holds_all_within_the_radius_and_little_more(order: int, radius: float) -> None:
    for centre in [*random_rotations(5), *euler_to_matrix(POLES)]:
        angles = local_orientations(order, centre, radius)
        assert len(np.unique(angles.round(6), axis=0)) == len(angles)
        distance = angular_distance_deg(euler_to_matrix(angles), centre)
        assert int((distance <= radius).sum()) == brute_force_count(order, centre, radius)
        # swing and twist of the radius each: cos(angle / 2) = cos(radius / 2)^2
        limit = 2 * np.degrees(np.arccos(np.cos(np.radians(radius / 2)) ** 2))
        assert distance.max() <= limit + 1e-6


def test_local_selection_returns_points_of_the_grid() -> None:
    grid = {tuple(row) for row in orientation_angles(2).round(9)}
    found = local_orientations(2, random_rotations(1)[0], 50.0).round(9)
    assert {tuple(row) for row in found} <= grid


def test_local_selection_selects_as_many_at_the_poles_as_elsewhere() -> None:
    counts = [len(local_orientations(4, c, 11.25)) for c in [*random_rotations(20), *euler_to_matrix(POLES)]]
    # 29.5 directions and 6 or 7 psi on average: 177; lattices of so few directions differ by a fifth
    assert 130 <= min(counts) <= max(counts) <= 230


def test_full_radius_selects_the_whole_grid() -> None:
    angles = local_orientations(1, random_rotations(1)[0], 180.0)
    assert sorted(map(tuple, angles.round(9))) == sorted(map(tuple, orientation_angles(1).round(9)))


def test_tiny_radius_selects_the_neighbourhood_of_the_centre() -> None:
    for centre in [*random_rotations(20), *euler_to_matrix(POLES)]:
        angles = local_orientations(3, centre, 0.1)
        assert len(angles) == 1
        # half a psi step, and the radius of a pixel of order 3
        limit = np.hypot(angular_step_deg(3) / 2, 62.0 / 8)
        assert angular_distance_deg(euler_to_matrix(angles), centre).max() <= limit


def test_descent_loses_no_pixel() -> None:
    """A coarse pixel that is pruned too early would lose the descendants at its corners."""
    rot, tilt = np.radians(direction_angles(4)).T
    vectors = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=1)
    for centre in random_rotations(500):
        found = local_orientations(4, centre, 4.0)
        expected = np.degrees(np.arccos(np.clip(vectors @ centre[2], -1, 1))) <= 4.0
        assert len(np.unique(found[:, :2].round(9), axis=0)) == expected.sum()


def test_fine_orders_are_not_searched_by_brute_force() -> None:
    centre = random_rotations(1)[0]
    angles = local_orientations(8, centre, 1.0)
    distance = angular_distance_deg(euler_to_matrix(angles), centre)
    # swing: 12 * 4^8 * (1 - cos 1 deg) / 2 = 60; twist: 2 / 0.234 = 8.5
    assert 380 <= len(angles) <= 640
    assert distance.max() <= 1.42


@pytest.mark.parametrize("name", ["C6", "D2", "T", "O", "I2", "I3"])
@pytest.mark.parametrize("order", [1, 2])
def test_asymmetric_unit_is_small_and_leaves_no_gap(name: str, order: int) -> None:
    group = symmetry_matrices(name)
    turn = euler_to_matrix([3.0, 2.0, 4.0])
    angles = orientation_angles(order, turn @ group @ turn.T)
    full = len(orientation_angles(order))
    # the unit plus a seam: its circumference in pixels is at most about 2.5 times the root of their number
    pixels = 12 * 4**order / len(group)
    assert full / len(group) * 0.9 <= len(angles) <= full / (12 * 4**order) * (pixels + 3.5 * np.sqrt(pixels) + 3)
    grid, step = euler_to_matrix(angles) @ turn, angular_step_deg(order)
    nearest = [
        min(float(angular_distance_deg(grid, rotation @ g).min()) for g in group) for rotation in random_rotations(25)
    ]
    assert max(nearest) <= 1.0 * step


@pytest.mark.parametrize(
    ("ratio", "count"), [(0.0, 1), (1.0, 7), (1.5, 19), (2, 33), (2.5, 81), (3, 123), (4, 257), (5, 515)]
)
@pytest.mark.parametrize("step", [1.0, 0.1, 2.7])
def test_shift_balls_have_relions_counts(ratio: float, count: int, step: float) -> None:
    shifts = translation_ball(ratio * step, step)
    assert shifts.shape == (count, 3)
    assert shifts[0].tolist() == [0, 0, 0]
    assert np.linalg.norm(shifts, axis=1).max() <= ratio * step * (1 + 1e-8)
    np.testing.assert_allclose(shifts / step, np.rint(shifts / step), atol=1e-9)
    np.testing.assert_allclose(shifts.sum(axis=0), 0.0, atol=1e-9)


@pytest.mark.parametrize(("search_range", "step"), [(3.0, 0.0), (3.0, -1.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_impossible_shift_grids_are_refused(search_range: float, step: float) -> None:
    with pytest.raises(ConfigError, match="grid of shifts"):
        translation_ball(search_range, step)


@pytest.mark.parametrize("oversampling", [0, 1, 2])
def test_shift_children_fill_their_cell(oversampling: int) -> None:
    children = shift_children(2.0, oversampling)
    assert children.shape == (8**oversampling, 3)
    np.testing.assert_allclose(children.mean(axis=0), 0.0, atol=1e-12)
    assert np.abs(children).max() <= 1.0 - 1.0 / 2**oversampling + 1e-12
    if oversampling:
        np.testing.assert_allclose(np.diff(np.unique(children[:, 0])), 2.0 / 2**oversampling)


def test_angles_returned_are_those_of_the_matrices() -> None:
    angles = local_orientations(3, random_rotations(1)[0], 20.0)
    again = matrix_to_euler(euler_to_matrix(angles))
    np.testing.assert_allclose(np.mod(again - angles + 180, 360) - 180, 0.0, atol=1e-9)
