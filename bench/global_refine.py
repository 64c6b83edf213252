"""Refinement from random angles at the noise a physical estimate gives: 200 particles, C1, 41 tilts of 3 e/Å².

PYTHONPATH=python:tests python bench/global_refine.py [--mass 300 700] [--particles N] [--seed N] [--threads N]

Noise is a multiple of the shot noise of the dose, against the contrast of the particle: a protein of mass M displaces
ice and adds 1.21 Å³/Da times 2.8 V of potential (protein 7.3 V, ice 4.5 V), 6.53 mrad of phase per V nm at 300 kV; the
contrast of a weak phase object is twice its phase times the CTF.  Images have several times that noise against that
contrast, from inelastic scattering, detectors, motion and the surroundings; `--noise-factor` says how much, 3 unless
given.  Positions are off by 5 Å along each axis, orientations are unknown, and the starting map is the truth at 40 Å.
The answer is checked: most particles must be right.
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
from tiltwise.sim.models import load_model
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.score import score_map, score_poses
from tiltwise.sim.simulate import simulate
from tiltwise.spectral.fsc import resolution_angstrom

PIXEL, BOX, DOSE = 5.0, 48, 3.0
RAD_PER_VOLT_ANGSTROM = 6.53e-4
VOLT, ANGSTROM3_PER_DALTON = 2.8, 1.21
BEADS_PER_KDA = 9.1
"""A bead is a residue of 110 Da."""


def options_of(
    mass_kda: float, particles: int, seed: int, folder: Path, threads: int, factor: float, beads: int | None = None
) -> SimulateOptions:
    """Simulation of particles of a mass, with `factor` times the noise that shot noise is of their contrast.

    Fewer `beads` than residues, each of more mass, take less time.
    """
    # half as wide again as a ball of the mass
    diameter = float(np.round(3.0 * (0.75 / np.pi * 1e3 * mass_kda * ANGSTROM3_PER_DALTON) ** (1 / 3)))
    options = SimulateOptions(
        output=folder,
        tilt_series=2,
        particles=particles // 2,
        width_px=512,
        height_px=512,
        thickness=1200.0,
        pixel_size=PIXEL,
        box=BOX,
        particle_diameter=diameter,
        beads=beads or int(BEADS_PER_KDA * mass_kda),
        dose=DOSE,
        spacing=0.8 * diameter,
        margin_px=36,
        error_position=5.0,
        error_orientation=1000.0,
        reference_resolution=40.0,
        noise=1.0,
        seed=seed,
        threads=threads,
    )
    density = load_model(options).map
    phase = RAD_PER_VOLT_ANGSTROM * VOLT * ANGSTROM3_PER_DALTON * 1e3 * mass_kda  # rad Å^2
    contrast = 2.0 * phase / (float(density.sum()) * PIXEL**2)  # of one unit of the projected map
    relative_noise = factor / np.sqrt(DOSE * PIXEL**2)
    return options.model_copy(update={"noise": relative_noise / contrast})


def main() -> None:
    """Simulate, refine, score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mass", type=float, nargs="+", default=[300.0, 430.0, 700.0], help="kDa")
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--noise-factor", type=float, default=3.0)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    chosen = parser.parse_args()
    wrong = []
    for mass in chosen.mass:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            options = options_of(
                mass, chosen.particles, chosen.seed, folder / "data", chosen.threads, chosen.noise_factor
            )
            data = simulate(options)
            truth = load_optimisation_set(folder / "data/truth/optimisation_set.star")
            diameter = data.particle_diameter_angstrom
            began = time.perf_counter()
            result = run_refine(
                data,
                folder / "job",
                box=BOX + 16,
                crop=BOX,
                particle_diameter=diameter + 10.0,
                ini_high=40.0,
                healpix_order=2,
                auto_local_healpix_order=4,
                offset_range_px=3.0,
                offset_step_px=2.0,
                iterations=chosen.iterations,
                threads=chosen.threads,
            )
            took = time.perf_counter() - began
            errors = score_poses(result.optset, truth)
            true_map, pixel = read_map(data.true_map)
            curve = score_map(result.map, true_map, pixel, diameter, errors).fsc
            within = float(np.mean(errors.angle_deg <= 5.0))
            print(
                f"{mass:.0f} kDa, {diameter:.0f} A, snr {data.snr:.3f}: {within:.1%} of {len(errors.angle_deg)} within "
                f"5 deg, median {np.median(errors.angle_deg):.2f} deg {np.median(errors.distance):.2f} A; half maps "
                f"{result.resolution_angstrom:.1f} A, truth {resolution_angstrom(curve, BOX, PIXEL, 0.5):.1f} A "
                f"(FSC 0.5); {len(result.history)} iterations, {took:.0f} s",
                flush=True,
            )
            if not within >= 0.5:
                wrong.append(f"{mass:.0f} kDa")
    if wrong:
        raise SystemExit(f"fewer than half of the particles are right: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
