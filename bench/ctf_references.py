"""Defocus errors that references leave, on simulated series: cross-fitted ones, given half maps, the true map.

    python bench/ctf_references.py [--particles 40 120] [--snr 0.1 0.4]

Cross-fitted references leave out folds of particles, or parts of the tilts.  Printed is the rms of mean defocus minus
truth before and after one pass, in Å, of all tilts and of tilts within 30 degrees; and the latter over the standard
deviation that the fit states.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tiltwise.ctf import refine_ctf
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.io.mrc import read_map, write_map
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

BOXES: dict[str, Any] = {"box": 96, "crop": 48, "particle_diameter": 130.0, "split": "random"}


def simulated(folder: Path, particles: int, snr: float) -> SimulatedData:
    """One series with defocus errors of 500 Å rms."""
    return simulate(
        SimulateOptions(
            output=folder,
            tilt_series=1,
            particles=particles,
            width_px=512,
            height_px=512,
            thickness=800.0,
            pixel_size=3.5,
            box=48,
            particle_diameter=110.0,
            tilt_step=6.0,
            defocus=25000.0,
            error_defocus=500.0,
            snr=snr,
            spacing=110.0,
            seed=7,
        )
    )


def half_maps(data: SimulatedData, folder: Path) -> dict[str, Path]:
    """Half maps from the wrong defoci."""
    options = ReconstructOptions(input=data.optimisation_set, output=folder, **BOXES)
    with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        reconstruct.run(options, job, SilentProgress())
    return {"ref1": folder / "half1.mrc", "ref2": folder / "half2.mrc"}


def errors(data: SimulatedData, folder: Path, **references: Any) -> str:
    """One row of the table."""
    options = RefineCtfOptions(input=data.optimisation_set, output=folder, **BOXES, **references)
    with FolderJob(options, ["tiltwise", "refine-ctf"], SilentProgress()) as job:
        result = refine_ctf.run(options, job, SilentProgress())
    (one,) = result.series
    (truth,) = json.loads(data.truth.read_text())["tomograms"].values()
    low = np.abs(np.array(truth["ytilt"])) <= 30
    before, after = (values[:, 0] - np.array(truth["defocus"]) for values in (one.before, one.after))

    def rms(values: Any) -> float:
        return float(np.sqrt(np.mean(np.square(values))))

    score = rms(after[low] / one.sigma[low, 0])
    return f"{rms(before):7.1f} {rms(after):7.1f} {rms(after[low]):7.1f} {score:6.2f}"


def main() -> None:
    """All numbers of particles, signals and references."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, nargs="+", default=[40, 120])
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.4])
    parser.add_argument("--kinds", nargs="+", help="some of the references of the table")
    chosen = parser.parse_args()
    print(f"{'particles':>9} {'snr':>5} {'reference':>14} {'before':>7} {'all':>7} {'<= 30°':>7} {'/sigma':>6}")
    for particles in chosen.particles:
        for snr in chosen.snr:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                data = simulated(folder / "data", particles, snr)
                halves = half_maps(data, folder / "maps")
                density, pixel_size = read_map(data.true_map)
                write_map(folder / "true.mrc", density, pixel_size)
                true = {"ref1": folder / "true.mrc", "ref2": folder / "true.mrc"}
                kinds: dict[str, dict[str, Any]] = {
                    "own half": halves,
                    "opposite half": {**halves, "opposite_half": True},
                    "5 folds": {"leave_out": "particle"},
                    "2 parts": {"folds": 2},
                    "5 parts": {},
                    "10 parts": {"folds": 10},
                    "true map": true,
                }
                for kind in chosen.kinds or kinds:
                    row = errors(data, folder / kind.replace(" ", "_"), **kinds[kind])
                    print(f"{particles:9d} {snr:5g} {kind:>14} {row}", flush=True)


if __name__ == "__main__":
    main()
