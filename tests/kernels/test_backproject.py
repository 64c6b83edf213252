"""Posterior-weighted sums of one particle per rotation (Eq. 11)."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.compare import EPS32, assert_close
from helpers.kernel_problems import ScoreProblem
from tiltwise.kernels.api import Backend

EXTENTS = [(1, 1, 1), (2, 3, 5), (7, 5, 131), (13, 4, 1101), (6, 125, 33), (70, 2, 64)]


@pytest.mark.parametrize(("rotations", "shifts", "k"), EXTENTS)
def test_matches_the_oracle(compiled: Backend, oracle: Backend, rotations: int, shifts: int, k: int) -> None:
    p = ScoreProblem.create(rotations, shifts, k)
    sums, totals = compiled.backproject(p.weights, p.image, p.power, p.phases)
    expected_sums, expected_totals = oracle.backproject(p.weights, p.image, p.power, p.phases)
    assert sums.dtype == np.complex64
    assert totals.dtype == np.float32
    tolerance = 4 * EPS32 * max(1.0, np.sqrt(shifts))  # a float32 sum over shifts
    assert_close(sums, expected_sums, tolerance)
    assert_close(totals, expected_totals, 4 * EPS32)


@pytest.mark.parametrize(("rotations", "shifts", "k"), [(0, 3, 4), (3, 0, 4), (3, 2, 0)])
def test_empty(backend: Backend, rotations: int, shifts: int, k: int) -> None:
    p = ScoreProblem.create(rotations, shifts, k)
    sums, totals = backend.backproject(p.weights, p.image, p.power, p.phases)
    assert sums.shape == totals.shape == (rotations, k)
    assert not sums.any()
    assert not totals.any()


def test_is_the_adjoint_of_score(backend: Backend) -> None:
    # sum_rt w cross[r, t] = sum_r Re <slices[r], sums[r]>
    p = ScoreProblem.create(11, 6, 150)
    cross, _ = backend.score(p.slices, p.image, p.power, p.phases)
    sums, _ = backend.backproject(p.weights, p.image, p.power, p.phases)
    left = float((p.weights.astype(np.float64) * cross).sum())
    right = float(np.vdot(p.slices.astype(np.complex128), sums).real)
    scale = np.linalg.norm(p.slices) * np.linalg.norm(sums)
    if not abs(left - right) <= 16 * EPS32 * scale:  # two float32 sums
        pytest.fail(f"{left} and {right} differ, scale {scale}")


def test_rotations_without_weight_are_zero(backend: Backend) -> None:
    p = ScoreProblem.create(9, 4, 40)
    p.weights[[0, 5]] = 0
    sums, totals = backend.backproject(p.weights, p.image, p.power, p.phases)
    assert not sums[[0, 5]].any()
    assert not totals[[0, 5]].any()
    assert sums[1].any()


def test_nan_shows(backend: Backend) -> None:
    p = ScoreProblem.create(5, 4, 40)
    p.weights[:] = 0.25
    p.weights[3, 1] = np.nan
    p.image[7] = np.nan
    sums, totals = backend.backproject(p.weights, p.image, p.power, p.phases)
    expected = np.zeros((5, 40), bool)
    expected[3], expected[:, 7] = True, True
    np.testing.assert_array_equal(np.isnan(sums), expected)
    np.testing.assert_array_equal(np.isnan(totals), np.arange(5)[:, None].repeat(40, 1) == 3)
