"""Verdicts and error bars of CTF refinement where the metadata are right: nothing is to be gained, errors are known.

    python bench/ctf_nothing_to_gain.py [--spacing 45 90] [--snr 0.3] [--leave-out tilt particle] [--seeds 1 2 3 4 5]

Six series for every seed; particles of 100 Å, which overlap at a spacing of 45 Å, in half sets drawn at random.
Printed are series in which anything was accepted, and how many true defoci the 68 % and 95 % intervals hold.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from tiltwise.ctf import refine_ctf
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import simulate


def one_set(spacing: float, snr: float, leave_out: str, seed: int) -> tuple[list[bool], list[float]]:
    """Whether anything was accepted in each series; errors of all defoci over their standard deviations."""
    with tempfile.TemporaryDirectory() as name:
        data = simulate(
            SimulateOptions(
                output=Path(name) / "data",
                tilt_series=6,
                particles=50,
                width_px=256,
                height_px=256,
                thickness=500.0,
                pixel_size=5.0,
                box=32,
                particle_diameter=100.0,
                beads=200,
                tilt_step=15.0,
                defocus=20000.0,
                snr=snr,
                spacing=spacing,
                margin_px=16,
                seed=seed,
                threads=1,
            )
        )
        options = RefineCtfOptions(
            input=data.optimisation_set,
            output=Path(name) / "job",
            box=64,
            crop=32,
            particle_diameter=110.0,
            split="random",
            threads=1,
            leave_out=leave_out,
        )
        with FolderJob(options, ["tiltwise", "refine-ctf"], SilentProgress()) as job:
            result = refine_ctf.run(options, job, SilentProgress())
    accepted = [any(verdict.improved for verdict in one.verdicts().values()) for one in result.series]
    scores = [((one.after - one.before) / one.sigma)[one.known, 0] for one in result.series]
    return accepted, np.concatenate(scores).tolist()


def main() -> None:
    """All spacings, signals and references."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spacing", type=float, nargs="+", default=[45.0, 90.0])
    parser.add_argument("--snr", type=float, nargs="+", default=[0.3])
    parser.add_argument("--leave-out", nargs="+", default=["tilt", "particle"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    chosen = parser.parse_args()
    for spacing, snr, kind in product(chosen.spacing, chosen.snr, chosen.leave_out):
        accepted: list[bool] = []
        scores: list[float] = []
        for seed in chosen.seeds:
            some, more = one_set(spacing, snr, kind, seed)
            accepted += some
            scores += more
        size = np.abs(scores)
        covered = (
            f"68 % {np.mean(size <= 1.0):.0%}, 95 % {np.mean(size <= 1.96):.0%}, rms {np.sqrt(np.mean(size**2)):.2f}"
        )
        rate = f"accepted in {sum(accepted)} of {len(accepted)} series"
        print(f"spacing {spacing:g} Å, snr {snr:g}, {kind} left out: {rate}; {covered}", flush=True)


if __name__ == "__main__":
    main()
