"""Normalised posterior over rotations and shifts (Eq. 1)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.compare import EPS32, assert_close
from tiltwise.kernels.api import Backend
from tiltwise.kernels.select import load_backend


def problem(rotations: int, shifts: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, rotations, shifts])
    likelihood = rng.standard_normal((rotations, shifts)) * spread + 1000.0
    return (
        likelihood.astype(np.float32),
        rng.standard_normal(rotations).astype(np.float32),
        rng.standard_normal(shifts).astype(np.float32),
    )


@pytest.mark.parametrize(("rotations", "shifts"), [(1, 1), (3, 1), (1, 5), (17, 7), (130, 33)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_matches_the_oracle(
    compiled: Backend, oracle: Backend, rotations: int, shifts: int, spread: float, fraction: float
) -> None:
    arguments = problem(rotations, shifts, spread)
    weights, summary = compiled.posterior(*arguments, fraction)
    expected_weights, expected = oracle.posterior(*arguments, fraction)
    assert weights.dtype == np.float32
    assert_close(weights, expected_weights, 2 * EPS32)  # double arithmetic, rounded once
    assert summary.best == expected.best
    assert summary.n_significant == expected.n_significant
    # sums of doubles in another order
    assert_close([summary.log_evidence], [expected.log_evidence], 1e-12)
    assert_close([summary.max_probability], [expected.max_probability], 1e-12)
    assert_close([1.0 + summary.entropy], [1.0 + expected.entropy], 1e-11)


def test_sums_to_one_when_all_is_kept(backend: Backend) -> None:
    weights, summary = backend.posterior(*problem(40, 9, 2.0), 1.0)
    assert_close([weights.sum(dtype=np.float64)], [1.0], 2 * EPS32)
    assert summary.entropy <= math.log(360)


def test_excluded_poses_get_no_weight(backend: Backend) -> None:
    likelihood, rotation, shift = problem(6, 4, 1.0)
    rotation[2] = -np.inf
    shift[0] = -np.inf
    likelihood[5, 3] = -np.inf
    weights, _ = backend.posterior(likelihood, rotation, shift, 1.0)
    excluded = np.zeros((6, 4), bool)
    excluded[2], excluded[:, 0], excluded[5, 3] = True, True, True
    np.testing.assert_array_equal(weights == 0, excluded)


def test_ties_keep_their_order(backend: Backend) -> None:
    zeros = np.zeros((3, 4), np.float32), np.zeros(3, np.float32), np.zeros(4, np.float32)
    weights, summary = backend.posterior(*zeros, 0.45)
    assert summary.n_significant == 6
    assert summary.best == 0
    np.testing.assert_array_equal(np.flatnonzero(weights), np.arange(6))
    assert_close([summary.entropy], [math.log(12)], 1e-12)


@pytest.mark.parametrize(
    ("fill", "evidence"), [(-np.inf, -math.inf), (np.nan, math.nan), (np.inf, math.nan)], ids=["none", "nan", "inf"]
)
def test_particles_that_cannot_be_weighted(backend: Backend, fill: float, evidence: float) -> None:
    likelihood, rotation, shift = problem(5, 3, 1.0)
    if fill == -np.inf:
        likelihood[:] = fill
    else:
        likelihood[3, 1] = fill
    weights, summary = backend.posterior(likelihood, rotation, shift, 0.9)
    assert not weights.any()
    np.testing.assert_equal(summary.log_evidence, evidence)
    assert (summary.best, summary.max_probability, summary.n_significant, summary.entropy) == (0, 0.0, 0, 0.0)


@pytest.mark.parametrize(("rotations", "shifts"), [(0, 3), (3, 0)])
def test_empty(backend: Backend, rotations: int, shifts: int) -> None:
    weights, summary = backend.posterior(*problem(rotations, shifts, 1.0), 0.9)
    assert weights.shape == (rotations, shifts)
    assert summary.log_evidence == -math.inf
    assert summary.n_significant == 0


@settings(max_examples=40, deadline=None)
@given(
    rotations=st.integers(1, 12),
    shifts=st.integers(1, 12),
    spread=st.floats(0, 300),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_the_significant_set_is_the_smallest(
    rotations: int, shifts: int, spread: float, fraction: float, seed: int
) -> None:
    arguments = problem(rotations, shifts, spread, seed)
    weights, summary = load_backend("host").posterior(*arguments, fraction)
    everything, _ = load_backend("reference").posterior(*arguments, 1.0)
    kept, left = weights[weights > 0], everything[(weights == 0) & (everything > 1e-37)]
    assert len(kept) <= summary.n_significant
    slack = 4 * EPS32
    assert kept.sum(dtype=np.float64) >= fraction - slack
    assert kept.sum(dtype=np.float64) - kept.min() <= fraction + slack
    assert left.size == 0 or left.max() <= kept.min() * (1 + slack)
