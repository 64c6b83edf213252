"""Point groups of the classes: each may have its own, the average of all has what they share.

A class whose group is larger than the shared one is a difference from the average *with its group*: the average of all
is not symmetric, and no symmetric difference from it makes a symmetric map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.symmetry import symmetry_matrices

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PointGroups:
    """Of K classes; junk has none."""

    kinds: tuple[F64, ...]
    """different groups (G, 3, 3): what all share first, then those that are larger"""
    kind_of: tuple[int, ...]
    """(K,) which of them a class has"""

    @classmethod
    def of(cls, names: Sequence[str]) -> PointGroups:
        """From one name for every class, see `symmetry_matrices`."""
        groups = {name: symmetry_matrices(name) for name in names}
        common = shared(list(groups.values()))
        # every group holds the common one: of as many operators it is the same
        larger = [name for name, group in groups.items() if len(group) > len(common)]
        kind_of = tuple(1 + larger.index(name) if name in larger else 0 for name in names)
        return cls((common, *(groups[name] for name in larger)), kind_of)

    @property
    def common(self) -> F64:
        """(G, 3, 3) what all classes share."""
        return self.kinds[0]

    def __getitem__(self, number: int) -> F64:
        """(G, 3, 3) of a class, from 0 on."""
        return self.kinds[self.kind_of[number]]

    def of_all(self) -> PointGroups:
        """One class of all particles."""
        return PointGroups((self.common,), (0,))

    @property
    def arrangements(self) -> int:
        """In how many ways the groups can be given to as many clusters of particles."""
        counts = np.bincount(self.kind_of)
        return factorial(len(self.kind_of)) // prod(factorial(int(count)) for count in counts)

    def orders(self) -> Iterator[list[int]]:
        """Every arrangement: the cluster that each class takes."""
        for kinds in _arranged(sorted(self.kind_of)):
            free = {kind: iter(np.flatnonzero(np.array(kinds) == kind).tolist()) for kind in set(kinds)}
            yield [next(free[kind]) for kind in self.kind_of]


def shared(groups: Sequence[F64]) -> F64:
    """(G, 3, 3) operators that are in all point groups, as the smallest has them; a group as well."""
    first, *others = sorted(groups, key=len)
    kept = np.ones(len(first), bool)
    for other in others:
        distance = np.abs(first[:, None] - other[None]).max(axis=(2, 3))
        kept &= distance.min(axis=1) < 1e-6
    return first[kept]


def _arranged(kinds: list[int]) -> Iterator[list[int]]:
    """Different orders of numbers some of which are the same."""
    if not kinds:
        yield []
    for kind in sorted(set(kinds)):
        rest = kinds.copy()
        rest.remove(kind)
        for tail in _arranged(rest):
            yield [kind, *tail]
