"""Share of particles of a broken symmetry that `refine --relax-sym` brings to the right one of their mates.

    PYTHONPATH=python:tests python bench/relax_symmetry.py [--missing 0.5 0.25] [--snr 0.1] [--start map none]

C6 phantoms that lack a share of one subunit, stated at a mate at random (a sixth of them right) with errors of 2
degrees.  The starting map has the defect at 30 Å, or is made from the stated poses (none).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path

from helpers.pseudo_symmetry import DIAMETER, GROUP, at_the_right_mate, nearly_symmetric
from helpers.refinements import run_refine


def main() -> None:
    """Simulate, refine with and without, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", type=float, nargs="+", default=[0.5, 0.25], help="share of one of six subunits")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1])
    parser.add_argument("--start", nargs="+", default=["map"], choices=["map", "none"])
    parser.add_argument("--particles", type=int, default=30, help="in each of two series")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    chosen = parser.parse_args()
    print("start  missing  snr   seed  relaxed  at the right mate  resolution  seconds")
    loop = product(chosen.start, chosen.missing, chosen.snr, chosen.seeds)
    for kind, missing, snr, seed in loop:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = nearly_symmetric(folder, missing=missing, snr=snr, particles=chosen.particles, seed=seed)
            searched = {"ini_high": 30.0, "healpix_order": 3}
            start = searched if kind == "map" else {"reference": None, "ini_high": 60.0, "healpix_order": 2}
            for relaxed in ("C1", GROUP):
                began = time.perf_counter()
                result = run_refine(
                    data,
                    folder / relaxed,
                    **start,
                    particle_diameter=DIAMETER + 20.0,
                    sigma_ang=4.0,
                    offset_range_px=2.0,
                    offset_step_px=2.0,
                    iterations=chosen.iterations,
                    threads=1,
                    relax_symmetry=relaxed,
                )
                share, _ = at_the_right_mate(data, result.optset)
                took = time.perf_counter() - began
                words = f"{kind:5}  {missing:7g}  {snr:4g}  {seed:4d}  {relaxed:7}  {share:17.2f}"
                print(f"{words}  {result.resolution_angstrom:8.1f} Å  {took:7.1f}", flush=True)


if __name__ == "__main__":
    main()
