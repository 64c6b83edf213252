"""Local searches about all symmetry mates of a pose: cells, priors, and what is at which mate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.em.grid import PoseGrid
from tiltwise.em.options import RefineOptions
from tiltwise.em.priors import PosePrior
from tiltwise.em.relaxed import share_at_other_mates
from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.geometry.symmetry import symmetry_matrices

C6 = symmetry_matrices("C6")
CENTRE = Rotation.from_euler("ZYZ", [20.0, 50.0, 70.0], degrees=True).as_matrix()


def grid(mates: np.ndarray, sigma: float = 5.0) -> PoseGrid:
    turn = Rotation.from_rotvec([0.02, 0.03, -0.01]).as_matrix()
    return PoseGrid(3, 1, turn, sigma, 8.0, 4.0, np.zeros(3), mates)


@pytest.mark.parametrize("group", ["C6", "D3", "T", "O", "I1"])
def test_cells_lie_about_every_mate(group: str) -> None:
    mates = symmetry_matrices(group)
    found = grid(mates).near(CENTRE)[1]
    parts = [grid(mates[:1]).near(CENTRE @ g)[1] for g in mates]
    assert len(found) == sum(len(part) for part in parts)
    for part in parts:
        assert all(angular_distance_deg(found, one).min() < 1e-5 for one in part)


def test_cells_of_several_mates_count_once() -> None:
    """Searches of 30 degrees and more about mates that are 60 apart overlap."""
    found = grid(C6, 15.0).near(CENTRE)[1]
    apart = np.einsum("nij,mij->nm", found, found)
    np.fill_diagonal(apart, 0.0)
    assert apart.max() < 3.0 - 1e-4
    assert len(found) < sum(len(grid(C6[:1], 15.0).near(CENTRE @ g)[1]) for g in C6)


@pytest.mark.parametrize("group", ["C6", "D3", "T", "O", "I1"])
def test_the_prior_is_about_the_nearest_mate(group: str) -> None:
    rng, mates = np.random.default_rng(1), symmetry_matrices(group)
    near = Rotation.from_rotvec(0.1 * rng.normal(size=(20, 3))).as_matrix()
    rotation = CENTRE @ mates[rng.integers(len(mates), size=20)] @ near
    distance = np.min([angular_distance_deg(rotation, CENTRE @ g) for g in mates], axis=0)
    np.testing.assert_allclose(grid(mates).log_prior(rotation, CENTRE), -0.5 * (distance / 5.0) ** 2, rtol=1e-5)
    centre = np.broadcast_to(CENTRE, (20, 3, 3))
    prior = PosePrior(centre, np.zeros((20, 3)), np.radians(5.0), 10.0, mates=mates)
    np.testing.assert_allclose(prior.of_rotations(rotation), -0.5 * (distance / 5.0) ** 2, rtol=1e-8)
    # its gradient, and that of some of the particles
    shift, small = np.zeros((20, 3)), 1e-5
    slope, information = prior.derivatives(rotation, shift)
    for axis in range(3):
        turn = Rotation.from_rotvec(small * np.eye(3)[axis]).as_matrix()
        up, down = (prior.of_rotations(one @ rotation) for one in (turn, turn.T))
        # to first order in the distance from the centre
        np.testing.assert_allclose(slope[:, axis], (up - down) / (2 * small), atol=0.03 * np.abs(slope).max())
    assert (np.linalg.eigvalsh(information) > 0).all()
    rows = np.array([3, 11])
    np.testing.assert_array_equal(prior.take(rows).derivatives(rotation[rows], shift[rows])[0], slope[rows])


def test_particles_that_change_mates_are_counted() -> None:
    rng, group = np.random.default_rng(4), symmetry_matrices("D3")
    before = Rotation.random(10, rng=rng).as_matrix()
    turned = Rotation.from_rotvec(0.1 * rng.normal(size=(10, 3))).as_matrix() @ before
    assert share_at_other_mates(turned, before, group) == 0.0
    turned[:4] = turned[:4] @ group[rng.integers(1, 6, size=4)]
    assert share_at_other_mates(turned, before, group) == 0.4
    assert share_at_other_mates(turned, before, group[:1]) == 0.0


def test_a_symmetry_is_applied_or_relaxed(tmp_path: Path) -> None:
    values = {"input": tmp_path, "output": tmp_path, "reference": tmp_path, "box": 32, "relax_symmetry": "c6"}
    assert RefineOptions(**values).relax_symmetry == "C6"
    with pytest.raises(ConfigError, match="a symmetry that is relaxed cannot be applied"):
        RefineOptions(**values, symmetry="C2")
    with pytest.raises(ConfigError, match=r"--relax-sym[\s\S]*--skip-align keeps all poses"):
        RefineOptions(**values, skip_align=True)
