"""Copies of one particle: of those closer to each other than a distance the best is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.selection.neighbours import F64, Pairs, Rows


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which particles go because a better one is close."""

    kept: NDArray[np.bool_]
    """(P,)"""
    instead: Rows
    """(P,) the particle that is kept in place of one that is not; -1 for others"""


def best_of_close(pairs: Pairs, rows: Rows, score: F64, source: NDArray[np.intp]) -> Duplicates:
    """Goes through `rows` from the best score to the worst: what is still there drives out all that is close.

    Every particle that is left out is thus close to one that is kept, and no two of those kept are close.

    Parameters
    ----------
    pairs
        close particles, either one first.
    score
        (P,) the larger the better; the first in the file wins of equal ones.
    source
        (P,) number of the particle that it is a symmetry mate of: mates of one are no copies of each other.
    """
    kept, instead = np.zeros(len(score), bool), np.full(len(score), -1, np.intp)
    kept[rows] = True
    real = source[pairs.first] != source[pairs.second]
    order = np.argsort(pairs.first[real], kind="stable")
    first, second = pairs.first[real][order], pairs.second[real][order]
    for row in rows[np.argsort(-score[rows], kind="stable")]:
        if not kept[row]:
            continue
        close = second[slice(*np.searchsorted(first, [row, row + 1]))]
        close = close[kept[close]]
        kept[close], instead[close] = False, row
    return Duplicates(kept, instead)
