"""The units of one E-step, from where an earlier run left it, and their sums in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tiltwise.em.kept_sums import KeptSums
from tiltwise.em.step import PADDING
from tiltwise.em.units import Key, RunningSums, Unit, UnitSums
from tiltwise.errors import Aborted
from tiltwise.maps.volumes import Accumulator


def units_left(units: Sequence[Unit], sums: dict[Key, RunningSums]) -> list[Unit]:
    """Those that are not in the running sums: of every half set and fold all but the first ones."""
    done = {key: part.done for key, part in sums.items()}
    left = []
    for unit in units:
        if done.get(unit.key, 0):
            done[unit.key] -= 1
        else:
            left.append(unit)
    return left


def add_units(
    left: Sequence[Unit], sums: dict[Key, RunningSums], box: int, results: Iterable[UnitSums], kept: KeptSums
) -> dict[Key, RunningSums]:
    """Running sums with `results`, those of all units left, added in their order; sorted."""
    try:
        for unit, found in zip(left, results, strict=True):
            if unit.key not in sums:
                sums[unit.key] = RunningSums(Accumulator.empty(box, PADDING))
            sums[unit.key].add(unit, found)
            kept.keep(sums)
    except Aborted:
        kept.keep(sums, now=True)
        raise
    return dict(sorted(sums.items()))
