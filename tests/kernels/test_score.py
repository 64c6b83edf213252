"""Cross and quadratic terms of the expanded likelihood (Eq. 4)."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.compare import EPS32, assert_close
from helpers.kernel_problems import ScoreProblem
from tiltwise.errors import ShapeError
from tiltwise.kernels.api import Backend

# one, odd and prime extents; more shifts than a panel, components than a tile, rotations than a block
EXTENTS = [(1, 1, 1), (2, 3, 5), (7, 5, 131), (13, 4, 801), (6, 125, 33), (25, 2, 64)]


@pytest.mark.parametrize(("rotations", "shifts", "k"), EXTENTS)
def test_matches_the_oracle(compiled: Backend, oracle: Backend, rotations: int, shifts: int, k: int) -> None:
    p = ScoreProblem.create(rotations, shifts, k)
    cross, quadratic = compiled.score(p.slices, p.image, p.power, p.phases)
    expected_cross, expected_quadratic = oracle.score(p.slices, p.image, p.power, p.phases)
    assert cross.dtype == quadratic.dtype == np.float32
    # A sum of k random terms is sqrt(k) large; its rounding error grows likewise, times the depth of a
    # float32 partial sum (about sqrt(1000) at most).  The norm is that of the terms, not of a sum that
    # happens to cancel.
    tolerance = 32 * EPS32
    scale = np.linalg.norm(p.slices, axis=1)[:, None] * np.linalg.norm(p.image)
    assert_close(cross / scale + 1.0, expected_cross / scale + 1.0, tolerance)
    assert_close(quadratic, expected_quadratic, tolerance)


@pytest.mark.parametrize(("rotations", "shifts", "k"), EXTENTS)
def test_rough_scores_round_factors_to_eight_bits(
    compiled: Backend, oracle: Backend, rotations: int, shifts: int, k: int
) -> None:
    p = ScoreProblem.create(rotations, shifts, k)
    cross, quadratic = compiled.score(p.slices, p.image, p.power, p.phases, rough=True)
    expected, expected_quadratic = oracle.score(p.slices, p.image, p.power, p.phases)
    assert cross.dtype == quadratic.dtype == np.float32
    # A factor is off by 2^-8 at most, a product by little more than 2^-7, plus float32 sums; all of one sign at worst.
    parts = np.abs(p.slices.view(np.float32)), np.abs((p.image * p.phases).view(np.float32))
    absolute = parts[0].astype(np.float64) @ parts[1].T.astype(np.float64)
    error = np.abs(cross - expected)
    if not (error <= (2.0**-7 + 2.0**-14) * absolute).all():
        pytest.fail(f"error {(error / absolute).max():.1e} of the absolute terms")
    assert_close(quadratic, expected_quadratic, 32 * EPS32)
    # Errors of k terms are independent.  A factor's is uniform, its variance 2^-16 / 3 at most: the largest of these
    # few sums lies within six standard deviations.
    squares = parts[0].astype(np.float64) ** 2 @ parts[1].T.astype(np.float64) ** 2
    assert (error <= 6.0 * (2.0**-8 * np.sqrt(2.0 / 3.0) + 8 * EPS32) * np.sqrt(squares)).all()
    if compiled.name == "simd-v4-bf16":
        assert error.max() > 32 * EPS32 * absolute.max() or k == 1, "nothing was rounded"
    else:
        np.testing.assert_array_equal(cross, compiled.score(p.slices, p.image, p.power, p.phases)[0])


@pytest.mark.parametrize(("rotations", "shifts", "k"), EXTENTS)
def test_lists_choose_slices_and_phases(backend: Backend, rotations: int, shifts: int, k: int) -> None:
    p = ScoreProblem.create(rotations, shifts, k)
    rng = np.random.default_rng(rotations)
    rows = rng.integers(0, rotations, rotations + 2).astype(np.int32)
    columns = rng.integers(0, shifts, shifts // 2 + 1).astype(np.int32)
    full_cross, full_quadratic = backend.score(p.slices, p.image, p.power, p.phases)
    cross, quadratic = backend.score(p.slices, p.image, p.power, p.phases, rows, columns)
    # blocks differ, and with them the order of sums
    scale = np.linalg.norm(p.slices, axis=1)[rows, None] * np.linalg.norm(p.image)
    assert_close(cross / scale + 1.0, full_cross[np.ix_(rows, columns)] / scale + 1.0, 32 * EPS32)
    assert_close(quadratic, full_quadratic[rows], 32 * EPS32)
    only_rows, _ = backend.score(p.slices, p.image, p.power, p.phases, rows)
    assert only_rows.shape == (rotations + 2, shifts)
    none, nothing = backend.score(p.slices, p.image, p.power, p.phases, rows[:0], columns)
    assert none.shape == (0, len(columns))
    assert nothing.shape == (0,)


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize(("rotations", "shifts", "k"), [*EXTENTS, (500, 130, 20)])
def test_what_is_not_wanted_is_minus_infinity(
    backend: Backend, rotations: int, shifts: int, k: int, rough: bool
) -> None:
    p = ScoreProblem.create(rotations, shifts, k)
    rng = np.random.default_rng(rotations)
    full_cross, full_quadratic = backend.score(p.slices, p.image, p.power, p.phases, rough=rough)
    # few cells, all, none; whole rows and columns without any
    for share in (0.05, 1.0, 0.0):
        wanted = rng.uniform(size=(rotations, shifts)) < share
        cross, quadratic = backend.score(p.slices, p.image, p.power, p.phases, wanted=wanted, rough=rough)
        assert (cross[~wanted] == -np.inf).all()
        np.testing.assert_array_equal(cross[wanted], full_cross[wanted])  # the order of a sum is the same
        np.testing.assert_array_equal(quadratic, full_quadratic)
    rows, columns = np.arange(rotations)[::2].astype(np.int32), np.arange(shifts)[::-1].astype(np.int32)
    wanted = rng.uniform(size=(len(rows), len(columns))) < 0.5
    cross, _ = backend.score(p.slices, p.image, p.power, p.phases, rows, columns, wanted=wanted, rough=rough)
    np.testing.assert_array_equal(cross[wanted], full_cross[np.ix_(rows, columns)][wanted])
    assert (cross[~wanted] == -np.inf).all()


def test_lists_may_not_reach_beyond(compiled: Backend) -> None:
    p = ScoreProblem.create(4, 3, 10)
    for name, wrong in (("rows", [0, 4]), ("rows", [-1]), ("columns", [3])):
        with pytest.raises(ShapeError, match=f"argument '{name}' names an element that is not there"):
            compiled.score(p.slices, p.image, p.power, p.phases, **{name: np.array(wrong, np.int32)})


@pytest.mark.parametrize(("rotations", "shifts", "k"), [(0, 3, 4), (3, 0, 4), (3, 2, 0)])
def test_empty(backend: Backend, rotations: int, shifts: int, k: int) -> None:
    p = ScoreProblem.create(rotations, shifts, k)
    cross, quadratic = backend.score(p.slices, p.image, p.power, p.phases)
    assert cross.shape == (rotations, shifts)
    assert quadratic.shape == (rotations,)
    assert not cross.any()
    if shifts > 0:
        assert not quadratic.any()
    else:
        assert (quadratic > 0).all()


def test_expands_the_weighted_residual(backend: Backend) -> None:
    # With Y = C X / s2 and B = C^2 / s2:  sum |X - C V|^2 / s2 = sum |X|^2 / s2 - 2 cross + quadratic.
    rng = np.random.default_rng(5)
    p = ScoreProblem.create(3, 1, 200)
    ctf, variance = rng.uniform(-1, 1, 200), rng.uniform(0.5, 2, 200)
    data = p.image.astype(np.complex128)
    image = (ctf * data / variance).astype(np.complex64)
    power = (ctf**2 / variance).astype(np.float32)
    cross, quadratic = backend.score(p.slices, image, power, np.ones((1, 200), np.complex64))
    residual = (np.abs(data - ctf * p.slices) ** 2 / variance).sum(axis=1)
    constant = (np.abs(data) ** 2 / variance).sum()
    assert_close(constant - 2.0 * cross[:, 0] + quadratic, residual, 16 * EPS32)  # four float32 inputs and sums


@pytest.mark.parametrize("rough", [False, True])
def test_nan_shows_where_it_is(backend: Backend, rough: bool) -> None:
    p = ScoreProblem.create(9, 5, 70)
    p.slices[4, 11] = np.nan
    p.phases[2, 3] = np.nan
    cross, quadratic = backend.score(p.slices, p.image, p.power, p.phases, rough=rough)
    expected = np.zeros((9, 5), bool)
    expected[4], expected[:, 2] = True, True
    np.testing.assert_array_equal(np.isnan(cross), expected)
    np.testing.assert_array_equal(np.isnan(quadratic), np.arange(9) == 4)
