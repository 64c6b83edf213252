"""Value, gradient and curvature of the likelihood of single images (Eq. 4)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.compare import EPS32, assert_close, relative_l2
from helpers.kernel_problems import SliceProblem, complex_normal
from tiltwise.errors import ShapeError
from tiltwise.kernels.api import Backend

AXES = (2, 3)
"""Axes of shifts: of images and of 3D arrays."""
# odd and even volumes, radii inside and at the limit; fewer components than a vector, more than a batch
EXTENTS = [(9, 4.0, 1, 1), (14, 6.5, 3, 5), (19, 9.0, 5, 261), (16, 8.0, 9, 128)]


def computed(backend: Backend, p: SliceProblem, axes: int = 2) -> NDArray[np.float64]:
    """The kernel with the weights of the problem as powers; images in another order, displaced and too long."""
    n = len(p.matrices)
    order = np.random.default_rng(9).permutation(n)
    slopes = shifts(p, axes)
    back = np.exp(-1j * np.einsum("kj,nj->nk", p.frequencies[:, :axes].astype(np.float64), slopes.astype(np.float64)))
    images, powers = p.slices * back, p.weights
    images, powers = (np.pad(array, ((0, 0), (0, 3)), constant_values=np.nan) for array in (images, powers))
    return backend.curvature(
        p.volume,
        p.matrices,
        p.frequencies,
        p.radius,
        np.ascontiguousarray(images[order], np.complex64),
        np.ascontiguousarray(powers[order], np.float32),
        np.argsort(order).astype(np.int32),
        slopes,
    )


def columns_of(axes: int) -> int:
    """Numbers per item."""
    return 5 + axes + len(np.triu_indices(3 + axes)[0])


def shifts(p: SliceProblem, axes: int) -> NDArray[np.float32]:
    """(n, axes) slopes of images displaced by up to half of their width."""
    return np.random.default_rng(8).uniform(-np.pi, np.pi, (len(p.matrices), axes)).astype(np.float32)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("size", "radius", "n", "k"), EXTENTS)
def test_matches_the_oracle(
    compiled: Backend, oracle: Backend, size: int, radius: float, n: int, k: int, axes: int
) -> None:
    p = SliceProblem.create(size, radius, n, k)
    found, expected = computed(compiled, p, axes), computed(oracle, p, axes)
    assert found.shape == (n, columns_of(axes))
    assert found.dtype == np.float64
    # Coordinates and phases (tens of radians) are rounded at about their size, which moves samples: relative to the
    # terms that are summed, whose size is that of the diagonal of the information.
    for column in range(columns_of(axes)):
        scale = np.linalg.norm(expected[:, column]) + _scale(column, expected, 3 + axes)
        error = np.linalg.norm(found[:, column] - expected[:, column]) / max(scale, 1e-30)
        assert error <= 128 * EPS32, f"column {column}: {error:.2e}"


def _scale(column: int, expected: NDArray[np.float64], n: int) -> float:
    """Size of the terms of a column that may cancel: by Cauchy-Schwarz from the diagonal; of n parameters."""
    rows, columns = np.triu_indices(n)
    diagonal = np.sqrt(np.abs(expected[:, 2 + n + np.flatnonzero(rows == columns)]))
    if column in (0, 1):
        return float(np.linalg.norm(expected[:, 1]))
    if column < 2 + n:
        return float(np.linalg.norm(diagonal[:, column - 2] * np.sqrt(len(expected))))
    a, b = (index[column - 2 - n] for index in (rows, columns))
    return float(np.linalg.norm(diagonal[:, a] * diagonal[:, b]))


def smooth_problem(axes: int, seed: int = 3) -> tuple[SliceProblem, NDArray[np.complex64]]:
    """Frequencies in a plane, or with three axes of shifts anywhere; no sample near the radius."""
    p = SliceProblem.create(20, 10.0, 3, 200, seed)
    frequencies = p.frequencies.copy()
    frequencies[:, axes:] = 0.0
    length = np.linalg.norm(frequencies, axis=1)
    p.frequencies = np.ascontiguousarray(frequencies[np.abs(2 * length - p.radius) > 0.2])
    rng = np.random.default_rng(seed)
    k = len(p.frequencies)
    p.slices, p.weights = complex_normal(rng, 3, k), rng.random((3, k)).astype(np.float32)
    return p, p.slices


def moved_slices(oracle: Backend, p: SliceProblem, parameters: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Slices after a rotation about the axes of the image and a phase slope, five parameters or six."""
    turn = Rotation.from_rotvec(-parameters[:3]).as_matrix()
    matrices = p.matrices.astype(np.float64) @ turn
    slices = oracle.project(p.volume, matrices, p.frequencies, p.radius)  # float64 matrices: the oracle takes them
    return slices * np.exp(-1j * (p.frequencies[:, : len(parameters) - 3].astype(np.float64) @ parameters[3:]))


