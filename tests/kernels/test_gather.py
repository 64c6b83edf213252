"""Gather insertion, compiled, against its oracle; laws that need no oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.compare import assert_close
from helpers.kernel_problems import complex_normal
from tiltwise.errors import ShapeError
from tiltwise.kernels.gather import gather_slices
from tiltwise.kernels.reference.gather import gather_slices as oracle

# Without the extension module `gather_slices` is the oracle itself.
pytest.importorskip("tiltwise._native", exc_type=ImportError)

SIZES = [2, 3, 8, 15, 16, 25, 32, 33]

# Both work in float64: coordinates up to 16 pixels are rounded in another order, 1.3e-15 measured at most.
TOLERANCE = 1e-14

Sums = tuple[NDArray[np.complex128], NDArray[np.float64]]


@dataclass
class Problem:
    """Slices, weights, rotations and limits in the dtypes of the contract."""

    slices: NDArray[np.complex64]
    weights: NDArray[np.float32]
    matrices: NDArray[np.float64]
    limits: NDArray[np.float64]

    @classmethod
    def create(cls, size: int, n: int = 6) -> Problem:
        """Random; the first slice reaches Nyquist, where rows and columns end."""
        rng = np.random.default_rng([size, n])
        shape = (n, size, size // 2 + 1)
        limits = rng.uniform(size / 4, size / 2, n)
        limits[:1] = size // 2
        matrices = Rotation.random(n, rng=rng).as_matrix() if n else np.zeros((0, 3, 3))
        return cls(complex_normal(rng, *shape), rng.random(shape).astype(np.float32), matrices, limits)

    @property
    def size(self) -> int:
        return int(self.slices.shape[1])

    def empty(self) -> Sums:
        shape = (self.size, self.size, self.size // 2 + 1)
        return np.zeros(shape, np.complex128), np.zeros(shape)

    def run(self, threads: int = 1) -> Sums:
        data, weight = self.empty()
        gather_slices(self.slices, self.weights, self.matrices, self.limits, data, weight, threads=threads)
        return data, weight

    def expected(self) -> Sums:
        data, weight = self.empty()
        oracle(self.slices, self.weights, self.matrices, self.limits, data, weight)
        return data, weight


@pytest.mark.parametrize("size", SIZES)
def test_matches_the_oracle(size: int) -> None:
    p = Problem.create(size)
    data, weight = p.run()
    expected_data, expected_weight = p.expected()
    assert np.count_nonzero(expected_weight)
    assert_close(data, expected_data, TOLERANCE)
    assert_close(weight, expected_weight, TOLERANCE)


@pytest.mark.parametrize("size", [24, 25])
def test_bytes_do_not_depend_on_threads(size: int) -> None:
    p = Problem.create(size)
    alone = p.run()
    for threads in (2, 3):
        for one, many in zip(alone, p.run(threads), strict=True):
            assert one.tobytes() == many.tobytes(), f"{threads} threads"


@pytest.mark.parametrize("size", [16, 17])
def test_slice_across_the_axis_is_the_central_plane(size: int) -> None:
    p = Problem.create(size, n=1)
    p.matrices[0] = np.eye(3)
    y, x = np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 2 + 1)
    near = np.hypot(y, x) <= p.limits[0]
    data, weight = p.run()
    np.testing.assert_array_equal(data[0], np.where(near, p.slices[0], 0))
    np.testing.assert_array_equal(weight[0], np.where(near, p.weights[0], 0))
    assert not data[1:].any()
    assert not weight[1:].any()


@pytest.mark.parametrize("size", [16, 17])
def test_slice_turned_half_way_is_read_through_its_mates(size: int) -> None:
    """V(-k) = conj V(k).  In the column x = 0 both mates are stored, each read where it lies."""
    p = Problem.create(size, n=1)
    p.matrices[0] = np.eye(3)
    data, weight = p.run()
    p.matrices[0] = np.diag([-1.0, -1.0, 1.0])
    turned, turned_weight = p.run()
    np.testing.assert_array_equal(turned[..., 1:], data[..., 1:].conj())
    np.testing.assert_array_equal(turned_weight[..., 1:], weight[..., 1:])
    mates = -np.arange(size) % size
    np.testing.assert_array_equal(turned[0, :, 0], data[0, mates, 0])


def test_adds_to_what_is_there() -> None:
    p = Problem.create(16)
    once, once_weight = p.run()
    start = complex_normal(np.random.default_rng(1), *once.shape).astype(np.complex128)
    data, weight = start.copy(), np.full(once_weight.shape, 2.0)
    gather_slices(p.slices, p.weights, p.matrices, p.limits, data, weight)
    assert_close(data - start, once, TOLERANCE)
    assert_close(weight - 2.0, once_weight, TOLERANCE)


def test_no_slices_add_nothing() -> None:
    data, weight = Problem.create(8, n=0).run()
    assert not data.any()
    assert not weight.any()


def test_weights_of_zero_leave_the_data_as_they_are() -> None:
    """Data come weighted already; weights are summed beside them."""
    p = Problem.create(16)
    with_weights, _ = p.run()
    p.weights[:] = 0
    data, weight = p.run()
    assert with_weights.any()
    assert data.tobytes() == with_weights.tobytes()
    assert not weight.any()


@pytest.mark.parametrize("size", [16, 17])
def test_nan_shows_where_the_oracle_has_it(size: int) -> None:
    p = Problem.create(size)
    p.slices[1, 2, 3] = np.nan
    data, weight = p.run()
    expected, expected_weight = p.expected()
    reached = np.isnan(expected)
    assert 0 < reached.sum() < reached.size / 2
    np.testing.assert_array_equal(np.isnan(data), reached)
    assert_close(data[~reached], expected[~reached], TOLERANCE)
    assert_close(weight, expected_weight, TOLERANCE)


def test_nan_weights_show_in_the_weights_alone() -> None:
    p = Problem.create(16)
    expected_data, _ = p.run()
    p.weights[1, 2, 3] = np.nan
    data, weight = p.run()
    _, expected = p.expected()
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(np.isnan(weight), np.isnan(expected))
    assert data.tobytes() == expected_data.tobytes()


OTHER_DTYPE = {"complex64": "complex128", "complex128": "complex64", "float32": "float64", "float64": "float32"}


@pytest.mark.parametrize("name", ["slices", "weights", "matrices", "limits", "data", "weight"])
def test_foolish_arrays_are_refused_by_name(name: str) -> None:
    p = Problem.create(8)
    data, weight = p.empty()
    good = {**vars(p), "data": data, "weight": weight}
    array = good[name]
    for wrong, error, problem in (
        (array.astype(OTHER_DTYPE[array.dtype.name]), TypeError, "has the wrong dtype"),
        (array[..., None].copy(), ShapeError, "has the wrong shape"),
        (np.repeat(array, 2, axis=-1)[..., ::2], ShapeError, "is not laid out"),
    ):
        with pytest.raises(error, match=rf"argument '{name}' {problem}[\s\S]*kernel gather"):
            gather_slices(**{**good, name: wrong})
    assert not data.any()
    assert not weight.any()
