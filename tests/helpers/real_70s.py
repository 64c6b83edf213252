"""40 real 70S ribosomes as foreign, CTF-premultiplied 2D stacks, and what their halves agree to.

12 Å/px, box 32, no half sets in the file.  The map that comes with them is the z-mirror of what their poses give.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.em.reconstruct import ReconstructResult
from tiltwise.io.mrc import read_map
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import soft_sphere

SHELL = 13
"""32 px x 12 Å / 29.5 Å"""
SPLITS = 20

IMAGES: dict[str, Any] = {"box": 32, "crop": 32, "coordinate_binning": 7.19856}
"""boxes, and the unbinned pixels per unit of the coordinates in the file"""


@dataclass(frozen=True)
class Ribosomes:
    """The data set."""

    optimisation_set: Path
    supplied: NDArray[np.float32]
    """the map that comes with the particles"""
    pixel_size: float
    mask: NDArray[np.float32]
    """falls from 10.5 to 15.5 px: half at 13 px"""

    @classmethod
    def open(cls, folder: Path) -> Ribosomes:
        """The set in a folder."""
        supplied, pixel_size = read_map(next(folder.glob("*_reconstruct.mrc")))
        return cls(
            optimisation_set=next(folder.glob("*_optimisation_set.star")),
            supplied=supplied,
            pixel_size=pixel_size,
            mask=soft_sphere(32, 15.5, 5.0).astype(np.float32),
        )

    @property
    def mirrored(self) -> NDArray[np.float32]:
        """The supplied map with the hand of the poses: z becomes -z about pixel 16, pixel 0 stays."""
        return np.roll(self.supplied[::-1], 1, axis=0)

    def reconstruct(self, output: Path, seed: int, threads: int = 0) -> ReconstructResult:
        """Map and half maps of one random split."""
        options = ReconstructOptions(
            input=self.optimisation_set, output=output, redo=True, seed=seed, threads=threads, split="random", **IMAGES
        )
        with FolderJob(options, [], SilentProgress()) as job:
            return reconstruct.run(options, job, SilentProgress())

    def agreement(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        """FSC at 29.5 Å inside the mask."""
        return float(fsc(a, b, self.mask)[SHELL])
