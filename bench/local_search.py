"""Local stage of the refinement of tilt series: E-step and M-step per particle and core, at 13 Å.

python bench/local_search.py OPTIMISATION_SET REFERENCE [--grid] [--threads N]

One iteration of `refine` with HEALPix order 3 and searches near the poses in the file, at the Fourier pixels below
13 Å, box 128 cropped to 64.  Images are loaded first and are not counted.  `--grid` does without climbing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from tiltwise.em.options import RefineOptions
from tiltwise.em.refine import Refinement
from tiltwise.em.step import PADDING
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.maps.volumes import Accumulator

RESOLUTION = 13.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = RefineOptions(
            input=given.set,
            reference=given.reference,
            output=Path(folder) / "job",
            box=128,
            crop=64,
            ini_high=30.0,
            particle_diameter=210.0,
            healpix_order=3,
            auto_local_healpix_order=3,
            offset_range_px=3.0,
            offset_step_px=2.0,
            threads=given.threads,
            climb=not given.grid,
        )
        with FolderJob(options, ["bench"], SilentProgress()) as job:
            measure(Refinement(options, job, SilentProgress()), given.threads)


def measure(run: Refinement, threads: int) -> None:
    """One E-step and M-step of every half set."""
    state = run.start()
    state.schedule.resolution_shell = run.shell_of(RESOLUTION)
    state.schedule.incr_size = 0
    total, sharp, particles = 0.0, [], 0
    step = run._step(state, 1, final=False)
    for half in (1, 2):
        expectation = run.runner.expectation(step, (half, 0))
        for group in run._groups(state, half, expectation.map_count):
            images = [group.load(i) for i in range(len(group.members))]
            group.load = images.__getitem__
            accumulator = Accumulator.empty(run.box, PADDING)
            began = time.perf_counter()
            found = expectation.run(group, accumulator, None, lambda n: None)
            total += time.perf_counter() - began
            sharp += [e.sharp for e in found]
            particles += len(found)
    cells = [len(expectation.settings.grid.near(r)[0]) for r in state.poses.rotation[:10]]
    print(
        f"{particles} particles, {np.mean(cells):.0f} orientations x {len(expectation.shifts)} shifts below "
        f"{expectation.settings.coarse_radius:.0f} shells, then below {expectation.settings.fine_radius:.0f}"
    )
    print(f"{np.mean(sharp):.0%} of the posteriors are Gaussians")
    print(f"{total:.2f} s on {threads} threads: {total * threads / particles * 1e3:.1f} ms per particle and core")


if __name__ == "__main__":
    main()
