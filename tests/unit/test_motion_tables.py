"""Correlation tables against the sum over Fourier components written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.kernels.select import load_backend
from tiltwise.motion.objective import Evidence
from tiltwise.motion.shifts import shared_shifts
from tiltwise.motion.tables import TableGrid, information
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.phases import phase_ramps

BOX, RADIUS, REACH = 48, 16.0, 6.0
DISC = FourierDisc.create(BOX)
BACKEND = load_backend()
F32, F64 = NDArray[np.float32], NDArray[np.float64]


def products(rng: np.random.Generator, n: int, count: int) -> NDArray[np.complex64]:
    """conj(P) X of n images, stronger at low frequencies."""
    fall = np.exp(-(DISC.shells[:count] ** 2) / 60.0)
    return np.ascontiguousarray((rng.normal(size=(2, n, count)).T @ [1.0, 1j]).T * fall, np.complex64)


def tabulated(grid: TableGrid, model: NDArray[np.complex64], image: NDArray[np.complex64]) -> tuple[F32, F64]:
    """Tables (n, S, S) and moments, of sums over the full plane."""
    n, count = model.shape
    weights, rows = np.full((1, count), 2.0, np.float32), np.zeros(n, np.int32)
    powers, image = np.ones((n, count), np.float32), image.astype(np.complex64)
    return BACKEND.cc_table(model, image, powers, weights, rows, grid.frequencies, grid.cosines, grid.sines)


def tables_of(grid: TableGrid, z: NDArray[np.complex64]) -> F32:
    """Tables of products conj(P) X."""
    return tabulated(grid, np.ones_like(z), z)[0]


def interpolate(tables: F32, grid: TableGrid, shifts: F64) -> tuple[F64, F64]:
    """One table per shift."""
    return grid.interpolate(BACKEND, tables, np.arange(len(shifts), dtype=np.int32), shifts)


def direct(z: NDArray[np.complex64], shift: NDArray[np.float64]) -> float:
    k = DISC.frequencies[: len(z)].astype(np.float64)
    return float(2.0 * (z * np.exp(2j * np.pi * (k @ shift) / BOX)).real.sum())


def test_values_are_the_sum_over_the_full_plane() -> None:
    rng = np.random.default_rng(1)
    grid = TableGrid.create(DISC, RADIUS, REACH)
    z = products(rng, 5, grid.count)
    tables = tables_of(grid, z)
    scale = np.abs(z).sum(axis=1) * 2.0
    for shift in rng.uniform(-0.8 * REACH, 0.8 * REACH, (20, 2)):
        found, _ = interpolate(tables, grid, np.tile(shift, (5, 1)))
        expected = np.array([direct(one, shift) for one in z])
        assert np.abs(found - expected).max() <= 3e-3 * scale.max()
    found, _ = interpolate(tables, grid, np.zeros((5, 2)))
    assert np.abs(found - [direct(one, np.zeros(2)) for one in z]).max() <= 1e-5 * scale.max()


def test_gradient_is_that_of_the_interpolated_function() -> None:
    rng = np.random.default_rng(2)
    grid = TableGrid.create(DISC, RADIUS, REACH)
    tables = tables_of(grid, products(rng, 50, grid.count))
    at = rng.uniform(-REACH, REACH, (50, 2))
    _, gradient = interpolate(tables, grid, at)
    h = 1e-4
    for axis in (0, 1):
        step = h * np.eye(2)[axis]
        change = (interpolate(tables, grid, at + step)[0] - interpolate(tables, grid, at - step)[0]) / (2 * h)
        assert np.abs(change - gradient[:, axis]).max() <= 1e-6 * np.abs(gradient).max()


def test_maximum_lies_at_the_planted_shift() -> None:
    rng = np.random.default_rng(3)
    grid = TableGrid.create(DISC, RADIUS, REACH)
    model = products(rng, 1, grid.count)
    planted = np.array([3.0, -1.5])
    image = model * phase_ramps(DISC.frequencies[: grid.count], planted[None] * 2 * np.pi / BOX).conj()
    tables, _ = tabulated(grid, model, image)
    fine = np.stack(np.meshgrid(*2 * [np.linspace(-4, 4, 161)]), axis=-1).reshape(-1, 2)
    values, _ = grid.interpolate(BACKEND, tables, np.zeros(len(fine), np.int32), fine)
    assert np.abs(fine[int(np.argmax(values))] - planted).max() <= 0.05


def test_nothing_is_known_outside() -> None:
    grid = TableGrid.create(DISC, RADIUS, REACH)
    tables = tables_of(grid, products(np.random.default_rng(4), 3, grid.count))
    at = np.array([[1e3, 0.0], [0.0, -1e9], [np.nan, 0.0]])
    values, gradient = interpolate(tables, grid, at)
    assert not values.any()
    assert not gradient.any()


def test_information_is_the_curvature_without_noise() -> None:
    rng = np.random.default_rng(5)
    grid = TableGrid.create(DISC, RADIUS, REACH)
    model = products(rng, 1, grid.count)
    tables, moments = tabulated(grid, model, model)
    expected = information(moments, BOX)[0]
    h = 0.05
    hessian = np.stack(
        [
            (interpolate(tables, grid, h * np.eye(2)[[a]])[1] - interpolate(tables, grid, -h * np.eye(2)[[a]])[1])[0]
            / (2 * h)
            for a in (0, 1)
        ]
    )
    assert np.abs(hessian + expected).max() <= 0.06 * np.abs(expected).max()  # of splines, at 3.5 points per cycle


def evidence_of(shift: NDArray[np.float64], noise: float) -> Evidence:
    """Twelve particles in two tilts, the first shifted, the second seen by none of them."""
    rng = np.random.default_rng(6)
    grid = TableGrid.create(DISC, RADIUS, REACH)
    model = products(rng, 12, grid.count)
    ramp = phase_ramps(DISC.frequencies[: grid.count], shift[None] * 2 * np.pi / BOX).conj()
    image = model * ramp + noise * products(rng, 12, grid.count)
    tables, moments = tabulated(grid, model, image)
    return Evidence(grid, tables, information(moments, BOX), np.ones(12), np.arange(12), np.zeros(12, np.intp), 2.0)


def test_shifts_that_particles_share() -> None:
    found = shared_shifts(evidence_of(np.array([2.2, -3.1]), 3.0), 2)
    grid = TableGrid.create(DISC, RADIUS, REACH)
    assert np.abs(found.shift_px[0] - 2.0 * np.array([2.2, -3.1])).max() <= 1.2 * grid.step_px * 2.0
    assert found.unseen.tolist() == [False, True]
    assert not found.clipped.any()
    assert not found.shift_px[1].any()


def test_shifts_that_particles_share_from_where_they_are() -> None:
    evidence = evidence_of(np.array([2.2, -3.1]), 3.0)
    here = np.zeros((12, 2, 2))
    here[:, 0] = [3.0, -4.0]
    found = shared_shifts(evidence, 2, here)
    grid = TableGrid.create(DISC, RADIUS, REACH)
    assert np.abs(here[0, 0] + found.shift_px[0] - 2.0 * np.array([2.2, -3.1])).max() <= 1.7 * grid.step_px * 2.0
    again = shared_shifts(evidence, 2, here + found.shift_px)
    assert not again.shift_px.any()


def test_a_shift_beyond_the_tables_is_reported() -> None:
    found = shared_shifts(evidence_of(np.array([REACH * 1.35, 0.0]), 0.0), 2)
    assert found.clipped[0]


@pytest.mark.parametrize("reach", [0.5, 3.0, 12.0])
def test_tables_are_as_large_as_asked(reach: float) -> None:
    grid = TableGrid.create(DISC, RADIUS, reach)
    assert grid.reach_px >= reach
    assert grid.reach_px <= reach + 4 * grid.step_px