@pytest.mark.parametrize("axes", AXES)
def test_derivatives_are_those_of_moved_slices(oracle: Backend, axes: int) -> None:
    p, images = smooth_problem(axes)
    found = computed(oracle, p, axes)
    step = 1e-6
    units = np.eye(3 + axes) * step
    jacobian = np.stack(
        [(moved_slices(oracle, p, u) - moved_slices(oracle, p, -u)) / (2 * step) for u in units], axis=-1
    )
    value = moved_slices(oracle, p, np.zeros(3 + axes))
    residual = images - p.weights * value
    gradient = np.einsum("nka,nk->na", jacobian.conj(), residual).real
    information = np.einsum("nka,nk,nkb->nab", jacobian.conj(), p.weights, jacobian).real
    rows, columns = np.triu_indices(3 + axes)
    # Images are stored in single precision; a step may cross a plane of the grid, where the slope of one sample jumps.
    assert relative_l2(found[:, 2 : 5 + axes], gradient) <= 1e-4
    assert relative_l2(found[:, 5 + axes :], information[:, rows, columns]) <= 1e-4
    assert_close(found[:, 0], (value.conj() * images).real.sum(axis=1), 1e-6)
    assert_close(found[:, 1], (p.weights * np.abs(value) ** 2).sum(axis=1), 1e-12)


def test_agrees_with_score(backend: Backend) -> None:
    p = SliceProblem.create(16, 8.0, 4, 150)
    found = computed(backend, p)
    slices = backend.project(p.volume, p.matrices, p.frequencies, p.radius)
    for i in range(4):
        one = np.ones((1, p.slices.shape[1]), np.complex64)
        cross, quadratic = backend.score(
            np.ascontiguousarray(slices[i : i + 1], np.complex64), p.slices[i], p.weights[i], one
        )
        scale = np.linalg.norm(slices[i]) * np.linalg.norm(p.slices[i])
        assert abs(found[i, 0] - cross[0, 0]) <= 64 * EPS32 * scale
        assert_close(found[i, 1], quadratic[0], 32 * EPS32)


def test_samples_outside_do_not_count(backend: Backend) -> None:
    p = SliceProblem.create(16, 6.0, 3, 120)
    expected = computed(backend, p)
    points = np.einsum("nij,kj->nki", p.matrices.astype(np.float64), p.frequencies.astype(np.float64))
    outside = (points**2).sum(axis=-1) > p.radius**2
    assert outside.any()
    assert not outside.all()
    p.slices[outside] = np.nan
    p.weights[outside] = np.nan
    np.testing.assert_array_equal(computed(backend, p), expected)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("n", "k"), [(0, 4), (3, 0)])
def test_empty(backend: Backend, n: int, k: int, axes: int) -> None:
    p = SliceProblem.create(8, 4.0, n, k)
    found = computed(backend, p, axes)
    assert found.shape == (n, columns_of(axes))
    assert not found.any()


def test_nan_shows_where_it_is(backend: Backend) -> None:
    p = SliceProblem.create(16, 8.0, 4, 60)
    inside = np.flatnonzero(np.linalg.norm(p.frequencies, axis=1) < 3.0)
    p.slices[2, inside[0]] = np.nan
    np.testing.assert_array_equal(np.isnan(computed(backend, p)).any(axis=1), np.arange(4) == 2)


def test_rows_that_are_not_there_are_refused(compiled: Backend) -> None:
    p = SliceProblem.create(8, 4.0, 2, 10)
    slopes = np.zeros((2, 2), np.float32)
    for rows in ([0, 2], [-1, 0]):
        with pytest.raises(ShapeError, match="names an element that is not there"):
            compiled.curvature(
                p.volume,
                p.matrices,
                p.frequencies,
                p.radius,
                p.slices,
                p.weights,
                np.array(rows, np.int32),
                slopes,
            )
    with pytest.raises(ShapeError, match="fewer components"):
        compiled.curvature(
            p.volume,
            p.matrices,
            p.frequencies,
            p.radius,
            p.slices[:, :9].copy(),
            p.weights[:, :9].copy(),
            np.zeros(2, np.int32),
            slopes,
        )
