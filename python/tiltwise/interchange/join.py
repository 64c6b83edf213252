"""Which view of one file is which view of another: by acquisition or by angle, never by row.

Programs leave views out, sort them by angle or by time, and write one file for all views and another for those that
are kept.  Rows that happen to agree in number are no evidence.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiltwise.errors import DataError

TOLERANCE_DEG = 0.6
"""How far two programs may differ in the angle of one view.  Stages repeat to 0.1 degrees and headers round to whole
degrees; schemes have steps of 1 degree or more, and nearer candidates are refused as ambiguous."""


def join_by_key(
    views: Sequence[Hashable], others: Sequence[Hashable], *, views_where: str, others_where: str, what: str
) -> NDArray[np.intp]:
    """Row in `others` of every one of `views`, `(F,)`, by equal keys (acquisition number, file name, section).

    Raises
    ------
    DataError
        if a key of `others` occurs twice, or one of `views` does not occur.
    """
    row_of: dict[Hashable, int] = {}
    for row, key in enumerate(others):
        if key in row_of:
            raise DataError(
                f"two rows have the same {what}",
                where=others_where,
                expected=f"one row per {what}",
                found=f"{key} in rows {row_of[key] + 1} and {row + 1}",
                fix="take one of the two rows out",
            )
        row_of[key] = row
    missing = [key for key in views if key not in row_of]
    if missing:
        raise DataError(
            f"views cannot be joined by {what}",
            where=f"{views_where} and {others_where}",
            expected=f"every {what} of {views_where} in {others_where}",
            found=f"{len(missing)} of {len(views)} missing, first {missing[0]}",
            fix="give the files of one and the same tilt series",
        )
    return np.array([row_of[key] for key in views], np.intp)


def join_by_angle(
    views_deg: ArrayLike,
    others_deg: ArrayLike,
    *,
    views_where: str,
    others_where: str,
    tolerance_deg: float = TOLERANCE_DEG,
    offset: bool = False,
) -> NDArray[np.intp]:
    """Row in `others_deg` of every angle of `views_deg`, `(F,)`: the nearest angle, each used once.

    Parameters
    ----------
    views_deg, others_deg
        `(F,)` and `(G,)` degrees, G >= F, in any order.
    tolerance_deg
        largest difference that counts as the same view.
    offset
        whether all angles of one file may be shifted against the other by one constant, as alignment programs do
        that level the specimen.  It is found where both files have as many views; otherwise it must be smaller than
        half of the smallest step, because a whole step cannot be told from a view that was left out.

    Raises
    ------
    DataError
        if a view has no partner, or two.
    """
    views, others = np.asarray(views_deg, np.float64), np.asarray(others_deg, np.float64)
    where = f"{views_where} and {others_where}"
    if not (np.isfinite(views).all() and np.isfinite(others).all()):
        raise DataError("tilt angles are not finite numbers", where=where, fix="correct the angles in this file")
    if len(views) > len(others):
        raise DataError(
            "views cannot be joined by angle",
            where=where,
            expected=f"at least {len(views)} rows, one for every view of {views_where}",
            found=f"{len(others)} rows in {others_where}",
            fix="give the file with all views",
        )
    shift = _offset(views, others, tolerance_deg) if offset else 0.0
    distance = np.abs(views[:, None] - shift - others[None, :])
    nearest = np.argmin(distance, axis=1)
    best = distance[np.arange(len(views)), nearest]
    if not (best <= tolerance_deg).all():
        row = int(np.argmax(best))
        raise DataError(
            "views cannot be joined by angle",
            where=where,
            expected=f"an angle within {tolerance_deg:g} degrees of {views[row]:g}",
            found=f"{others[nearest[row]]:g} as the nearest in {others_where}",
            fix="give the files of one and the same tilt series",
        )
    # A second candidate that is as near as the tolerance leaves no right to choose.
    second = np.partition(distance, 1, axis=1)[:, 1] if len(others) > 1 else np.full(len(views), np.inf)
    ambiguous = second <= np.maximum(2.0 * best, 0.05)
    if ambiguous.any() or len(np.unique(nearest)) != len(nearest):
        rows = np.flatnonzero(ambiguous)
        row = int(rows[0]) if len(rows) else int(np.flatnonzero(np.bincount(nearest)[nearest] > 1)[0])
        raise DataError(
            "several views have the same angle",
            where=where,
            expected="angles that tell views apart, or files that carry the order of acquisition",
            found=f"{views[row]:g} degrees fits two rows of {others_where}",
            fix="join by acquisition: give the mdoc or an order list",
        )
    return np.asarray(nearest, np.intp)


def acquisition_order(pre_exposure: ArrayLike) -> NDArray[np.int64]:
    """(F,) 0-based rank of every view in time, from the dose before it.

    Raises
    ------
    DataError
        if two views have the same dose, which leaves their order open.
    """
    dose = np.asarray(pre_exposure, np.float64)
    if len(np.unique(dose)) != len(dose):
        raise DataError(
            "the order of acquisition is unknown",
            expected="a different dose before every view",
            found="views with the same dose",
            fix="give the dose per view and the order of acquisition",
        )
    rank = np.empty(len(dose), np.int64)
    rank[np.argsort(dose)] = np.arange(len(dose))
    return rank


def _offset(views: NDArray[np.float64], others: NDArray[np.float64], tolerance_deg: float) -> float:
    """Constant by which `views` are larger than `others`."""
    if len(views) == len(others):
        difference = np.sort(views) - np.sort(others)
        shift = float(np.median(difference))
        if np.abs(difference - shift).max() <= tolerance_deg:
            return shift
        return 0.0
    step = float(np.diff(np.unique(np.round(others, 3))).min()) if len(others) > 1 else np.inf
    nearest = np.argmin(np.abs(views[:, None] - others[None, :]), axis=1)
    shift = float(np.median(views - others[nearest]))
    return shift if abs(shift) < step / 2.0 else 0.0
