"""Refinements with and without cross-fitted references: `cross_fit.py FOLDS SNR [SEED ...] [--particles N] [--noise]`.

Run with `PYTHONPATH=python:tests`.  FOLDS are several numbers with commas.  Prints one line for every run: iterations,
seconds, resolution claimed (FSC 0.143 of the halves), that of a half map and the joined map against the truth (FSC 0.5,
and mean FSC), median pose error.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers.refinements import run_refine
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.score import score_map, score_poses
from tiltwise.sim.simulate import simulate
from tiltwise.spectral.fsc import resolution_angstrom

BOX, PIXEL, DIAMETER = 48, 5.0, 180.0


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folds")
    parser.add_argument("snr", type=float)
    parser.add_argument("seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--particles", type=int, default=40)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--error", type=float, default=6.0)
    chosen = parser.parse_args()
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = simulate(
                SimulateOptions(
                    output=folder / "data",
                    tilt_series=2,
                    particles=chosen.particles,
                    width_px=288,
                    height_px=288,
                    thickness=600.0,
                    pixel_size=PIXEL,
                    box=BOX,
                    particle_diameter=DIAMETER,
                    tilt_step=4.0,
                    snr=None if chosen.noise else chosen.snr,
                    noise=1.0 if chosen.noise else None,
                    signal=not chosen.noise,
                    error_orientation=chosen.error,
                    error_position=5.0,
                    reference_resolution=40.0,
                    spacing=0.0 if chosen.particles > 40 else None,
                    seed=seed,
                    threads=1,
                )
            )
            for folds in chosen.folds.split(","):
                began = time.perf_counter()
                out = folder / folds
                result = run_refine(
                    data,
                    out,
                    box=2 * BOX,
                    crop=BOX,
                    particle_diameter=DIAMETER + 20.0,
                    offset_step_px=2.0,
                    iterations=25,
                    folds=int(folds),
                )
                line = (
                    f"seed {seed} folds {folds}: {len(result.history)} iterations, {time.perf_counter() - began:.0f} s"
                )
                line += f", FSC 0.143 {result.resolution_angstrom:.1f} A"
                if chosen.noise:
                    curve = result.fsc
                    shells = [len(curve) // 3, 2 * len(curve) // 3]
                    means = [f"{part.mean():+.3f}" for part in np.split(curve[1:], shells)]
                    print(f"{line}, mean FSC of thirds {' '.join(means)}", flush=True)
                    continue
                truth = load_optimisation_set(data.folder / "truth" / "optimisation_set.star")
                found = score_poses(load_optimisation_set(out / "run_optimisation_set.star"), truth)
                true_map, pixel_size = read_map(data.true_map)
                for name, density in (("half", result.halves[0]), ("map", result.map)):
                    curve = score_map(density, true_map, pixel_size, DIAMETER, found).fsc
                    line += f", {name} {resolution_angstrom(curve, BOX, PIXEL, 0.5):.1f} A"
                    line += f" ({curve[1 : BOX // 2].mean():.3f})"
                print(
                    f"{line}, poses {np.median(found.angle_deg):.2f} deg {np.median(found.distance):.2f} A", flush=True
                )


if __name__ == "__main__":
    main()
