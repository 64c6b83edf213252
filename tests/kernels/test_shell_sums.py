"""Sums of products over Fourier shells (Eqs. 12, 13, FSC)."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.compare import assert_close
from helpers.kernel_problems import complex_normal
from tiltwise.kernels.api import Backend

# Products of two float32 numbers are exact in float64; sums of at most a few hundred of them, in any order.
TOLERANCE = 1e-12


@pytest.mark.parametrize("ordered", [True, False], ids=["shell order", "any order"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("n", "k", "n_shells"), [(1, 1, 1), (3, 257, 12), (2, 600, 3)])
def test_matches_the_oracle(
    compiled: Backend, oracle: Backend, n: int, k: int, n_shells: int, weighted: bool, ordered: bool
) -> None:
    rng = np.random.default_rng([n, k])
    a, b = complex_normal(rng, n, k), complex_normal(rng, n, k)
    weights = rng.random(k).astype(np.float32) if weighted else None
    shells = rng.integers(-1, n_shells + 2, k).astype(np.int32)  # some are left out
    shells = np.sort(shells) if ordered else shells
    found = compiled.shell_sums(a, b, weights, shells, n_shells)
    assert found.dtype == np.float64
    expected = oracle.shell_sums(a, b, weights, shells, n_shells)
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    assert_close(found / scale + 1.0, expected / scale + 1.0, TOLERANCE)


@pytest.mark.parametrize(("n", "k", "n_shells"), [(0, 5, 3), (2, 0, 3), (2, 5, 0)])
def test_empty(backend: Backend, n: int, k: int, n_shells: int) -> None:
    rng = np.random.default_rng(0)
    a = complex_normal(rng, n, k)
    found = backend.shell_sums(a, a, None, np.zeros(k, np.int32), n_shells)
    assert found.shape == (n, n_shells)
    assert not found.any()


def test_of_an_array_with_itself_is_its_power(backend: Backend) -> None:
    a = complex_normal(np.random.default_rng(2), 3, 90)
    shells = (np.arange(90) // 30).astype(np.int32)
    found = backend.shell_sums(a, a, None, shells, 3)
    power = np.abs(a.astype(np.complex128)) ** 2
    assert_close(found, power.reshape(3, 3, 30).sum(axis=2), TOLERANCE)


def test_nan_stays_in_its_shell(backend: Backend) -> None:
    a = complex_normal(np.random.default_rng(3), 2, 60)
    b = a.copy()
    b[1, 25] = np.nan
    found = backend.shell_sums(a, b, None, (np.arange(60) // 20).astype(np.int32), 3)
    np.testing.assert_array_equal(np.isnan(found), [[False] * 3, [False, True, False]])
