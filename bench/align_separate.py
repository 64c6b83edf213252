"""How much better half maps agree because both half sets share tilts and motion that all particles were fitted to.

    PYTHONPATH=python:tests python bench/align_separate.py [--particles 60] [--snr 0.3] [--seeds 4]

Everything is fitted once to all particles, and once to each half set alone, of which half maps are then made from their
own tilts, positions and motion.  Prints the FSC of the half maps of both in shells 1 to Nyquist (means of thirds), the
mean FSC of the half maps to the truth, and the difference of the two, which is what sharing adds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers.small_alignments import align_options, simulated
from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.io.mrc import read_map
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.maps.masks import focus_mask
from tiltwise.motion.align import Alignments
from tiltwise.motion.objective import Evidence
from tiltwise.spectral.fsc import fsc

DIAMETER = 120.0


class OneHalf(Alignments):
    """Fits everything to the images of one half set."""

    half = 0

    def evidences(self, *arguments: Any) -> list[Evidence]:
        """Correlations of the particles of the half set."""
        found = super().evidences(*arguments)
        return [one.of(self.halves[data.members] == self.half) for one, data in zip(found, self.data, strict=True)]


def aligned(source: Path, folder: Path, half: int) -> Path:
    """Optimisation set aligned by one half set, or by all particles if it is 0."""
    options = align_options(source, folder, force=True)
    with FolderJob(options, ["tiltwise", "align"], SilentProgress()) as job:
        one = (OneHalf if half else Alignments)(options, job, SilentProgress())
        if isinstance(one, OneHalf):
            one.half = half
        return one.run().outputs["optimisation_set"]


def half_maps(source: Path, folder: Path) -> list[NDArray[np.float32]]:
    """Of an aligned set."""
    options = ReconstructOptions(input=source, output=folder, box=48, crop=32, particle_diameter=DIAMETER, threads=1)
    with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        reconstruct.run(options, job, SilentProgress())
    return [read_map(folder / f"half{half}.mrc")[0] for half in (1, 2)]


def thirds(curve: Sequence[float] | NDArray[np.float64]) -> str:
    """Means of three parts of shells 1 to Nyquist."""
    return " ".join(f"{part.mean():+.3f}" for part in np.array_split(np.asarray(curve)[1:], 3))


def main() -> None:
    """A line for every seed, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=60)
    parser.add_argument("--snr", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=4)
    chosen = parser.parse_args()
    differences, truths = [], []
    for seed in range(1, chosen.seeds + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = simulated(folder, particles=chosen.particles, snr=chosen.snr, seed=seed)
            truth, pixel = read_map(data.true_map)
            mask = focus_mask(None, DIAMETER, len(truth), pixel)
            maps = {}
            for half, kind in enumerate(("shared", "first", "second")):
                source = aligned(data.optimisation_set, folder / kind, half)
                maps[kind] = half_maps(source, folder / f"{kind}_maps")
            shared, apart = maps["shared"], [maps["first"][0], maps["second"][1]]
            curves = [fsc(*pair, mask) for pair in (shared, apart)]
            to_truth = [np.mean([fsc(half, truth, mask) for half in pair], axis=0) for pair in (shared, apart)]
            differences.append(curves[0] - curves[1])
            truths.append(to_truth[0] ** 2 - to_truth[1] ** 2)
            print(
                f"seed {seed}: shared {thirds(curves[0])}, apart {thirds(curves[1])}, "
                f"half maps to the truth {thirds(to_truth[0])} and {thirds(to_truth[1])}",
                flush=True,
            )
    print(f"shared less apart: {thirds(np.mean(differences, axis=0))}")
    print(f"as the truth has it (squares of the FSC to the truth): {thirds(np.mean(truths, axis=0))}")


if __name__ == "__main__":
    main()
