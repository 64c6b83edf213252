"""Changing columns of a STAR block so that every value that did not change keeps its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.star import StarBlock
from tiltwise.io.star_text import format_number, format_vector, quote


def update_floats(
    block: StarBlock,
    label: str,
    new: NDArray[np.float64],
    old: NDArray[np.float64] | None,
    default: float | None = None,
) -> None:
    """Set a column of numbers `(rows,)`, rewriting only rows where `new` differs from `old` (None: all rows).

    A column that the block lacks is added if a value differs from `default`, what its absence means.
    """
    _update(block, label, new, None if old is None else new != old, format_number, default)


def update_integers(
    block: StarBlock, label: str, new: NDArray[np.int64], old: NDArray[np.int64] | None, default: int | None = None
) -> None:
    """As `update_floats`, for whole numbers."""
    _update(block, label, new, None if old is None else new != old, lambda value: str(int(value)), default)


def update_vectors(
    block: StarBlock,
    label: str,
    new: Sequence[NDArray[np.generic]],
    old: Sequence[NDArray[np.generic]] | None,
) -> None:
    """As `update_floats`, for one vector per row; a column that the block lacks is added if a vector is not empty."""
    if label not in block:
        if any(len(vector) for vector in new):
            block.set_vectors(label, new)
        return
    texts = block.columns[label]
    for row, vector in enumerate(new):
        if old is None or not np.array_equal(vector, old[row]):
            texts[row] = format_vector(vector)


def update_text(block: StarBlock, label: str, new: Sequence[str]) -> None:
    """Set a column of strings; values that are equal keep their quotes."""
    if label not in block:
        block.set_text(label, new)
        return
    old = block.text(label)
    block.columns[label] = [
        text if before == after else quote(after)
        for text, before, after in zip(block.columns[label], old, new, strict=True)
    ]


def set_any(block: StarBlock, label: str, values: Sequence[object] | NDArray[np.generic]) -> None:
    """Set a column from strings, vectors, whole numbers or numbers, by the type of its values."""
    items = list(values)
    if items and all(isinstance(item, str) for item in items):
        block.set_text(label, [str(item) for item in items])
    elif items and all(isinstance(item, list | tuple | np.ndarray) for item in items):
        block.set_vectors(label, [np.asarray(item) for item in items])
    elif items and all(isinstance(item, int | np.integer | np.bool_) for item in items):
        block.set_integers(label, np.asarray(items, np.int64))
    else:
        block.set_floats(label, np.asarray(items, np.float64))


def _update(
    block: StarBlock,
    label: str,
    new: NDArray[np.float64] | NDArray[np.int64],
    changed: NDArray[np.bool_] | None,
    text_of: Callable[[float], str],
    default: float | None,
) -> None:
    if label not in block:
        if default is None or (new != default).any():
            block.columns[label] = [text_of(value) for value in new]
        return
    if changed is None:
        changed = np.ones(len(new), np.bool_)
    texts = block.columns[label]
    for row in np.flatnonzero(changed):
        texts[row] = text_of(new[row])
