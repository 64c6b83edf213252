"""Pre-oriented particles: refinements with and without the prior on the axis, on simulated membranes.

PYTHONPATH=python:tests python bench/oriented.py [--sym C1 C4] [--snr 0.01] [--seeds 1 2 3] [--particles N]

Particles sit on a sphere in every tomogram, their axes rock about its normal by 10 degrees in each direction, and the
metadata hold the normal alone.  Printed are particles within 5 degrees of the truth, symmetry considered, and the time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers.refinements import run_refine
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.score import score_poses
from tiltwise.sim.simulate import SimulatedData, simulate

PIXEL, BOX, DIAMETER, ROCKING = 5.0, 40, 120.0, 10.0


def simulated(folder: Path, symmetry: str, snr: float, particles: int, seed: int) -> SimulatedData:
    """Two membranes of 280 Å radius, 41 tilts."""
    return simulate(
        SimulateOptions(
            output=folder,
            tilt_series=2,
            particles=particles,
            width_px=256,
            height_px=256,
            thickness=700.0,
            pixel_size=PIXEL,
            box=BOX,
            particle_diameter=DIAMETER,
            beads=400,
            snr=snr,
            spacing=0.6 * DIAMETER,
            margin_px=24,
            membrane_radius=280.0,
            rocking=ROCKING,
            error_position=4.0,
            reference_resolution=25.0,
            seed=seed,
            symmetry=symmetry,
        )
    )


def main() -> None:
    """Refine and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sym", nargs="+", default=["C1", "C4"])
    parser.add_argument("--snr", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--particles", type=int, default=30, help="on each of two membranes")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    for symmetry in options.sym:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                data = simulated(folder / "data", symmetry, options.snr, options.particles, seed)
                truth = load_optimisation_set(folder / "data/truth/optimisation_set.star")
                for name, width in (("with prior", ROCKING), ("without", None)):
                    began = time.perf_counter()
                    result = run_refine(
                        data,
                        folder / name,
                        box=BOX + 16,
                        crop=BOX,
                        symmetry=symmetry,
                        particle_diameter=DIAMETER + 10.0,
                        ini_high=25.0,
                        healpix_order=2,
                        auto_local_healpix_order=4,
                        offset_range_px=3.0,
                        offset_step_px=2.0,
                        iterations=options.iterations,
                        sigma_axis=width,
                        threads=options.threads,
                    )
                    took = time.perf_counter() - began
                    group = symmetry_matrices(symmetry)
                    angle = score_poses(result.optset, truth, symmetry=group).angle_deg
                    print(
                        f"{symmetry} snr {options.snr:g} seed {seed} {name:10s}: {np.mean(angle <= 5.0):.0%} of "
                        f"{len(angle)} within 5 deg, median {np.median(angle):.1f} deg, resolution "
                        f"{result.resolution_angstrom:.1f} A, {len(result.history)} iterations, {took:.0f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
