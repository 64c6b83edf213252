"""The factor between a starting map and the images, from poses that are searched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.particles import SimulatedParticles
from helpers.search import PIXEL, TILTS
from tiltwise.em.expectation import Expectation
from tiltwise.em.greyscale import coarse_settings, fit_greyscale
from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import turned
from tiltwise.em.settings import Group, Settings
from tiltwise.geometry.rotations import euler_to_matrix

BOX, N, FACTOR = 24, 8, 3.7


@pytest.fixture(scope="module")
def data() -> SimulatedParticles:
    return SimulatedParticles.create(
        N, box=BOX, tilts=TILTS, pixel_size=PIXEL, nats=1500.0, radius=8.0, reach_angstrom=5.0
    )


def fitted(
    data: SimulatedParticles,
    *,
    order: int = 2,
    sigma_deg: float | None = None,
    fixed: bool = False,
    factor: float = FACTOR,
    rotations: NDArray[np.float64] | None = None,
    silent: bool = False,
) -> float:
    """With a reference that is weaker by a factor."""
    scorer = replace(data.scorer, volume=np.asarray(data.scorer.volume / np.float32(factor), np.complex64))
    grid = PoseGrid(order, 1, euler_to_matrix([3.0, 2.0, 1.0]), sigma_deg, 10.0, 5.0, np.zeros(3))
    settings = Settings(grid, 8.0, 10.0, 10.0, PIXEL, 10.0, fixed=fixed)
    raw = [replace(image, data=0 * image.data, masked=0 * image.masked) for image in data.raw] if silent else data.raw
    groups = [
        Group(
            data.series,
            data.noise_power,
            members,
            (data.rotations if rotations is None else rotations)[members],
            np.zeros((len(members), 3)),
            lambda i, members=members: raw[members[i]],  # type: ignore[misc]
        )
        for members in (np.arange(N // 2), np.arange(N // 2, N))
    ]
    return fit_greyscale(Expectation(scorer, data.disc, settings), groups, 8.0)


@pytest.mark.parametrize("order", [1, 2])
def test_factor_is_found_by_a_global_search(data: SimulatedParticles, order: int) -> None:
    """0.7 % off over four seeds; factors from the best cells alone are 4 to 6 % too small."""
    assert abs(fitted(data, order=order) / FACTOR - 1.0) <= 0.015


def test_factor_is_found_near_the_last_poses(data: SimulatedParticles) -> None:
    turns = np.random.default_rng(3).normal(size=(N, 3)) * 0.05
    assert abs(fitted(data, order=3, sigma_deg=7.0, rotations=turned(data.rotations, turns)) / FACTOR - 1.0) <= 0.015


@pytest.mark.parametrize("sigma_deg", [None, 7.0])
def test_scale_of_the_map_given_does_not_matter(data: SimulatedParticles, sigma_deg: float | None) -> None:
    weak, strong = (fitted(data, sigma_deg=sigma_deg, factor=factor) / factor for factor in (1e3, 1e-3))
    assert abs(weak / strong - 1.0) <= 1e-3


def test_at_given_poses_nothing_is_searched(data: SimulatedParticles) -> None:
    """Errors of 40 degrees stay, and the map seems stronger than it is."""
    turns = np.random.default_rng(3).normal(size=(N, 3)) * 0.4
    still = fitted(data, order=3, sigma_deg=7.0, fixed=True, rotations=turned(data.rotations, turns))
    assert 0.2 * FACTOR <= still <= 0.9 * FACTOR


def test_images_without_anything_leave_the_map_alone(data: SimulatedParticles) -> None:
    assert fitted(data, silent=True) == 1.0


def test_global_searches_begin_with_few_orientations() -> None:
    grid = PoseGrid(4, 1, np.eye(3), None, 20.0, 4.0, np.zeros(3))
    settings = Settings(grid, 20.0, 25.0, 25.0, PIXEL, 10.0)
    coarse = coarse_settings(settings, 6.0)
    assert (coarse.grid.order, coarse.grid.shift_step_angstrom) == (1, 32.0)
    assert coarse.coarse_radius == coarse.fine_radius == coarse.map_radius == 6.0
    near = coarse_settings(replace(settings, grid=replace(grid, local_sigma_deg=3.0)), 99.0)
    assert near.grid.order == 4
    assert near.coarse_radius == 25.0
