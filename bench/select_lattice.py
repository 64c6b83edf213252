"""Precision and recall of `tiltwise select --lattice` on lattices with false particles planted among the true ones.

    PYTHONPATH=python:tests python bench/select_lattice.py [--error 2 4 6] [--false 0.3 0.6 0.8] [--seeds 1 2 3]

Lattices are a flat one and one on a tube, of about 230 and 200 places; poses have errors of so many Å along each axis
and so many degrees.  An eighth of the places has a particle with any orientation, an eighth one 40 % of the spacing
beside it; the other false particles are anywhere in the box around the lattice.  The last recall is that among the true
particles alone.  The last line is of sets of false particles alone, as dense as with a share of 0.8: how many of them
are kept (-1: refused, there is no lattice).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from helpers.false_particles import planted, set_of, sheet, tube
from tiltwise.errors import DataError
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model import OptimisationSet
from tiltwise.selection.lattice import conforming
from tiltwise.sim.specimen import random_rotations

SPACING = 80.0


def main() -> None:
    """Plant, clean, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--error", type=float, nargs="+", default=[2.0, 4.0, 6.0], help="of poses, Å and degrees")
    parser.add_argument("--false", type=float, nargs="+", default=[0.3, 0.6, 0.8], help="share of all particles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sym", default="C1")
    chosen = parser.parse_args()
    print("lattice  error  false  precision  recall  of the true alone  seconds")
    forms = {"flat": sheet(15, SPACING, 20.0), "tube": tube(14, 14, SPACING, 170.0)}
    for (form, poses), error, share in product(forms.items(), chosen.error, chosen.false):
        rows = [clean(set_of(*poses), share, error, seed, chosen.sym) for seed in chosen.seeds]
        precision, recall, best, seconds = np.mean(rows, axis=0)
        print(
            f"{form:7}  {error:5g}  {share:5g}  {precision:9.3f}  {recall:6.3f}  {best:17.3f}  {seconds:7.2f}",
            flush=True,
        )
    print("kept of false particles alone:", [alone(seed) for seed in chosen.seeds])


def alone(seed: int) -> int:
    """Number kept of 735 particles anywhere in the box around the tube; -1 if that is no lattice."""
    rng = np.random.default_rng(seed)
    optset = set_of(rng.uniform(0.0, 1.0, (735, 3)) * [380.0, 1160.0, 380.0] + 20.0, random_rotations(735, rng))
    try:
        return int(conforming(optset, np.arange(735), symmetry_matrices("C1")).kept.sum())
    except DataError:
        return -1


def clean(
    optset: OptimisationSet, share: float, error: float, seed: int, symmetry: str
) -> tuple[float, float, float, float]:
    """Precision, recall, recall of the true alone, and the time it took."""
    places = len(optset.particles)
    moved = places // 8
    true = places - 2 * moved
    anywhere = round(true * share / (1.0 - share)) - 2 * moved
    with tempfile.TemporaryDirectory() as folder:
        made = planted(
            optset,
            Path(folder),
            anywhere=max(anywhere, 0),
            turned=moved,
            between=moved,
            error_angstrom=error,
            error_deg=error,
            spacing=SPACING,
            seed=seed,
        )
        read = load_optimisation_set(made.optimisation_set, need_images=False)
    began = time.perf_counter()
    lattice = conforming(read, np.arange(len(read.particles)), symmetry_matrices(symmetry))
    took = time.perf_counter() - began
    clear = conforming(read, np.flatnonzero(made.true), symmetry_matrices(symmetry))
    best = float(clear.kept[made.true].mean())
    return float(made.true[lattice.kept].mean()), float(lattice.kept[made.true].mean()), best, took


if __name__ == "__main__":
    main()
