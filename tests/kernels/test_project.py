"""Slices of a volume (Eqs. 3, 6)."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.compare import EPS32, assert_close
from helpers.kernel_problems import SliceProblem
from tiltwise.kernels.api import Backend

SIZES = [(2, 1.0), (3, 1.0), (16, 8.0), (16, 5.5), (25, 12.0), (32, 15.99), (33, 9.0)]


def tolerance(size: int) -> float:
    # A coordinate is rounded by about eps * |p|, |p| <= size / 2, three products deep; neighbouring voxels
    # of white noise differ by more than their values.  The factor 8 covers both.
    return 8 * EPS32 * max(size / 2, 4.0)


@pytest.mark.parametrize(("size", "radius"), SIZES)
def test_matches_the_oracle(compiled: Backend, oracle: Backend, size: int, radius: float) -> None:
    p = SliceProblem.create(size, radius)
    found = compiled.project(p.volume, p.matrices, p.frequencies, p.radius)
    assert found.dtype == np.complex64
    assert_close(found, oracle.project(p.volume, p.matrices, p.frequencies, p.radius), tolerance(size))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 129), (3, 127), (70, 5)])
def test_odd_extents(compiled: Backend, oracle: Backend, n: int, k: int) -> None:
    p = SliceProblem.create(20, 10.0, n=n, k=k)
    found = compiled.project(p.volume, p.matrices, p.frequencies, p.radius)
    assert_close(found, oracle.project(p.volume, p.matrices, p.frequencies, p.radius), tolerance(20))


@pytest.mark.parametrize(("n", "k"), [(0, 7), (3, 0), (0, 0)])
def test_empty_batch(backend: Backend, n: int, k: int) -> None:
    p = SliceProblem.create(8, 4.0, n=n, k=k)
    assert backend.project(p.volume, p.matrices, p.frequencies, p.radius).shape == (n, k)


def test_integer_coordinates_read_voxels(backend: Backend) -> None:
    size = 12
    p = SliceProblem.create(size, 6.0)
    frequencies = np.array([[0, 0, 0], [2, 0, 0], [1, -3, 2], [0, 5, 0], [3, -4, 3.0]], np.float32)
    found = backend.project(p.volume, np.eye(3, dtype=np.float32)[None], frequencies, 6.0)[0]
    expected = [p.volume[int(z) % size, int(y) % size, int(x)] for x, y, z in frequencies]
    np.testing.assert_array_equal(found, expected)


def test_opposite_frequencies_are_conjugate(backend: Backend) -> None:
    p = SliceProblem.create(18, 9.0)
    found = backend.project(p.volume, p.matrices, p.frequencies, p.radius)
    mates = backend.project(p.volume, p.matrices, -p.frequencies, p.radius)
    np.testing.assert_array_equal(mates, found.conj())


def test_samples_beyond_the_radius_are_zero(backend: Backend) -> None:
    p = SliceProblem.create(16, 3.0)
    found = backend.project(p.volume, p.matrices, p.frequencies, p.radius)
    outside = 2.0 * np.linalg.norm(p.frequencies, axis=1) >= p.radius
    assert outside.any()
    assert not outside.all()
    assert (found[:, outside] == 0).all()
    assert (found[:, ~outside] != 0).all()
    # the radius itself is outside
    edge = np.array([[3.0, 0, 0]], np.float32)
    assert backend.project(p.volume, np.eye(3, dtype=np.float32)[None], edge, 3.0)[0, 0] == 0


def test_out_receives_the_result(compiled: Backend) -> None:
    p = SliceProblem.create(16, 8.0)
    out = np.full(p.slices.shape, np.nan, np.complex64)
    returned = compiled.project(p.volume, p.matrices, p.frequencies, p.radius, out=out)
    assert returned is out
    np.testing.assert_array_equal(out, compiled.project(p.volume, p.matrices, p.frequencies, p.radius))


def test_nan_of_the_volume_shows(compiled: Backend) -> None:
    p = SliceProblem.create(16, 8.0)
    inside = 2.0 * np.linalg.norm(p.frequencies, axis=1) < p.radius
    p.volume[:] = np.nan
    found = compiled.project(p.volume, p.matrices, p.frequencies, p.radius)
    assert np.isnan(found[:, inside]).all()
    assert (found[:, ~inside] == 0).all()


def test_samples_at_nan_or_infinite_points_are_outside(compiled: Backend) -> None:
    p = SliceProblem.create(16, 8.0, n=2)
    p.matrices[0] = np.nan
    p.matrices[1] = np.inf
    assert (compiled.project(p.volume, p.matrices, p.frequencies, p.radius) == 0).all()
