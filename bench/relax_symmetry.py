"""Share of particles of a broken symmetry that `refine --relax-sym` brings to the right one of their mates.

    PYTHONPATH=python:tests python bench/relax_symmetry.py [--groups C6 D3 T] [--missing 0.5 0.25] [--seeds 1 2 3]

Phantoms of the group that lack a share of one subunit, stated at a mate at random with errors of 2 degrees.  The
starting map has the defect at 30 Å (map), is made from the stated poses (none), or is the true one at full resolution,
for one iteration (truth).  Not refined, but expanded by the group and classified inside a mask about one subunit: the
mate of every particle that is likeliest in the smaller class (classes).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from helpers.pseudo_symmetry import BEADS_OF_UNIT, BOX, DIAMETER, PIXEL, at_the_right_mate, nearly_symmetric
from helpers.refinements import run_refine
from tiltwise.classes import classify
from tiltwise.classes.options import ClassifyOptions
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.model import OptimisationSet
from tiltwise.selection import expand
from tiltwise.selection.options import ExpandOptions
from tiltwise.sim.density import sample_map
from tiltwise.sim.phantom import build_phantom
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.filters import low_pass

STARTS: dict[str, dict[str, Any]] = {
    "map": {"ini_high": 30.0, "healpix_order": 3},
    "none": {"reference": None, "ini_high": 60.0, "healpix_order": 2},
    "truth": {"ini_high": 13.0, "healpix_order": 3, "iterations": 1},
    "classes": {},
}


def run(command: Any, options: Any) -> Any:
    """A job without a report."""
    with FolderJob(options, ["tiltwise", options.command], SilentProgress()) as job:
        return command.run(options, job, SilentProgress())


def classified(data: SimulatedData, folder: Path, group: str, box: int) -> OptimisationSet:
    """The set with every particle at the mate that is likeliest in the smaller of two classes."""
    whole = build_phantom(DIAMETER * box / BOX, BEADS_OF_UNIT * len(symmetry_matrices(group)), group, 1)
    first = slice(0, BEADS_OF_UNIT)
    unit = replace(
        whole, position_angstrom=whole.position_angstrom[first], weight=whole.weight[first], kind=whole.kind[first]
    )
    blurred = low_pass(sample_map(unit, box, PIXEL), PIXEL, 30.0)
    write_map(folder / "mask.mrc", np.clip(blurred / (0.15 * blurred.max()), 0.0, 1.0).astype(np.float32), PIXEL)
    run(expand, ExpandOptions(input=data.optimisation_set, output=folder / "expand", symmetry=group))
    options = ClassifyOptions(
        input=folder / "expand" / "optimisation_set.star",
        output=folder / "classify",
        mask=folder / "mask.mrc",
        box=box * 3 // 2,
        crop=box,
        particle_diameter=DIAMETER * box / BOX + 20.0,
        threads=1,
    )
    state = run(classify, options).state
    mates = len(symmetry_matrices(group))
    best = state.posterior[:, int(np.argmin(state.share))].reshape(-1, mates).argmax(axis=1)
    expanded = load_optimisation_set(options.input)
    return replace(expanded, particles=expanded.particles.take(np.arange(len(best)) * mates + best))


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
            if kind == "classes":
                began = time.perf_counter()
                share, _ = at_the_right_mate(data, classified(data, folder, group, chosen.box), group)
                took = time.perf_counter() - began
                print(
                    f"{group:5}  {kind:7}  {missing:5g}  {snr:4g}  {seed:4d}  {share:26.2f}  {took:20.1f}", flush=True
                )
                continue
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
