"""Half sets of particles: kept from the file, or drawn at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.model import Particles


def assign_half_sets(particles: Particles, split: str, seed: int) -> NDArray[np.int64]:
    """(P,) 1 or 2.

    `split`: `keep` those of the file, `random` halves of equal size (to one particle), or `auto`: keep
    if all particles have one, else random.

    Raises
    ------
    DataError
        if half sets are to be kept and some particles have none, or a half is empty.
    """
    known = particles.half_set > 0
    if split == "keep" and not known.all():
        raise DataError(
            "particles without half set",
            where="rlnRandomSubset",
            expected="1 or 2 for every particle",
            found=f"none for {int((~known).sum())} of {len(particles)}",
            fix="--split random draws new half sets",
        )
    if split == "keep" or (split == "auto" and known.all()):
        halves = particles.half_set
    else:
        order = np.random.default_rng(seed).permutation(len(particles))
        halves = np.empty(len(particles), np.int64)
        halves[order] = 1 + np.arange(len(particles)) % 2
    if not ((halves == 1).any() and (halves == 2).any()):
        raise DataError(
            "a half set is empty",
            where="rlnRandomSubset",
            expected="particles in both halves",
            found=f"{int((halves == 1).sum())} and {int((halves == 2).sum())} of {len(particles)}",
            fix="--split random draws new half sets; two particles are the least",
        )
    return np.asarray(halves)
