"""Classes that differ as the particle does when it is turned and shifted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.classes.moved import moved_shares
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.spectral.masks import soft_sphere

SIZE, SHELL = 32, 10
EQUAL = np.array([0.5, 0.5])


def blobs(rotation: NDArray[np.float64], shift: NDArray[np.float64], lacking: int = 0) -> NDArray[np.float64]:
    """A map (N, N, N) of forty Gaussians of 1.5 voxels."""
    points = np.random.default_rng(4).normal(size=(40, 3)) * 4.0
    axis = np.arange(SIZE) - SIZE // 2
    density = np.zeros((SIZE,) * 3)
    for x, y, z in (points[np.argsort(points[:, 0])] @ rotation.T + shift)[lacking:]:
        square = (axis[:, None, None] - z) ** 2 + (axis[:, None] - y) ** 2 + (axis - x) ** 2
        density += np.exp(-square / (2.0 * 1.5**2))
    return density


STILL = blobs(np.eye(3), np.zeros(3))


def halves(*maps: NDArray[np.float64], noise: float = 0.05) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    rng = np.random.default_rng(5)
    noisy = [[np.asarray(one + noise * rng.normal(size=one.shape), np.float32) for _ in range(2)] for one in maps]
    return [(first, second) for first, second in noisy]


SPHERE = np.asarray(soft_sphere(SIZE, 14.0, 3.0), np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turned", [True, False])
def test_moves_are_found(axis: int, turned: bool) -> None:
    """Turns of 6° about an axis of zyz angles, and shifts by 0.6 voxels."""
    angles, shift = np.zeros(3), np.zeros(3)
    if turned:
        angles[axis] = 6.0
    else:
        shift[axis] = 0.6
    moved = blobs(euler_to_matrix(angles), shift)
    assert (moved_shares(halves(STILL, moved), EQUAL, SPHERE, SHELL) >= 0.9).all()


def test_a_turn_about_x_is_found() -> None:
    rotation = euler_to_matrix(np.array([-90.0, 6.0, 90.0]))
    assert (moved_shares(halves(STILL, blobs(rotation, np.zeros(3))), EQUAL, SPHERE, SHELL) >= 0.9).all()


def test_a_domain_that_is_missing_is_no_move() -> None:
    lacking = blobs(np.eye(3), np.zeros(3), 6)
    assert (np.abs(moved_shares(halves(STILL, lacking), EQUAL, SPHERE, SHELL)) < 0.15).all()


def test_only_the_class_that_moves_is_told() -> None:
    lacking, moved = blobs(np.eye(3), np.zeros(3), 6), blobs(np.eye(3), np.full(3, 0.8))
    shares = moved_shares(halves(STILL, lacking, moved), np.array([0.45, 0.45, 0.1]), SPHERE, SHELL)
    # its difference from the average has some of what the others lack
    assert shares[2] > 0.6 > 0.3 > shares[1]


def test_nothing_is_said_of_noise_or_of_nothing() -> None:
    np.testing.assert_array_equal(moved_shares(halves(STILL, STILL), EQUAL, SPHERE, SHELL), 0.0)
    empty = np.zeros_like(STILL)
    np.testing.assert_array_equal(moved_shares(halves(empty, empty, noise=0.0), EQUAL, SPHERE, SHELL), 0.0)
    np.testing.assert_array_equal(moved_shares(halves(STILL, empty), np.zeros(2), SPHERE, SHELL), 0.0)
    np.testing.assert_array_equal(moved_shares(halves(STILL, STILL), EQUAL, np.zeros_like(SPHERE), SHELL), 0.0)
