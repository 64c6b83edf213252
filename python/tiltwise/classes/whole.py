"""Maps of classes from sums of whole images: the average of all, and differences from it as in `differences`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.average import Average
from tiltwise.classes.differences import Seen, expected_share
from tiltwise.maps.volumes import PackedSums

Map = NDArray[np.float32]


def class_references(
    sums: Mapping[tuple[int, int], PackedSums],
    every: Mapping[tuple[int, int], PackedSums],
    kind_of: Sequence[int],
    half_of: NDArray[np.int64],
    sphere: Map,
    mask: Map,
    radius: float,
    pixel_size: float,
    tau2_fudge: float,
) -> tuple[dict[int, list[Map]], Average]:
    """Maps of the classes without every fold, and the average.

    `sums` are of folds and classes, and `every` of all classes together, of folds and kinds of symmetry; `kind_of` is
    that of every class, and 0 what all share.  Maps have nothing outside the `sphere` and differ inside the `mask`;
    voxels are `pixel_size` Å wide.
    """
    folds = sorted({fold for fold, _ in sums})
    of_kind = {kind: {fold: every[fold, kind] for fold in folds} for kind in {0, *kind_of}}
    averages = {kind: Average.of(parts, half_of, sphere, radius) for kind, parts in of_kind.items()}
    without = {kind: {fold: one.without(fold) for fold in folds} for kind, one in averages.items()}
    maps = {fold: [without[kind][fold] for kind in kind_of] for fold in folds}
    if len(kind_of) == 1:
        return maps, averages[0]
    seen = Seen(half_of, mask, radius, expected_share(averages[0].curve), pixel_size, tau2_fudge)
    for k, kind in enumerate(kind_of):
        difference, _ = seen.difference({fold: sums[fold, k] for fold in folds}, of_kind[kind])
        for fold in folds:
            maps[fold][k] = np.asarray(maps[fold][k] + difference[fold], np.float32)
    return maps, averages[0]
