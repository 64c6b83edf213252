"""Lattices that do not lock in: alignments of hexagonal arrays by the plain objective and as they are done.

    PYTHONPATH=python:tests python bench/align_lattice.py [--snr 0.05] [--shift 20] [--seeds 6] [--rounds 2]

Plain: no prior on displacements, shifts that particles share are looked for in the first round alone.  Prints, by kind,
the median rms error of predicted positions (Å), means of tilts and particles locked in on neighbours, and of the
autocorrelation of the residual images at lattice vectors, in standard deviations.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from helpers.lattice import OneLook, aligned_array, array_options, ghosts, locked
from tiltwise.errors import DataError
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.motion.fits import Fits
from tiltwise.sim.simulate import simulate


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--shift", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    kinds: dict[str, tuple[type[Fits], dict[str, Any]]] = {
        "plain": (OneLook, {"position_sigma": 1e4}),
        "with the prior": (OneLook, {}),
        "as it is": (Fits, {}),
    }
    rows: dict[str, list[list[float]]] = {name: [] for name in ("before", *kinds, "truth")}
    for seed in range(1, chosen.seeds + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            options = array_options(folder / "data", snr=chosen.snr, error_shift=chosen.shift, seed=seed)
            data = simulate(options)
            for key, path in (
                ("before", data.optimisation_set),
                ("truth", data.truth.parent / "optimisation_set.star"),
            ):
                rows[key].append([np.nan, np.nan, np.nan, ghosts(options, data, load_optimisation_set(path))])
            for key, (kind, changes) in kinds.items():
                try:
                    result = aligned_array(data, folder / key, kind, rounds=chosen.rounds, **changes)
                except DataError:  # half maps that do not agree any more
                    rows[key].append([np.inf, np.nan, np.nan, np.nan])
                    continue
                found = locked(data, result)
                written = load_optimisation_set(result.outputs["optimisation_set"])
                score = ghosts(options, data, written)
                rows[key].append([found.rms_angstrom, found.tilts, 100.0 * found.particles, score])
                print(f"seed {seed} {key:>14}: {np.round(rows[key][-1], 2).tolist()}", flush=True)
    print(f"{'':>14} {'rms Å':>7} {'tilts':>6} {'particles %':>11} {'ghosts':>7}")
    for key, values in rows.items():
        known = [row for row in values if np.isfinite(row[3])]  # of those whose half maps agreed to the end
        _, tilts, particles, score = np.mean(known, axis=0)
        print(f"{key:>14} {np.median(np.array(values)[:, 0]):7.1f} {tilts:6.1f} {particles:11.1f} {score:7.1f}")


if __name__ == "__main__":
    main()
