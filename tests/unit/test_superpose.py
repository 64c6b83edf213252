"""Maps turned, laid on each other, and their point groups."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.geometry.symmetry import distance_to_mates_deg, symmetry_matrices
from tiltwise.initial.results import suggested
from tiltwise.kernels.select import load_backend
from tiltwise.maps.point_groups import find_axes, rank_groups
from tiltwise.maps.superpose import superpose
from tiltwise.maps.turning import mirrored, turned
from tiltwise.sim.density import sample_map
from tiltwise.sim.phantom import build_phantom
from tiltwise.spectral.fsc import fsc

BOX, PIXEL, RADIUS = 24, 10.0, 8.0
BACKEND = load_backend("auto")
TURN = Rotation.from_euler("zyx", [30.0, 50.0, -70.0], degrees=True).as_matrix()
MOVE = np.array([1.3, -0.8, 0.6])


def phantom(symmetry: str = "C1") -> NDArray[np.float32]:
    return np.asarray(sample_map(build_phantom(150.0, 900, symmetry, 2), BOX, PIXEL), np.float32)


def test_turned_by_a_quarter_is_a_permutation_of_voxels() -> None:
    density = phantom()
    quarter = Rotation.from_euler("z", 90.0, degrees=True).as_matrix()  # x -> y
    found = turned(density, quarter, np.array([0.0, 0.0, 2.0]), BACKEND)
    inner = slice(4, -4)
    # y' = x, x' = -y about voxel N // 2; then up by 2
    expected = np.roll(np.roll(density.transpose(0, 2, 1)[:, :, ::-1], 1, axis=2), 2, axis=0)
    assert fsc(found, expected)[1:9] == pytest.approx(1.0, abs=1e-3)
    difference = np.abs(found - expected)[inner, inner, inner]
    assert difference.max() <= 0.1 * density.max()  # corners of the transform are lost


@pytest.mark.parametrize("hand", [False, True])
def test_superposition_finds_turn_shift_and_hand(hand: bool) -> None:
    density = phantom()
    moved = turned(mirrored(density) if hand else density, TURN, MOVE, BACKEND)
    found = superpose(density, moved, RADIUS, BACKEND, hands=True)
    assert found.mirrored == hand
    assert found.score >= 0.99
    assert angular_distance_deg(found.rotation, TURN) <= 0.5
    assert found.shift_px == pytest.approx(MOVE, abs=0.05)
    laid = turned(mirrored(density) if found.mirrored else density, found.rotation, found.shift_px, BACKEND)
    assert fsc(laid, moved)[1:9].min() >= 0.99


def test_axes_are_found_and_applied() -> None:
    group = symmetry_matrices("D3")
    moved = turned(phantom("D3"), TURN, MOVE, BACKEND)
    axes = find_axes(moved, "D3", RADIUS, BACKEND)
    assert axes.score >= 0.85
    assert axes.centre_px == pytest.approx(MOVE, abs=0.2)
    # the normaliser of D3 also holds a half turn about z
    normaliser = np.concatenate([group, group @ Rotation.from_euler("z", 180.0, degrees=True).as_matrix()])
    assert distance_to_mates_deg(axes.rotation[None], TURN[None], normaliser)[0] <= 1.5
    straight = axes.applied(moved, BACKEND)
    for operator in group[1:]:
        assert fsc(turned(straight, operator, np.zeros(3), BACKEND), straight)[1:8].min() >= 0.99


def test_groups_are_told_apart() -> None:
    names = ("C3", "D3", "C4")
    moved = turned(phantom("D3"), TURN, MOVE, BACKEND)
    assert suggested(rank_groups(moved, RADIUS, BACKEND, names)) == "D3"
    assert suggested(rank_groups(phantom(), RADIUS, BACKEND, names)) is None
