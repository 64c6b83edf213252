"""Whether new CTFs are better, judged by particles that had no part in finding them.

CTFs are fitted to one half set, predicted by references of that half, and scored on the other half with its own
references, and conversely.  Their gain in log-likelihood over the present CTFs must exceed what chance allows: one
standard deviation is the larger of two, that of the gains of blocks of particles, and that of the gain of a change
which means nothing, whose two directions are the same comparison and not independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Word = Literal["improved", "unchanged", "worse"]
LEVEL = 0.05
"""Probability of accepting anything in a series where nothing is to be gained, over all families of parameters."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one family of parameters in one series."""

    verdict: Word
    gain: float
    """log-likelihood that held-out particles gain"""
    limit: float
    """what it must exceed"""

    @property
    def improved(self) -> bool:
        """Is it to be applied?"""
        return self.verdict == "improved"


def judge(gains: NDArray[np.float64], information: float, families: int) -> Verdict:
    """From the gains (B,) of held-out blocks of particles.

    `information` is the squared length of the change in units of its standard deviation, as the held-out particles
    measure it, summed over both directions: noise alone gives the gain this variance (twice, because the directions
    share their noise) and a mean of minus half of it.
    """
    total = float(gains.sum())
    level = LEVEL / max(families, 1)
    chance = -float(ndtri(level)) * np.sqrt(2.0 * max(information, 0.0))
    count = len(gains)
    if count > 2:
        spread = float(np.std(gains, ddof=1)) * np.sqrt(count)
        chance = max(chance, -float(stdtrit(count - 1, level)) * spread)
    if not np.isfinite(total) or information <= 0:
        return Verdict("unchanged", 0.0, chance)
    if total > chance:
        return Verdict("improved", total, chance)
    # A fit to noise loses half of the information; against present CTFs that were fitted to these very particles, too,
    # as after an earlier refinement, it loses one and a half.
    return Verdict("worse" if total < -1.5 * information - chance else "unchanged", total, chance)
