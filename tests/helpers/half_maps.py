"""Half maps with a known particle: a phantom, and white noise or noise of a given resolution."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.mrc import write_map
from tiltwise.sim.density import sample_map
from tiltwise.sim.phantom import build_phantom

BOX, PIXEL, DIAMETER = 48, 4.0, 120.0


@cache
def particle(box: int = BOX) -> NDArray[np.float32]:
    """Phantom `(box, box, box)` of DIAMETER at PIXEL, maximum 1; do not change it."""
    truth = sample_map(build_phantom(DIAMETER, 200), box, PIXEL)
    return np.asarray(truth / truth.max(), dtype=np.float32)


def half_maps(noise: float, seed: int = 1, box: int = BOX) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The particle plus independent white noise of that standard deviation."""
    # Its own stream: phases randomised from the same numbers would not be independent of this noise.
    rng = np.random.default_rng([seed, 77])
    first, second = ((particle(box) + rng.normal(0.0, noise, (box,) * 3)).astype(np.float32) for _ in range(2))
    return first, second


def write_half_maps(folder: Path, first: NDArray[np.floating], second: NDArray[np.floating]) -> Path:
    """Write `half1.mrc` and `half2.mrc`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_map(folder / "half1.mrc", first, PIXEL)
    write_map(folder / "half2.mrc", second, PIXEL)
    return folder
