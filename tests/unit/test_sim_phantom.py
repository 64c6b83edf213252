"""The phantom: size, chirality, lack of symmetry, symmetry on request."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import rotation_z
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.sim.phantom import build_phantom


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.real(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b))


def shell(resolution: float, n: int = 1500) -> np.ndarray:
    """Frequencies on a sphere."""
    k = np.random.default_rng(0).standard_normal((n, 3))
    return k / np.linalg.norm(k, axis=1, keepdims=True) / resolution


def test_same_seed_same_phantom() -> None:
    a, b, c = build_phantom(180.0, seed=1), build_phantom(180.0, seed=1), build_phantom(180.0, seed=2)
    assert np.array_equal(a.position_angstrom, b.position_angstrom)
    assert not np.allclose(a.position_angstrom, c.position_angstrom)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_size_and_centre(seed: int) -> None:
    phantom = build_phantom(180.0, 500, seed=seed)
    sigma = np.sqrt(phantom.bfactor_angstrom2[0, 0] / (8 * np.pi**2))
    reach = np.linalg.norm(phantom.position_angstrom, axis=1).max() + 2 * sigma
    assert len(phantom.weight) == 500
    assert reach == pytest.approx(90.0, rel=1e-12)
    assert np.abs(phantom.position_angstrom.mean(axis=0)).max() <= 1e-9


def test_helices_are_right_handed() -> None:
    """Dihedral angles of four beads in a row: +50 degrees in a right-handed alpha helix, by IUPAC's sign."""
    p = build_phantom(180.0).position_angstrom
    a, b, c = p[1:-2] - p[:-3], p[2:-1] - p[1:-2], p[3:] - p[2:-1]
    n1, n2 = np.cross(a, b), np.cross(b, c)
    angle = np.degrees(
        np.arctan2(np.linalg.norm(b, axis=1) * np.einsum("ij,ij->i", a, n2), np.einsum("ij,ij->i", n1, n2))
    )
    in_helix = np.abs(np.abs(angle) - 50) < 5
    assert in_helix.mean() >= 0.5
    assert (angle[in_helix] > 0).mean() >= 0.95


@pytest.mark.parametrize("seed", [1, 2])
def test_chiral_and_without_rotational_symmetry(seed: int) -> None:
    """Neither the mirror image nor the phantom turned about its principal axes matches the phantom at 25 Å."""
    phantom = build_phantom(180.0, seed=seed)
    k = shell(25.0)
    original = phantom.transform(k)
    axes = np.linalg.svd(phantom.position_angstrom, full_matrices=False)[2]
    for signs in product((1, -1), repeat=3):
        operation = axes.T @ np.diag(signs) @ axes  # proper ones turn by 180 degrees, improper ones mirror
        if not np.allclose(operation, np.eye(3)):
            assert correlation(phantom.transform(k @ operation), original) <= 0.5


@pytest.mark.parametrize("order", [2, 3, 6])
def test_cyclic_symmetry_about_z(order: int) -> None:
    phantom = build_phantom(200.0, 600, f"C{order}")
    k = shell(30.0)
    original = phantom.transform(k)
    assert correlation(phantom.transform(k @ rotation_z(360.0 / order)), original) >= 1 - 1e-9
    assert correlation(phantom.transform(k @ rotation_z(180.0 / order)), original) <= 0.5
    assert len(phantom.weight) == 600
    # copies do not run into each other: no two beads of different copies coincide
    copies = phantom.position_angstrom.reshape(order, -1, 3)
    distance = np.linalg.norm(copies[0][:, None] - copies[1], axis=-1)
    sigma = np.sqrt(phantom.bfactor_angstrom2[0, 0] / (8 * np.pi**2))
    assert np.median(distance.min(axis=1)) >= 2 * sigma


@pytest.mark.parametrize("symmetry", ["D7", "T", "O", "I2", "I3"])
def test_point_groups(symmetry: str) -> None:
    """Rotations of the group change nothing, and a turn by 20 degrees does."""
    group = symmetry_matrices(symmetry)
    phantom = build_phantom(200.0, 20 * len(group), symmetry)
    k = shell(25.0, 300)
    original = phantom.transform(k)
    assert len(phantom.weight) == 20 * len(group)
    assert min(correlation(phantom.transform(k @ operator), original) for operator in group[1::3]) >= 1 - 1e-9
    assert correlation(phantom.transform(k @ rotation_z(20.0)), original) <= 0.8


@pytest.mark.parametrize(("diameter", "beads", "symmetry"), [(180.0, 10, "C1"), (0.0, 900, "C1"), (180.0, 900, "X2")])
def test_impossible_phantoms_are_refused(diameter: float, beads: int, symmetry: str) -> None:
    with pytest.raises(ConfigError):
        build_phantom(diameter, beads, symmetry)
