"""Does the cycle take back planted errors?  The resolution to the truth against that of a run without errors.

    PYTHONPATH=python python bench/cycle.py OUT [--rounds 3]

Errors are of the size found for EMPIAR-10164: defocus 195 Å, shifts 3 Å, angles 0.15°, poses 6° and 5 Å.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from tiltwise.cli.main import main
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.score import score_map, score_poses
from tiltwise.sim.simulate import SimulatedData, simulate
from tiltwise.spectral.fsc import resolution_angstrom

BOX, CROP, DIAMETER = 128, 72, 150.0
ERRORS = {"error_defocus": 195.0, "error_shift": 3.0, "error_angle": 0.15}


def made(folder: Path, **errors: float) -> SimulatedData:
    """The same specimen with and without errors of the tilt series."""
    options = SimulateOptions(
        output=folder,
        particle_diameter=DIAMETER,
        tilt_series=2,
        particles=60,
        pixel_size=3.0,
        box=CROP,
        error_orientation=6.0,
        error_position=5.0,
        seed=1,
        threads=2,
        **errors,
    )
    return simulate(options)


def report(name: str, data: SimulatedData, folder: Path, began: float) -> float:
    """FSC 0.5 of the joined map to the truth in Å, printed with the rest."""
    cycle = json.loads((folder / "cycle.json").read_text())
    last = next(Path(one["folder"]) for one in reversed(cycle["steps"]) if one["name"] == "refine")
    density, pixel = read_map(last / "run_class001.mrc")
    truth, _ = read_map(data.true_map)
    final = load_optimisation_set(folder / "optimisation_set.star", need_images=False)
    poses = score_poses(final, load_optimisation_set(data.truth.parent / "optimisation_set.star", need_images=False))
    score = score_map(density, truth, pixel, DIAMETER, poses)
    resolution = resolution_angstrom(score.fsc, len(density), pixel, 0.5)
    print(
        f"{name}: FSC 0.5 to the truth {resolution:.2f} Å, half maps {cycle['resolution_angstrom']:.2f} Å, poses "
        f"{np.median(poses.angle_deg):.2f} deg, {time.monotonic() - began:.0f} s, {cycle['reason']}"
    )
    for one in cycle["steps"]:
        print(f"  {one['round']} {one['name']:<11} {one['resolution_angstrom']} Å  {one['words']}  {one['wall_s']} s")
    return resolution


def run() -> None:
    """Both runs, and whether they agree to a shell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found = {}
    for name, errors in (("without errors", {}), ("with errors", ERRORS)):
        folder = given.out / name.replace(" ", "_")
        data = made(folder / "data", **errors)
        began = time.monotonic()
        words = ["cycle", "--i", data.optimisation_set, "--ref", data.reference, "--ini-high", 40, "--b", BOX]
        words += ["--crop", CROP, "--particle-diameter", DIAMETER + 10, "--healpix-order", 3, "--offset-range", 3]
        words += ["--auto-local-healpix-order", 3, "--n", given.rounds, "--o", folder / "cycle", "--quiet"]
        assert main([str(word) for word in words]) == 0
        found[name] = report(name, data, folder / "cycle", began)
    shells = [CROP * 3.0 / value for value in found.values()]
    print(f"resolution to the truth differs by {shells[0] - shells[1]:.2f} shells")


if __name__ == "__main__":
    run()
