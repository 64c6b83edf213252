"""What the columns of a STAR table hold: numbers with their range, or text with its most frequent values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tiltwise.io.star_block import StarBlock

_MOST = 3
"""Most frequent values that are told."""


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """One column."""

    label: str
    kind: str
    """`number`, `whole`, `vector` or `text`"""
    rows: int
    distinct: int
    missing: int
    """values that are NaN or infinite"""
    low: float | None = None
    mean: float | None = None
    median: float | None = None
    high: float | None = None
    sigma: float | None = None
    common: tuple[tuple[str, int], ...] = ()
    """most frequent values and their numbers, of text and of few whole numbers"""

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "common": [list(pair) for pair in self.common]}


def column_stats(block: StarBlock, labels: Sequence[str] | None = None) -> list[ColumnStats]:
    """Statistics of columns, all of them by default.

    Raises
    ------
    FormatError
        if a column is missing.
    """
    return [_stats(label, block.text(label)) for label in (block.columns if labels is None else labels)]


def _stats(label: str, values: list[str]) -> ColumnStats:
    counts = Counter(values)
    try:
        numbers = np.array(list(map(float, values)))
    except ValueError:
        kind = "vector" if values and all(value.startswith("[") for value in values) else "text"
        common = tuple(counts.most_common(_MOST)) if kind == "text" else ()
        return ColumnStats(label, kind, len(values), len(counts), 0, common=common)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return ColumnStats(label, "number", len(values), len(counts), len(numbers))
    whole = all(value.lstrip("+-").isdigit() for value in counts)
    return ColumnStats(
        label,
        "whole" if whole else "number",
        len(values),
        len(counts),
        len(numbers) - len(finite),
        float(finite.min()),
        float(finite.mean()),
        float(np.median(finite)),
        float(finite.max()),
        float(finite.std()),
        tuple(counts.most_common(_MOST)) if whole and len(counts) <= 10 else (),
    )
