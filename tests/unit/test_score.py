from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.pose_errors import PoseErrors
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model import OptimisationSet
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.score import poses_of, score_map, score_poses
from tiltwise.sim.simulate import simulate


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> OptimisationSet:
    options = SimulateOptions(
        output=tmp_path_factory.mktemp("score"),
        tilt_series=1,
        particles=12,
        width_px=64,
        height_px=64,
        thickness=200.0,
        pixel_size=8.0,
        box=16,
        particle_diameter=60.0,
        beads=30,
        tilt_step=60.0,
        spacing=0.0,
        margin_px=4,
        threads=1,
    )
    return load_optimisation_set(simulate(options).folder / "truth" / "optimisation_set.star")


def test_truth_has_no_error_and_particles_are_matched_by_name(truth: OptimisationSet) -> None:
    particles = truth.particles
    order = np.arange(len(particles))[::-1]
    shuffled = replace(
        particles,
        name=tuple(particles.name[i] for i in order),
        coordinate_px=particles.coordinate_px[order],
        angles_deg=particles.angles_deg[order],
    )
    errors = score_poses(replace(truth, particles=shuffled), truth)
    assert errors.angle_deg.max() < 1e-5
    assert errors.distance.max() < 1e-6


def test_planted_errors_are_found(truth: OptimisationSet) -> None:
    particles = truth.particles
    rotations, _ = poses_of(truth)
    turn = euler_to_matrix(np.array([0.0, 0.0, 7.0]))
    moved = replace(
        particles,
        angles_deg=matrix_to_euler(rotations @ turn),
        origin_angstrom=np.tile([3.0, 0.0, 4.0], (len(particles), 1)),
    )
    errors = score_poses(replace(truth, particles=moved), truth, remove_common=False)
    np.testing.assert_allclose(errors.angle_deg, 7.0, rtol=1e-6)
    np.testing.assert_allclose(errors.distance, 5.0, rtol=1e-6)
    assert score_poses(replace(truth, particles=moved), truth).angle_deg.max() < 1e-5


def test_particles_without_truth_are_refused(truth: OptimisationSet) -> None:
    names = ("nobody", *truth.particles.name[1:])
    with pytest.raises(DataError, match="nobody"):
        score_poses(replace(truth, particles=replace(truth.particles, name=names)), truth)


def test_map_is_compared_after_the_motion_it_shares_with_its_particles() -> None:
    """A map turned by R and moved by o is the truth again once both are known."""
    rng = np.random.default_rng(2)
    centres = rng.normal(scale=18.0, size=(25, 3))
    turn, shift = euler_to_matrix(np.array([20.0, 8.0, -12.0])), np.array([4.0, -6.0, 3.0])
    size, pixel = 32, 4.0
    true_map = density_of(centres, size, pixel)
    # x_true = R^T x_refined + o, so a point of the truth is at R (x_true - o) in the refined map.
    refined = density_of((centres - shift) @ turn.T, size, pixel)
    errors = PoseErrors(np.zeros(1), np.zeros(1), turn, shift)
    score = score_map(refined, true_map, pixel, 100.0, errors)
    # Gaussians of 6 Å are band-limited on a 4 Å grid, so splines of order 5 leave less than 1 % at 12 Å.
    shell = round(size * pixel / 12.0)
    assert score.fsc[1:shell].min() > 0.99
    still = PoseErrors(np.zeros(1), np.zeros(1), np.eye(3), np.zeros(3))
    assert score_map(refined, true_map, pixel, 100.0, still).fsc[1:shell].min() < 0.5


def density_of(centres: NDArray[np.float64], size: int, pixel: float) -> NDArray[np.float32]:
    axis = (np.arange(size) - size // 2) * pixel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    total = np.zeros((size, size, size))
    for cx, cy, cz in centres:
        total += np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 6.0**2))
    return total.astype(np.float32)
