"""Memory of alignments is planned."""

from __future__ import annotations

import pytest

from tiltwise.errors import ResourceError
from tiltwise.maps.cross_fit import bytes_of_folds
from tiltwise.motion.memory import COPIES, PROGRAM, plan_align

BOX, TABLE, IMAGE = 64, 10_000, 60_000
IMAGES = [4000, 3000]
CORRELATIONS = TABLE * (7000 + COPIES * 4000)


def with_room_for(folds: int, rest: int = 0) -> float:
    """GB that hold these folds and `rest` bytes more."""
    return (PROGRAM + CORRELATIONS + bytes_of_folds(BOX, folds) + rest) / 1e9


def test_folds_and_images_as_many_as_fit() -> None:
    plan = plan_align(with_room_for(3, 1000), BOX, 5, IMAGES, TABLE, IMAGE, 1)
    assert (plan.folds, plan.correlations) == (3, CORRELATIONS)
    assert 0 <= plan.images <= 1010
    assert plan_align(9.0, BOX, 5, IMAGES, TABLE, IMAGE, 4).correlations == CORRELATIONS + TABLE * COPIES * 3000
    plenty = plan_align(64.0, BOX, 5, IMAGES, TABLE, IMAGE, 1)
    assert (plenty.folds, plenty.images) == (5, 7000 * IMAGE)
    used = PROGRAM + plenty.references + plenty.correlations + plenty.images
    assert f"at most {used / 1e9:.1f} GB of 64.0 GB" in str(plenty)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ResourceError, match="--memory") as caught:
        plan_align(with_room_for(2, -1000), BOX, 5, IMAGES, TABLE, IMAGE, 1)
    assert f"at least {with_room_for(2):.1f} GB" in str(caught.value)
    # without cross-fitted references one set of sums does
    assert plan_align(with_room_for(1, 1000), BOX, 1, IMAGES, TABLE, IMAGE, 1).folds == 1


def test_without_a_limit_half_of_what_is_free_is_taken() -> None:
    assert plan_align(None, 16, 5, [10], 100, 100, 1).limit > 0
