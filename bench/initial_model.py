"""Maps from random orientations: how often they are right, and how long they take; 500 particles of 41 tilts.

PYTHONPATH=python:tests:bench python bench/initial_model.py [--mass KDA --sym GROUP] [--seeds 1 2 ...] [--threads N]

Particles and noise are those of `bench/global_refine.py`: several times the shot noise of 3 e/Å² per tilt, positions
off by 5 Å along each axis, no orientation known.  Every seed has a particle of its own.  The map is laid on the truth
in both hands; FSC at 25 Å, and the hand that fits, are printed.  `--junk` empties a share of the positions, `--other`
puts a particle of another kind and the same mass there; `--off` is how far positions are off, in Å along each axis.
`--keep FOLDER` keeps data for the next run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from global_refine import ANGSTROM3_PER_DALTON, DOSE, PIXEL, RAD_PER_VOLT_ANGSTROM, VOLT, options_of

from helpers.mixed import simulate_mixed
from tiltwise.initial.options import InitialModelOptions
from tiltwise.initial.run import run
from tiltwise.io.mrc import read_map, write_map
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.kernels.select import load_backend
from tiltwise.maps.superpose import superpose
from tiltwise.maps.turning import mirrored, turned
from tiltwise.sim.density import sample_map
from tiltwise.sim.models import load_model
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.phantom import build_phantom
from tiltwise.sim.simulate import simulate
from tiltwise.spectral.filters import resample
from tiltwise.spectral.fsc import fsc

WANTED, AT_ANGSTROM = 0.5, 25.0


def simulation(mass: float, symmetry: str, particles: int, seed: int, factor: float, folder: Path) -> SimulateOptions:
    """Options with `factor` times the shot noise against the contrast of this particle."""
    options = options_of(mass, particles, seed, folder, 1, factor)
    options = options.model_copy(update={"symmetry": symmetry, "phantom_seed": seed, "box": 64})
    phase = RAD_PER_VOLT_ANGSTROM * VOLT * ANGSTROM3_PER_DALTON * 1e3 * mass
    contrast = 2.0 * phase / (float(load_model(options).map.sum()) * PIXEL**2)
    return options.model_copy(update={"noise": factor / np.sqrt(DOSE * PIXEL**2) / contrast})


def score(density: Any, pixel: float, truth: Path) -> tuple[float, bool, float]:
    """FSC to the truth at 25 Å after superposition, whether the mirror image fits, and resolution at FSC 0.5."""
    true_map, true_pixel = read_map(truth)
    box, backend = len(density), load_backend("auto")
    true_map = resample(true_map, true_pixel, pixel, box)
    found = superpose(density, true_map, box * pixel / AT_ANGSTROM, backend, hands=True)
    density = mirrored(density) if found.mirrored else density
    curve = fsc(turned(density, found.rotation, found.shift_px, backend), true_map)
    shells = box * pixel / np.arange(1, len(curve))
    good = np.append(curve[1:] >= WANTED, False)
    last = int(np.argmin(good))
    return (
        float(np.interp(box * pixel / AT_ANGSTROM, np.arange(len(curve)), curve)),
        found.mirrored,
        float(shells[last - 1] if last else np.inf),
    )


def make(made: SimulateOptions, junk: float, other: float) -> None:
    """Simulates; shares of the particles are nothing, or of another fold with the same number of beads."""
    if not (junk or other):
        simulate(made)
        return
    own = build_phantom(float(made.particle_diameter or 0.0), made.beads, made.symmetry, made.phantom_seed + 100)
    instead = own.scaled(float(load_model(made).density.weight[0]))  # type: ignore[union-attr]
    simulate_mixed(made, 0.1, 0.0, junk, other=other, instead=instead)
    write_map(made.output / "truth/other.mrc", sample_map(instead, made.box, made.pixel_size), made.pixel_size)


def main() -> None:
    """Simulate, run, score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mass", type=float, default=300.0, help="kDa")
    parser.add_argument("--sym", default="C1")
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--noise-factor", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--junk", type=float, default=0.0)
    parser.add_argument("--other", type=float, default=0.0)
    parser.add_argument("--off", type=float, default=5.0)
    parser.add_argument("--offset-range", type=float)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    good = 0
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as temporary:
            name = f"{chosen.mass:.0f}-{chosen.sym}-{seed}"
            changes = (chosen.particles, chosen.noise_factor, chosen.junk, chosen.other, chosen.off)
            if changes != (500, 3.0, 0.0, 0.0, 5.0):
                name += "".join(f"-{value:g}" for value in changes)
            data = (chosen.keep or Path(temporary)) / name
            made = simulation(chosen.mass, chosen.sym, chosen.particles, seed, chosen.noise_factor, data)
            made = made.model_copy(update={"error_position": chosen.off})
            if not (data / "complete").is_file():
                make(made, chosen.junk, chosen.other)
                (data / "complete").touch()
            diameter = float(made.particle_diameter or 0.0) + 10.0
            options = InitialModelOptions(
                input=data / "optimisation_set.star",
                output=Path(temporary) / "job",
                particle_diameter=diameter,
                symmetry=chosen.sym,
                offset_range=chosen.offset_range,
                starts=chosen.starts,
                seed=seed,
                threads=chosen.threads,
            )
            began, cpu = time.perf_counter(), time.process_time()
            with FolderJob(options, ["tiltwise", "initial-model"], SilentProgress()) as job:
                result = run(options, job, SilentProgress())
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            value, mirror, resolution = score(result.map, result.pixel_size, data / "truth" / "reference.mrc")
            if chosen.other:
                also, _, _ = score(result.map, result.pixel_size, data / "truth/other.mrc")
                print(f"FSC at {AT_ANGSTROM:.0f} A to the other kind {also:.2f}")
            good += value >= WANTED
            choice = result.choice
            symmetry = "" if choice["symmetry_score"] is None else f", axes {choice['symmetry_score']:.2f}"
            print(
                f"{chosen.mass:.0f} kDa {chosen.sym} seed {seed}: FSC at {AT_ANGSTROM:.0f} A {value:.2f}, FSC 0.5 at "
                f"{resolution:.1f} A, {'WRONG' if mirror else 'true'} hand ({choice['hand_nats']:.1f} +- "
                f"{choice['hand_nats_error']:.1f} nats), half maps {result.resolution_angstrom:.1f} A, starts agree "
                f"{[round(a, 2) for a in choice['agreement']]}{symmetry}; {took:.0f} s, CPU {cpu:.0f} s, load "
                f"{os.getloadavg()[0]:.1f}",
                flush=True,
            )
    print(f"{good} of {len(chosen.seeds)} right")
    if good < 0.9 * len(chosen.seeds):
        raise SystemExit("fewer than nine of ten are right")


if __name__ == "__main__":
    main()
