"""Transpose of project (Eqs. 8-11)."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.compare import EPS32, assert_close
from helpers.kernel_problems import SliceProblem, complex_normal
from tiltwise.kernels.api import Backend

SIZES = [(2, 1.0), (3, 1.0), (16, 8.0), (16, 5.5), (25, 12.0), (32, 15.99), (33, 9.0)]


def run(backend: Backend, p: SliceProblem) -> tuple[np.ndarray, np.ndarray]:
    data, weight = p.accumulators()
    backend.insert(p.slices, p.weights, p.matrices, p.frequencies, p.radius, data, weight)
    return data, weight


@pytest.mark.parametrize(("size", "radius"), SIZES)
def test_matches_the_oracle(compiled: Backend, oracle: Backend, size: int, radius: float) -> None:
    p = SliceProblem.create(size, radius)
    data, weight = run(compiled, p)
    expected_data, expected_weight = run(oracle, p)
    # as in test_project: float32 coordinates, |p| <= size / 2
    tolerance = 8 * EPS32 * max(size / 2, 4.0)
    assert_close(data, expected_data, tolerance)
    assert_close(weight, expected_weight, tolerance)


@pytest.mark.parametrize(("size", "radius"), SIZES)
def test_is_the_adjoint_of_project(backend: Backend, size: int, radius: float) -> None:
    p = SliceProblem.create(size, radius, n=5, k=300, seed=3)
    data, weight = run(backend, p)
    projected = backend.project(p.volume, p.matrices, p.frequencies, p.radius)
    # Real inner products.  Both sides use the same float32 weights, so they differ by the rounding of float32
    # values only, relative to the norms of the vectors.
    left = np.vdot(data, p.volume.astype(np.complex128)).real
    right = np.vdot(p.slices.astype(np.complex128), projected.astype(np.complex128)).real
    scale = np.linalg.norm(p.slices) * np.linalg.norm(projected)
    if not abs(left - right) <= 1e-6 * scale:
        pytest.fail(f"<insert(x), v> = {left}, <x, project(v)> = {right}, scale {scale}")
    # the weight is the real part of the same map
    real = backend.project(np.abs(p.volume).astype(np.complex64), p.matrices, p.frequencies, p.radius).real
    left = float((weight * np.abs(p.volume)).sum())
    right = float((p.weights.astype(np.float64) * real).sum())
    if not abs(left - right) <= 1e-5 * abs(right):
        pytest.fail(f"weights: {left}, {right}")


def test_weights_of_a_sample_sum_to_one(backend: Backend) -> None:
    p = SliceProblem.create(20, 10.0, n=1, k=40)
    p.weights[:] = 1
    inside = int((2.0 * np.linalg.norm(p.frequencies, axis=1) < p.radius).sum())
    _, weight = run(backend, p)
    if not abs(weight.sum() - inside) <= 8 * EPS32 * inside:  # eight products of float32 fractions
        pytest.fail(f"sum of weights {weight.sum()}, samples {inside}")


def test_adds_to_what_is_there(backend: Backend) -> None:
    p = SliceProblem.create(16, 8.0)
    once, once_weight = run(backend, p)
    start = complex_normal(np.random.default_rng(1), *p.volume.shape).astype(np.complex128)
    data, weight = start.copy(), np.full(p.volume.shape, 2.0)
    backend.insert(p.slices, p.weights, p.matrices, p.frequencies, p.radius, data, weight)
    # float64 sums in another order; a device may sum in fixed point of 2^-40 relative to the largest term
    assert_close(data - start, once, 1e-9)
    assert_close(weight - 2.0, once_weight, 1e-9)


@pytest.mark.parametrize(("n", "k"), [(0, 7), (3, 0), (0, 0)])
def test_empty_batch_adds_nothing(backend: Backend, n: int, k: int) -> None:
    p = SliceProblem.create(8, 4.0, n=n, k=k)
    data, weight = run(backend, p)
    assert not data.any()
    assert not weight.any()


def test_nothing_beyond_the_radius(backend: Backend) -> None:
    p = SliceProblem.create(16, 3.0)
    outside = 2.0 * np.linalg.norm(p.frequencies, axis=1) >= p.radius
    p.slices[:, outside] = np.nan
    p.weights[:, outside] = 1e30
    data, weight = run(backend, p)
    assert np.isfinite(data).all() or backend.name == "reference"
    assert weight.max() < 1e6


def test_nan_shows(backend: Backend) -> None:
    p = SliceProblem.create(16, 8.0)
    p.slices[1, :] = np.nan
    data, weight = run(backend, p)
    assert np.isnan(data).any()
    assert np.isfinite(weight).all()
