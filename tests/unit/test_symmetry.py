"""Point groups: axioms, and the axes of RELION's settings as its programs print them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.errors import ConfigError
from tiltwise.geometry.symmetry import canonical_direction, distance_to_mates_deg, symmetry_matrices

ORDERS = {"C1": 1, "C6": 6, "c11": 11, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24}
ORDERS |= dict.fromkeys(["I", "I1", "I2", "I3", "I4"], 60)

# Axes (fold, direction) that fix the setting of each group, from the matrices RELION prints (4 decimals).
AXES = {
    "C3": [(3, (0, 0, 1))],
    "D3": [(3, (0, 0, 1)), (2, (1, 0, 0)), (2, (0.5, 0.866, 0))],
    "T": [(3, (0, 0, 1)), (3, (0, -0.9428, 0.3333)), (2, (0, 0.8165, 0.5774))],
    "O": [(4, (1, 0, 0)), (4, (0, 0, 1)), (3, (0.5774, 0.5774, 0.5774))],
    "I": [(2, (0, 0, 1)), (5, (0.5257, 0, 0.8507)), (3, (0, 0.3568, 0.9342))],
    "I1": [(2, (0, 0, 1)), (5, (0, 0.5257, 0.8507)), (3, (0.3568, 0, 0.9342))],
    "I2": [(2, (0, 0, 1)), (5, (0.5257, 0, 0.8507)), (3, (0, 0.3568, 0.9342))],
    "I3": [(5, (0, 0, 1)), (5, (-0.8944, 0, 0.4472)), (2, (0, 1, 0)), (3, (0.6071, 0, 0.7947))],
    "I4": [(5, (0, 0, 1)), (5, (0.8944, 0, 0.4472)), (2, (0, 1, 0)), (3, (-0.6071, 0, 0.7947))],
}


def contains(group: NDArray[np.float64], matrix: NDArray[np.float64], tolerance: float) -> bool:
    return bool(np.abs(group - matrix).max(axis=(1, 2)).min() <= tolerance)


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_is_a_group_of_rotations(name: str) -> None:
    group = symmetry_matrices(name)
    assert len(group) == ORDERS[name]
    np.testing.assert_allclose(group[0], np.eye(3), rtol=0, atol=1e-14)
    np.testing.assert_allclose(group @ group.transpose(0, 2, 1), np.broadcast_to(np.eye(3), group.shape), atol=1e-13)
    np.testing.assert_allclose(np.linalg.det(group), 1.0, atol=1e-13)
    for element in group:
        assert contains(group, element.T, 1e-12)
        for other in group:
            assert contains(group, element @ other, 1e-12)
    different = np.abs(group[:, None] - group[None]).max(axis=(2, 3)) + np.eye(len(group))
    assert different.min() > 1e-2, "no element twice"


@pytest.mark.parametrize("name", sorted(AXES))
def test_axes_lie_where_relion_has_them(name: str) -> None:
    group = symmetry_matrices(name)
    for fold, axis in AXES[name]:
        direction = np.array(axis, dtype=float)
        turn = Rotation.from_rotvec(360.0 / fold * direction / np.linalg.norm(direction), degrees=True).as_matrix()
        # axes have 4 decimals; other settings are off by 0.3
        assert contains(group, turn, 5e-4), f"{fold}-fold along {axis}"


@pytest.mark.parametrize("name", ["", "C0", "X3", "I5", "D", "C-2", "TO", "C2.5"])
def test_unknown_groups_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown point group"):
        symmetry_matrices(name)


@pytest.mark.parametrize("name", ["C6", "D3", "T", "O", "I2", "I3"])
def test_all_mates_have_one_canonical_direction(name: str) -> None:
    group = symmetry_matrices(name)
    rng = np.random.default_rng(6)
    directions = rng.normal(size=(30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    canonical = canonical_direction(group, directions)
    for element in group:
        np.testing.assert_allclose(canonical_direction(group, directions @ element.T), canonical, rtol=0, atol=1e-12)
    mates = np.einsum("gij,pj->pgi", group, directions)
    assert np.linalg.norm(mates - canonical[:, None], axis=2).min(axis=1).max() <= 1e-12


def test_mates_are_no_distance_apart() -> None:
    group = symmetry_matrices("D7")
    rotations = Rotation.random(14, rng=np.random.default_rng(1)).as_matrix()
    turned = Rotation.from_rotvec([0.0, np.radians(2.0), 0.0]).as_matrix() @ rotations
    mates = np.einsum("pij,pjk->pik", turned, group)
    np.testing.assert_allclose(distance_to_mates_deg(rotations, mates, group), 2.0, atol=1e-6)
