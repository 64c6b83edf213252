"""Share of particles of a broken symmetry that `refine --relax-sym` brings to the right one of their mates.

    PYTHONPATH=python:tests python bench/relax_symmetry.py [--groups C6 D3 T] [--missing 0.5 0.25] [--seeds 1 2 3]

Phantoms of the group that lack a share of one subunit, stated at a mate at random with errors of 2 degrees.  The
starting map has the defect at 30 Å (map), or is made from the stated poses (none); from the true map at full resolution
one iteration tells what the images hold (truth).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from helpers.pseudo_symmetry import BOX, DIAMETER, at_the_right_mate, nearly_symmetric
from helpers.refinements import run_refine

STARTS: dict[str, dict[str, Any]] = {
    "map": {"ini_high": 30.0, "healpix_order": 3},
    "none": {"reference": None, "ini_high": 60.0, "healpix_order": 2},
    "truth": {"ini_high": 13.0, "healpix_order": 3, "iterations": 1},
}


def main() -> None:
    """Simulate, refine with and without, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", nargs="+", default=["C6"])
    parser.add_argument("--missing", type=float, nargs="+", default=[0.5, 0.25], help="share of one subunit")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1])
    parser.add_argument("--start", nargs="+", default=["map"], choices=list(STARTS))
    parser.add_argument("--particles", type=int, default=30, help="in each of two series")
    parser.add_argument("--box", type=int, default=32, help="of the map; the particle is as large as it allows")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--data-model", default="stack2d", choices=["stack2d", "pseudo3d"])
    parser.add_argument("--fixed", action="store_true", help="refine without --relax-sym too")
    chosen = parser.parse_args()
    print("group  start  missing  snr   seed  relaxed  at the right mate  resolution  seconds")
    for group, kind, missing, snr, seed in product(
        chosen.groups, chosen.start, chosen.missing, chosen.snr, chosen.seeds
    ):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = nearly_symmetric(
                folder,
                group=group,
                missing=missing,
                snr=snr,
                particles=chosen.particles,
                seed=seed,
                box=chosen.box,
                width_px=7 * chosen.box,
                height_px=7 * chosen.box,
                spacing=0.5 * DIAMETER * chosen.box / BOX,
            )
            start = dict(STARTS[kind])
            if kind == "truth":
                start["reference"] = data.true_map
            for relaxed in ("C1", group)[0 if chosen.fixed else 1 :]:
                began = time.perf_counter()
                result = run_refine(
                    data,
                    folder / relaxed,
                    **{
                        "particle_diameter": DIAMETER * chosen.box / BOX + 20.0,
                        "box": chosen.box * 3 // 2,
                        "crop": chosen.box,
                        "sigma_ang": 4.0,
                        "offset_range_px": 2.0,
                        "offset_step_px": 2.0,
                        "iterations": chosen.iterations,
                        "threads": 1,
                        "relax_symmetry": relaxed,
                        "data_model": chosen.data_model,
                        **start,
                    },
                )
                share, _ = at_the_right_mate(data, result.optset, group)
                took = time.perf_counter() - began
                words = f"{group:5}  {kind:5}  {missing:7g}  {snr:4g}  {seed:4d}  {relaxed:7}  {share:17.2f}"
                print(f"{words}  {result.resolution_angstrom:8.1f} Å  {took:7.1f}", flush=True)


if __name__ == "__main__":
    main()
