"""Planted convention mistakes that `tiltwise check` names: `conventions.py [FIRST LAST] [--jobs N] [--snr X] ...`.

Run with `PYTHONPATH=python:tests`.  For every trial a set is simulated, then checked as it is and with each mistake;
prints how often the mistake was named, how often something else was, and how often a correct set was blamed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from helpers.plant import PLANTS, plant
from tiltwise.check.options import CheckOptions
from tiltwise.check.run import check
from tiltwise.jobs.progress import choose_progress
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import simulate

DIAMETER = 180.0
CORRECT = "none"


def trial(seed: int, snr: float, particles: int, pixel: float) -> list[tuple[str, list[str], str]]:
    """Name of the mistake, convention findings, and the hand's margin of every check of one simulated set."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = simulate(
            SimulateOptions(
                output=folder / "data",
                tilt_series=1,
                particles=particles,
                width_px=round(1600 / pixel / 2) * 2,
                height_px=round(1600 / pixel / 2) * 2,
                pixel_size=pixel,
                box=round(320 / pixel / 2) * 2,
                particle_diameter=DIAMETER,
                tilt_step=6.0,
                snr=snr,
                spacing=0.0,
                error_position=2.0,
                error_orientation=2.0,
                reference_resolution=12.0,
                seed=seed,
                threads=1,
            )
        )
        for mistake in (None, *PLANTS):
            path = plant(data.folder, folder / (mistake.code if mistake else CORRECT), *filter(None, [mistake]))
            options = CheckOptions(input=path, reference=data.reference, particle_diameter=DIAMETER)
            result = check(options, choose_progress(quiet=True, json=False))
            codes = [one.code for one in result.findings if one.code.startswith("TW-CONV") and one.severity != "note"]
            weight = ""
            if result.conventions is not None:
                weight = "; ".join(
                    f"{one.question} {one.nats:.0f} nats {one.sigma:.1f} sigma"
                    for one in result.conventions.answers
                    if one.question == "hand" or one.codes
                )
                if result.conventions.offset is not None:
                    weight += f"; offset {result.conventions.offset.tomogram_px.round(2)}"
            rows.append((mistake.name if mistake else CORRECT, codes, weight))
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int, nargs="?", default=1)
    parser.add_argument("last", type=int, nargs="?", default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--particles", type=int, default=40)
    parser.add_argument("--pixel", type=float, default=5.0)
    parser.add_argument("--verbose", action="store_true")
    chosen = parser.parse_args()
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # the processes share the cores already
        os.environ.setdefault(name, "1")
    began = time.perf_counter()
    named, other, runs = Counter[str](), Counter[str](), Counter[str]()
    with ProcessPoolExecutor(chosen.jobs, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(trial, seed, chosen.snr, chosen.particles, chosen.pixel)
            for seed in range(chosen.first, chosen.last + 1)
        ]
        code_of = {one.name: one.code for one in PLANTS}
        for seed, future in enumerate(futures, chosen.first):
            for name, codes, weight in future.result():
                runs[name] += 1
                named[name] += code_of.get(name) in codes if name != CORRECT else not codes
                other[name] += bool(set(codes) - {code_of.get(name)})
                if chosen.verbose or (codes != [code_of[name]] if name != CORRECT else bool(codes)):
                    print(f"  trial {seed}, {name}: {' '.join(codes) or 'nothing'} ({weight})", flush=True)
    print(f"{'planted':<20} {'trials':>6} {'named':>6} {'others named too':>17}")
    for name, count in runs.items():
        text = "not blamed" if name == CORRECT else ""
        print(f"{name:<20} {count:>6} {named[name]:>6} {other[name]:>17}  {text}")
    print(f"{time.perf_counter() - began:.0f} s, {chosen.jobs} processes")


if __name__ == "__main__":
    main()
