"""Symmetry that particles have is confirmed, and symmetry they have not is found, from poses at random mates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.particles import SimulatedParticles, blobs
from tiltwise.em.settings import Group
from tiltwise.em.symmetry_check import SymmetryCheck, SymmetryRelaxation
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.select import load_backend
from tiltwise.spectral.masks import soft_sphere

BOX, SHELLS = 24, 8


def density(symmetry: str) -> NDArray[np.float32]:
    """Blobs and their symmetry mates."""
    return sum_of_mates(blobs(BOX, 12, 0.22 * BOX, 1.4), symmetry)


def sum_of_mates(one: NDArray[np.float32], symmetry: str) -> NDArray[np.float32]:
    from scipy.ndimage import affine_transform

    centre = np.full(3, BOX // 2)
    total = np.zeros_like(one)
    for operator in symmetry_matrices(symmetry):
        matrix = operator.T[::-1, ::-1]
        total += affine_transform(one, matrix, centre - matrix @ centre, order=3)
    return total


def checked(true: str, applied: str, seed: int = 1, each: int = 20) -> SymmetryCheck:
    """20 particles in each half set, `each` in a series; poses are true up to a mate in the group that is applied."""
    data = SimulatedParticles.create(
        40,
        box=BOX,
        tilts=7,
        pixel_size=4.0,
        nats=500.0,
        radius=SHELLS,
        reach_angstrom=0.0,
        seed=seed,
        density=density(true),
    )
    group = symmetry_matrices(applied)
    mates = group[np.random.default_rng(seed).integers(len(group), size=40)]
    rotations = data.rotations @ mates

    def of_half(half: int) -> list[Group]:
        groups = []
        for members in np.arange(half - 1, 40, 2).reshape(-1, each):
            raw = [data.raw[i] for i in members]
            still = np.zeros((each, 3))
            group = Group(data.series, data.noise_power, members, rotations[members], still, raw.__getitem__)
            groups.append(group)
        return groups

    mask = soft_sphere(BOX, 0.45 * BOX, 3.0)
    relaxation = SymmetryRelaxation(load_backend("auto"), data.disc, 4.0, group, mask, SHELLS, 1, seed)
    return relaxation.run({half: of_half(half) for half in (1, 2)})


@pytest.mark.parametrize(("true", "applied"), [("C6", "C6"), ("C6", "C3"), ("D3", "D3"), ("O", "O")])
def test_symmetry_that_is_there_is_not_doubted(true: str, applied: str) -> None:
    check = checked(true, applied)
    assert check.particles == 20
    assert not check.broken
    assert check.symmetric[2:5].min() >= 0.8


@pytest.mark.parametrize(("true", "applied"), [("C1", "C2"), ("C1", "C6"), ("C3", "D3"), ("C3", "C6"), ("D2", "T")])
def test_symmetry_that_is_not_there_is_found(true: str, applied: str) -> None:
    check = checked(true, applied)
    assert check.broken
    assert check.mean >= 0.3


def test_series_of_single_particles_are_shared_out_like_one_series() -> None:
    """Sets that predict each other are drawn over all series: a series of one particle has none of the second set."""
    together, apart = checked("C1", "C2"), checked("C1", "C2", each=1)
    assert together.broken
    assert apart.broken
    assert apart.particles == together.particles
