"""What particles of a half set moved in common is taken back: their map moves along with them.

A half map is made of its particles, so a shift of all of them in the frame of the map changes no correlation with
references that are made of them too.  It is one vector for every half of the whole set: what the particles of one
series moved in common is not free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.maps.cross_fit import HALVES
from tiltwise.motion.series import SeriesData

F64 = NDArray[np.float64]


def common_drift(
    data: Sequence[SeriesData], displacements_px: Sequence[F64], halves: NDArray[np.int64]
) -> dict[int, F64]:
    """(3,) shift in the frame of the map of every half set, in unbinned pixels, that explains most displacements.

    `displacements_px` (P, 3) of the particles of every series along tomogram axes; `halves` of all of the set.
    """
    result = {}
    for half in HALVES:
        frames, moved = [np.zeros((0, 3))], [np.zeros(0)]
        for own, displacement in zip(data, displacements_px, strict=True):
            rows = (halves[own.members] == half) & own.seen
            frames.append(own.rotations[rows].reshape(-1, 3))
            moved.append(displacement[rows].ravel())
        result[half] = np.linalg.lstsq(np.concatenate(frames), np.concatenate(moved), rcond=1e-3)[0]
    return result


def without_drift(data: SeriesData, displacement_px: F64, halves: NDArray[np.int64], drift: Mapping[int, F64]) -> F64:
    """(P, 3) displacements less the drift of the map of each particle's half."""
    moved = displacement_px.copy()
    for half, shift in drift.items():
        rows = (halves[data.members] == half) & data.seen
        moved[rows] -= data.rotations[rows] @ shift
    return moved
