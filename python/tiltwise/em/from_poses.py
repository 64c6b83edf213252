"""What a refinement starts from where there is no starting map: half maps from the poses in the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.folds import HalfSums
from tiltwise.em.state import State
from tiltwise.em.step import PADDING, UnitRunner
from tiltwise.em.units import Key, RunningSums, Unit
from tiltwise.errors import DataError
from tiltwise.exec.threads import ordered_map
from tiltwise.maps.cross_fit import LEAST_FSC
from tiltwise.maps.insertion import insert_images
from tiltwise.maps.spectra import last_shell_above
from tiltwise.maps.volumes import Accumulator
from tiltwise.spectral.randomised import BLURRED_SHELLS

CHUNK = 16
"""Particles whose images are held at a time."""


def sums_at_poses(
    units: Sequence[Unit],
    runner: UnitRunner,
    state: State,
    symmetry: NDArray[np.float64],
    advance: Callable[[int], None],
) -> HalfSums:
    """Sums of every half set and fold, each particle at the pose that `state` has; `advance(n)` after every n."""
    images, sums = runner.images, dict[Key, RunningSums]()
    for unit in units:
        if unit.key not in sums:
            sums[unit.key] = RunningSums(Accumulator.empty(images.box, PADDING))
        accumulator = sums[unit.key].accumulator
        for series, members in unit.parts:
            contrast = float(state.contrast[series])
            group = runner.group(series, members, state.poses, state.noise[series], contrast, len(images.disc))
            for start in range(0, len(members), CHUNK):
                rows = range(start, min(start + CHUNK, len(members)))
                loaded = ordered_map(group.load, rows, runner.threads)
                turned = group.rotations[start : start + CHUNK]
                insert_images(
                    accumulator,
                    group.series,
                    loaded,
                    turned,
                    group.noise_power,
                    images.disc,
                    runner.backend,
                    runner.threads,
                )
                advance(len(rows))
    return HalfSums.of(sums, symmetry, runner.backend)


def refuse_no_map(curve: NDArray[np.float64], joined: int) -> None:
    """Raises DataError where half maps agree, by their FSC `curve`, in no more shells than they are to share."""
    if last_shell_above(curve, LEAST_FSC) <= max(joined + BLURRED_SHELLS, 1):
        shown = slice(joined + 1, joined + 4)
        raise DataError(
            "half maps from the poses in the file do not agree: there is nothing to start from",
            where="particles",
            expected=f"a Fourier shell correlation above {LEAST_FSC} beyond --low-resol-join-halves",
            found=", ".join(f"{value:.2f} in shell {joined + 1 + n}" for n, value in enumerate(curve[shown])),
            fix="give a starting map with --ref",
        )
