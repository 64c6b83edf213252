"""Maps of classes from sums of whole images: the average of all, and differences from it as in `differences`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.average import Average, added
from tiltwise.classes.differences import difference_prior, share_of_halves
from tiltwise.maps.volumes import PackedSums, solve_map

Map = NDArray[np.float32]


def less_average(part: PackedSums, total: PackedSums) -> PackedSums:
    """Sums of a class less what the average of all, `total`, would have put there: its weights times the average."""
    ratio = np.divide(part.weight, total.weight, out=np.zeros_like(part.weight), where=total.weight > 0)
    data = part.data - np.minimum(ratio, np.float32(1.0)) * total.data
    return replace(part, data=np.asarray(data, np.complex64))


def class_references(
    sums: Mapping[tuple[int, int], PackedSums],
    every: Mapping[tuple[int, int], PackedSums],
    kind_of: Sequence[int],
    half_of: NDArray[np.int64],
    sphere: Map,
    mask: Map,
    radius: float,
    tau2_fudge: float,
) -> tuple[dict[int, list[Map]], Average]:
    """Maps of the classes without every fold, and the average.

    `sums` are of folds and classes, and `every` of all classes together, of folds and kinds of symmetry; `kind_of` is
    that of every class, and 0 what all share.  Maps have nothing outside the `sphere` and differ inside the `mask`.
    """
    folds = sorted({fold for fold, _ in sums})
    of_kind = {kind: {fold: every[fold, kind] for fold in folds} for kind in {0, *kind_of}}
    averages = {kind: Average.of(parts, half_of, sphere, radius) for kind, parts in of_kind.items()}
    without = {kind: {fold: one.without(fold) for fold in folds} for kind, one in averages.items()}
    maps = {fold: [without[kind][fold] for kind in kind_of] for fold in folds}
    if len(kind_of) == 1:
        return maps, averages[0]
    halves = [[fold for fold in folds if half_of[fold] == half] for half in (1, 2)]
    for k, kind in enumerate(kind_of):
        parts, whole = {fold: sums[fold, k] for fold in folds}, of_kind[kind]
        first, second = (less_average(added(parts, half), added(whole, half)) for half in halves)
        share = share_of_halves(first, second, mask)
        total = added(parts, folds)
        if not float(total.weight.max(initial=0.0)) > 0:
            continue
        prior = difference_prior(total, share, tau2_fudge)
        for fold in folds:
            rest = less_average(total.without(parts[fold]), averages[kind].total.without(whole[fold]))
            difference = solve_map(rest, prior, radius) * mask
            maps[fold][k] = np.asarray(maps[fold][k] + difference, np.float32)
    return maps, averages[0]
