"""Maps of classes from sums of whole images: the average of all, and differences from it as in `differences`."""

from __future__ import annotations

from collections.abc import Mapping
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
    classes: int,
    half_of: NDArray[np.int64],
    sphere: Map,
    mask: Map,
    radius: float,
    tau2_fudge: float,
) -> tuple[dict[int, list[Map]], Average]:
    """Maps of the classes without every fold, and the average.

    `sums` are of folds and classes; maps have nothing outside the `sphere` and differ inside the `mask`.
    """
    folds = sorted({fold for fold, _ in sums})
    by_class = [{fold: sums[fold, k] for fold in folds} for k in range(classes)]
    every = {
        fold: added(dict(enumerate(sums[fold, k] for k in range(classes))), list(range(classes))) for fold in folds
    }
    average = Average.of(every, half_of, sphere, radius)
    maps = {fold: [average.without(fold)] * classes for fold in folds}
    if classes == 1:
        return maps, average
    halves = [[fold for fold in folds if half_of[fold] == half] for half in (1, 2)]
    for k, parts in enumerate(by_class):
        first, second = (less_average(added(parts, half), added(every, half)) for half in halves)
        share = share_of_halves(first, second, mask)
        total = added(parts, folds)
        if not float(total.weight.max(initial=0.0)) > 0:
            continue
        prior = difference_prior(total, share, tau2_fudge)
        for fold in folds:
            rest = less_average(total.without(parts[fold]), average.total.without(every[fold]))
            difference = solve_map(rest, prior, radius) * mask
            maps[fold][k] = np.asarray(maps[fold][k] + difference, np.float32)
    return maps, average
