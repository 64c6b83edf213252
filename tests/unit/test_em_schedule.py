"""Sampling of the iterations: refined when the resolution stands still, and brought to an end."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.em.schedule import Schedule
from tiltwise.geometry.grids import MAX_ORDER, orientation_angles, orientation_children
from tiltwise.geometry.rotations import euler_to_matrix


def schedule(order: int) -> Schedule:
    return Schedule(
        order=order,
        local_order=4,
        oversampling=1,
        sigma_ang_deg=None,
        offset_range_angstrom=20.0,
        offset_step_angstrom=8.0,
        resolution_shell=10,
    )


CURVE = np.where(np.arange(33) <= 12, 1.0, 0.0)


def test_sampling_is_refined_only_without_gain() -> None:
    plan = schedule(3)
    plan.update(12, 1.0, 1.0, 1.0, 2.0, CURVE)
    assert (plan.order, plan.resolution_shell, plan.converged) == (3, 12, False)
    plan.update(12, 1.0, 1.0, 1.0, 2.0, CURVE)
    assert (plan.order, plan.stalled, plan.converged) == (4, 0, False)


def test_two_iterations_without_gain_at_a_fine_step_converge() -> None:
    plan = schedule(4)
    for expected in (False, True):
        plan.update(10, 10.0, 1.0, 1.0, 2.0, CURVE)
        assert (plan.order, plan.converged) == (4, expected)


@pytest.mark.parametrize("accuracy_deg", [1e-3, float("nan")])
def test_the_finest_grid_is_the_last(accuracy_deg: float) -> None:
    """Large particles tell angles finer than any grid: the refinement ends, it does not ask for a grid that is none."""
    plan = schedule(MAX_ORDER - 1)
    for _ in range(4):
        plan.update(10, accuracy_deg, 1.0, 1.0, 2.0, CURVE)
    assert (plan.order, plan.converged) == (MAX_ORDER, True)


def test_settled_sharp_poses_are_searched_locally_and_end_the_refinement() -> None:
    plan = schedule(2)
    plan.update(12, 0.5, 0.5, 20.0, 8.0, CURVE, sharp=0.95)
    assert not plan.local, "poses have just been found"
    plan.update(12, 0.5, 0.5, 2.0, 1.0, CURVE, sharp=0.95)
    assert (plan.local, plan.order, plan.converged) == (True, 2, False)
    assert plan.grid(np.random.default_rng(0)).local_sigma_deg is not None
    plan.update(12, 0.5, 0.5, 0.1, 0.1, CURVE, sharp=0.95)
    assert (plan.order, plan.converged) == (2, True)


def test_diffuse_posteriors_refine_the_grid() -> None:
    plan = schedule(2)
    plan.update(12, 0.5, 0.5, 2.0, 1.0, CURVE, sharp=0.5)
    plan.update(12, 0.5, 0.5, 2.0, 1.0, CURVE, sharp=0.5)
    assert (plan.local, plan.order, plan.converged) == (False, 3, False)


def test_grids_of_both_halves_are_the_same() -> None:
    first, second = (schedule(1).grid(np.random.default_rng([1, 7])) for _ in range(2))
    np.testing.assert_array_equal(first.perturbation, second.perturbation)
    np.testing.assert_array_equal(first.shifts(), second.shifts())


def test_children_fill_the_second_pass() -> None:
    grid = schedule(1).grid(np.random.default_rng(0))
    angles, rotations = grid.rotations()
    assert len(grid.children(angles[:3])) == 24
    expected = euler_to_matrix(orientation_angles(1)) @ grid.perturbation
    np.testing.assert_allclose(rotations, expected, rtol=0, atol=1e-12)
    assert orientation_children(1, angles[:3], 1).shape == (3, 8, 3)
