"""Right and wrong point groups: refinements of one data set under several, and what the report says of each.

PYTHONPATH=python:tests python bench/symmetry.py [--true C6] [--sym C6 C4 C1] [--snr 0.1] [--particles N]

Printed are the resolution of the half maps, the mean signal-to-noise ratio FSC / (1 - FSC) over the shells where all
maps have FSCs between 0.1 and 0.97, relative to the last group of the list, and the check of the symmetry.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers.refinements import run_refine
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import simulate

PIXEL, BOX, DIAMETER = 6.0, 32, 130.0


def main() -> None:
    """Simulate once, refine under every group."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--true", default="C6")
    parser.add_argument("--sym", nargs="+", default=["C6", "C4", "C2", "C1"])
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--particles", type=int, default=20, help="in each of two series")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    curves, words = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = simulate(
            SimulateOptions(
                output=folder / "data",
                tilt_series=2,
                particles=chosen.particles,
                width_px=192,
                height_px=192,
                thickness=500.0,
                pixel_size=PIXEL,
                box=BOX,
                particle_diameter=DIAMETER,
                beads=480,
                tilt_step=10.0,
                snr=chosen.snr,
                spacing=60.0,
                margin_px=24,
                reference_resolution=30.0,
                symmetry=chosen.true,
                seed=chosen.seed,
                threads=chosen.threads,
            )
        )
        for name in chosen.sym:
            began = time.perf_counter()
            result = run_refine(
                data,
                folder / name,
                symmetry=name,
                particle_diameter=DIAMETER + 20.0,
                ini_high=30.0,
                healpix_order=2,
                auto_local_healpix_order=4,
                offset_range_px=2.0,
                offset_step_px=2.0,
                iterations=chosen.iterations,
                threads=chosen.threads,
            )
            took, check = time.perf_counter() - began, result.symmetry
            curves[name] = result.fsc
            words[name] = f"{result.resolution_angstrom:.1f} A, {took:.0f} s"
            if check is not None:
                verdict = "broken" if check.broken else "not broken"
                words[name] += f", symmetry {verdict}: {check.found}"
    used = np.all([(curve > 0.1) & (curve < 0.97) for curve in curves.values()], axis=0)
    used[:3] = False
    signal = {name: (curve[used] / (1.0 - curve[used])).sum() for name, curve in curves.items()}
    for name, text in words.items():
        ratio = signal[name] / signal[chosen.sym[-1]]
        print(f"true {chosen.true}, applied {name}: {text}; signal {ratio:.1f} x that of {chosen.sym[-1]}")


if __name__ == "__main__":
    main()
