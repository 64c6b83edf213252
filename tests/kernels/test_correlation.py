"""Correlation tables and their values at given shifts (Eqs. 31-33)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.compare import EPS32, assert_close, relative_l2
from helpers.kernel_problems import CorrelationProblem
from tiltwise.kernels.api import Backend

F64 = NDArray[np.float64]

# fewer points on a side than a vector, a few more, one; components of one line only
EXTENTS = [(3, 5, 2), (4, 13, 16), (2, 20, 17), (3, 4, 0), (2, 0, 3), (0, 4, 3)]


@pytest.mark.parametrize(("n", "limit", "half"), EXTENTS)
def test_tables_match_the_oracle(compiled: Backend, oracle: Backend, n: int, limit: int, half: int) -> None:
    p = CorrelationProblem.create(n, limit, half)
    (tables, moments), (expected, powers) = compiled.cc_table(*p.arguments), oracle.cc_table(*p.arguments)
    assert tables.dtype == np.float32
    # sums of K products of single precision, whose roundings add at random: K eps of their norm is never reached
    assert_close(tables, expected, 16 * EPS32)
    assert_close(moments, powers, 4 * EPS32)


def test_tables_are_written_where_asked(backend: Backend) -> None:
    p = CorrelationProblem.create(3, 6, 4)
    expected, _ = backend.cc_table(*p.arguments)
    out = np.full((3, 9, 9), np.nan, np.float32)
    found, _ = backend.cc_table(*p.arguments, out=out)
    assert found is out
    assert np.array_equal(out, expected.astype(np.float32))


def test_nothing_is_zero(backend: Backend) -> None:
    """Without components."""
    p = CorrelationProblem.create(2, 3, 2)
    arrays = {name: getattr(p, name)[:, :0].copy() for name in ("slices", "images", "powers", "weights")}
    tables, moments = backend.cc_table(*replace(p, **arrays, frequencies=p.frequencies[:0]).arguments)
    assert tables.shape == (2, 5, 5)
    assert not tables.any()
    assert not moments.any()


def test_nan_stays_in_its_image(backend: Backend) -> None:
    p = CorrelationProblem.create(3, 6, 4)
    expected, _ = backend.cc_table(*p.arguments)
    p.images[1, 4] = np.nan
    found, _ = backend.cc_table(*p.arguments)
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], expected[[0, 2]])


def test_an_image_that_moves_moves_its_table(backend: Backend) -> None:
    """X exp(-i k.d) has its correlations d further."""
    size, step, dx, dy = 17, 0.2, 3, 2
    p = CorrelationProblem.create(3, 9, size // 2, step)
    before, _ = backend.cc_table(*p.arguments)
    p.images[:, : len(p.frequencies)] *= np.exp(-1j * step * (p.frequencies @ [dx, -dy]))
    after, _ = backend.cc_table(*p.arguments)
    # the moved image is rounded once more
    assert relative_l2(after[:, : size - dy, dx:], before[:, dy:, : size - dx]) <= 24 * EPS32


def test_moments_are_power_and_curvature(backend: Backend) -> None:
    """With X = V and C = 1 the table is the autocorrelation: power at its middle, -information as its curvature."""
    p = CorrelationProblem.create(2, 7, 1, step := 1e-2)
    p.powers[:] = 1.0
    p.images[:, : len(p.frequencies)] = p.slices
    tables, moments = backend.cc_table(*p.arguments)
    assert_close(tables[:, 1, 1], moments[:, 0], 16 * EPS32)
    if backend.name == "reference":  # second differences of single precision say nothing
        xx = (tables[:, 1, 2] + tables[:, 1, 0] - 2 * tables[:, 1, 1]) / step**2
        xy = (tables[:, 2, 2] + tables[:, 0, 0] - tables[:, 2, 0] - tables[:, 0, 2]) / (4 * step**2)
        yy = (tables[:, 2, 1] + tables[:, 0, 1] - 2 * tables[:, 1, 1]) / step**2
        assert_close(-np.stack([xx, xy, yy], axis=1), moments[:, 1:], 2e-3)


def splines(n: int, m: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.int32], F64]:
    """Coefficients, rows, and shifts that lie inside and outside."""
    rng = np.random.default_rng([n, m, size])
    shifts = rng.uniform(-0.6 * size, 0.6 * size, (n, 2))
    return rng.normal(size=(m, size, size)).astype(np.float32), rng.integers(0, m, n).astype(np.int32), shifts


@pytest.mark.parametrize(("n", "m", "size"), [(1, 1, 5), (700, 3, 9), (40, 40, 33), (5, 1, 1), (0, 2, 7)])
def test_values_match_the_oracle(compiled: Backend, oracle: Backend, n: int, m: int, size: int) -> None:
    arrays = splines(n, m, size)
    found = compiled.cc_cost(*arrays)
    assert found.shape == (n, 6)
    assert_close(found, oracle.cc_cost(*arrays), 1e-14)


def test_derivatives_are_those_of_the_function(backend: Backend) -> None:
    tables, rows, _ = splines(300, 20, 15)
    at = np.random.default_rng(3).uniform(-5.5, 5.5, (300, 2))
    found, h = backend.cc_cost(tables, rows, at), 1e-5
    for axis, columns in ((0, (3, 4)), (1, (4, 5))):
        step = h * np.eye(2)[axis]
        change = (backend.cc_cost(tables, rows, at + step) - backend.cc_cost(tables, rows, at - step)) / (2 * h)
        assert relative_l2(found[:, 1 + axis], change[:, 0]) <= 1e-6
        for of, column in zip((1, 2), columns, strict=True):
            # second derivatives are continuous and have kinks at the points: few of 300 lie within 1e-5 of one
            assert relative_l2(found[:, column], change[:, of]) <= 1e-4


def test_a_constant_and_a_slope_are_kept(backend: Backend) -> None:
    """Splines reproduce linear functions from their values."""
    y, x = np.mgrid[-4:5, -4:5]
    table = (2.0 + 3.0 * x - 5.0 * y).astype(np.float32)[None]
    at = np.random.default_rng(4).uniform(-3, 2.9, (50, 2))
    found = backend.cc_cost(table, np.zeros(50, np.int32), at)
    expected = np.column_stack([2.0 + at @ [3.0, -5.0], np.tile([3.0, -5.0, 0.0, 0.0, 0.0], (50, 1))])
    assert np.abs(found - expected).max() <= 1e-12


def test_nothing_is_known_outside(backend: Backend) -> None:
    tables = np.ones((1, 9, 9), np.float32)
    at = np.array([[3.0, 0.0], [-3.01, 0.0], [0.0, 1e300], [np.nan, 0.0], [0.0, -np.inf]])
    assert not backend.cc_cost(tables, np.zeros(5, np.int32), at).any()
    assert backend.cc_cost(tables, np.zeros(2, np.int32), np.array([[-3.0, 2.99], [0.0, 0.0]]))[:, 0].all()


def test_nan_stays_near(backend: Backend) -> None:
    tables = np.ones((1, 15, 15), np.float32)
    tables[0, 0, 0] = np.nan
    found = backend.cc_cost(tables, np.zeros(2, np.int32), np.array([[-5.5, -5.5], [0.3, 0.3]]))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
