"""How far references hold defoci at their wrong values where all particles have nearly one orientation (a lattice).

    python bench/lattice.py [--particles 60] [--snr 0.2] [--width 2 6] [--seeds 1 2]

Defocus errors are planted.  Printed for references that leave nothing out (half maps), the particle's fold, the tilt,
or the tilt series: the share of the planted errors that is left (regression of what is left on what was planted, both
without their mean), the rms error of tilts within 30 degrees, and the latter over the stated standard deviation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tiltwise.ctf import refine_ctf
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

SYMMETRY = "C6"
BOXES: dict[str, Any] = {
    "box": 96,
    "crop": 48,
    "particle_diameter": 100.0,
    "split": "random",
    "symmetry": SYMMETRY,
}


def lattice(folder: Path, **changes: Any) -> SimulatedData:
    """Two series of particles with six-fold symmetry, all near one orientation."""
    values: dict[str, Any] = {
        "tilt_series": 2,
        "width_px": 384,
        "height_px": 384,
        "pixel_size": 2.5,
        "box": 48,
        "particle_diameter": 90.0,
        "symmetry": SYMMETRY,
        "orientations": "aligned",
        "tilt_step": 6.0,
        "defocus": 15000.0,
        "spacing": 90.0,
        "margin_px": 24,
    }
    return simulate(SimulateOptions(output=folder, **{**values, **changes}))


def half_maps(data: SimulatedData, folder: Path) -> dict[str, Path]:
    """Half maps from the wrong defoci, which leave nothing out."""
    options = ReconstructOptions(input=data.optimisation_set, output=folder, **BOXES)
    with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        reconstruct.run(options, job, SilentProgress())
    return {"ref1": folder / "half1.mrc", "ref2": folder / "half2.mrc"}


def left_over(data: SimulatedData, folder: Path, **changes: Any) -> tuple[float, float, float]:
    """Share of the planted errors that is left, rms error within 30 degrees, and over its standard deviation."""
    options = RefineCtfOptions(input=data.optimisation_set, output=folder, **BOXES, **changes)
    with FolderJob(options, ["tiltwise", "refine-ctf"], SilentProgress()) as job:
        result = refine_ctf.run(options, job, SilentProgress())
    tomograms = json.loads(data.truth.read_text())["tomograms"]
    along = square = 0.0
    errors, scores = [], []
    for one in result.series:
        true, known = np.array(tomograms[one.name]["defocus"]), one.known
        before, after = one.before[known, 0] - true[known], one.after[known, 0] - true[known]
        low = np.abs(np.array(tomograms[one.name]["ytilt"]))[known] <= 30
        along += float((after - after.mean()) @ (before - before.mean()))
        square += float(np.sum((before - before.mean()) ** 2))
        errors.append(after[low])
        scores.append(after[low] / one.sigma[known, 0][low])
    rms = [float(np.sqrt(np.mean(np.concatenate(part) ** 2))) for part in (errors, scores)]
    return along / square, rms[0], rms[1]


def main() -> None:
    """Simulate, refine, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, nargs="+", default=[30, 60], help="in each of two series")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.4])
    parser.add_argument("--width", type=float, nargs="+", default=[2.0, 6.0], help="rocking about each axis, degrees")
    parser.add_argument("--error", type=float, default=1000.0, help="rms error of the defocus, Å")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--thickness", type=float, default=400.0, help="of the slab that holds the lattice, Å")
    chosen = parser.parse_args()
    print(
        f"{'particles':>9} {'snr':>5} {'width':>5} {'seed':>4} {'left out':>9} {'bias':>7} {'<= 30°':>7} {'/sigma':>6}"
    )
    for particles, snr, width, seed in product(chosen.particles, chosen.snr, chosen.width, chosen.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = lattice(
                folder / "data",
                particles=particles,
                snr=snr,
                rocking=width,
                seed=seed,
                error_defocus=chosen.error,
                thickness=chosen.thickness,
                threads=2,
            )
            kinds: dict[str, dict[str, Any]] = {"nothing": half_maps(data, folder / "maps")}
            kinds |= {kind: {"leave_out": kind} for kind in ("particle", "tilt", "series")}
            for kind, references in kinds.items():
                bias, rms, score = left_over(data, folder / kind, threads=2, **references)
                row = f"{bias:7.3f} {rms:7.1f} {score:6.2f}"
                print(f"{particles:9d} {snr:5g} {width:5g} {seed:4d} {kind:>9} {row}", flush=True)


if __name__ == "__main__":
    main()
