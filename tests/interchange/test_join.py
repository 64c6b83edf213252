"""Views are joined by what identifies them, and not at all where nothing does."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.errors import DataError
from tiltwise.interchange.join import acquisition_order, join_by_angle, join_by_key

TILTS = np.arange(-60.0, 61.0, 3.0)


def by_angle(views: np.ndarray, others: np.ndarray, **settings: bool) -> np.ndarray:
    return join_by_angle(views, others, views_where="a.tlt", others_where="b.txt", **settings)


def test_rows_in_any_order_with_views_left_out() -> None:
    random = np.random.default_rng(1)
    order = random.permutation(len(TILTS))
    others = TILTS[order] + random.uniform(-0.2, 0.2, len(TILTS))
    kept = np.delete(TILTS, [0, 7, 20])
    rows = by_angle(kept, others)
    np.testing.assert_array_equal(order[rows], np.delete(np.arange(len(TILTS)), [0, 7, 20]))


@pytest.mark.parametrize("shift", [-9.3, 0.4, 12.0])
def test_a_levelled_series_is_joined_if_told(shift: float) -> None:
    order = np.random.default_rng(2).permutation(len(TILTS))
    np.testing.assert_array_equal(order[by_angle(TILTS + shift, TILTS[order], offset=True)], np.arange(len(TILTS)))


def test_a_levelled_series_is_not_joined_unless_told() -> None:
    with pytest.raises(DataError, match="cannot be joined by angle"):
        by_angle(TILTS + 1.2, TILTS)


def test_a_whole_step_is_not_told_from_a_view_that_is_missing() -> None:
    with pytest.raises(DataError, match="cannot be joined by angle"):
        by_angle(TILTS[1:] + 3.0 + 1.3, TILTS, offset=True)


def test_two_views_at_one_angle_are_refused() -> None:
    with pytest.raises(DataError, match="same angle"):
        by_angle(TILTS, np.append(TILTS, 0.02))
    with pytest.raises(DataError, match="same angle"):
        by_angle(np.array([0.0, 0.01]), np.array([0.0, 3.0]))


def test_more_views_than_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"40 rows in b\.txt"):
        by_angle(TILTS, TILTS[1:])


def test_keys() -> None:
    rows = join_by_key([3, 1], [1, 2, 3], views_where="a", others_where="b", what="section")
    np.testing.assert_array_equal(rows, [2, 0])
    with pytest.raises(DataError, match="1 of 2 missing, first 9"):
        join_by_key([3, 9], [1, 2, 3], views_where="a", others_where="b", what="section")
    with pytest.raises(DataError, match="1 in rows 1 and 3"):
        join_by_key([1], [1, 2, 1], views_where="a", others_where="b", what="section")


def test_order_from_dose() -> None:
    np.testing.assert_array_equal(acquisition_order([6.0, 0.0, 3.0]), [2, 0, 1])
    with pytest.raises(DataError, match="order of acquisition"):
        acquisition_order([0.0, 0.0, 3.0])
