"""Classification of simulated particles of which half lack a domain, and of particles among junk.

PYTHONPATH=python:tests python bench/classify.py [CASE ...] [--align none local] [--particles N] [--seed N]

Cases are `mass:share:noise`, kDa, share of the mass that the domain has, and noise over the physical estimate of
`bench/global_refine.py`, or `junk:mass:noise`: 30 % false positions, half of them noise, half off by 100 Å.  For every
case: adjusted Rand index, the reliability of the posteriors (mean posterior against the share that is right, and their
root mean square difference), what the true maps would give, and the time beside that of `refine` with as many
iterations on the same data.  `--align local` begins with poses that are off by 4° and 4 Å.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from global_refine import BOX, options_of
from numpy.typing import NDArray

from helpers.mixed import MixedData, adjusted_rand_index, simulate_mixed
from helpers.refinements import run_refine
from tiltwise.classes import classify
from tiltwise.classes.classify import ClassifyResult
from tiltwise.classes.options import ClassifyOptions
from tiltwise.io.mrc import read_map, write_map
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.density import sample_map

BEADS = 1000
EDGES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
SHIFT = 100.0


def sort(sample: MixedData, folder: Path, threads: int, **changes: Any) -> tuple[ClassifyResult, float]:
    """Classifies; returns seconds too."""
    options = ClassifyOptions(
        input=sample.data.optimisation_set,
        output=folder,
        box=BOX + 16,
        crop=BOX,
        particle_diameter=sample.data.particle_diameter_angstrom + 10.0,
        threads=threads,
        **changes,
    )
    began = time.perf_counter()
    with FolderJob(options, ["tiltwise", "classify"], SilentProgress()) as job:
        result = classify.run(options, job, SilentProgress())
    return result, time.perf_counter() - began


def reliability(posterior: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[str, float]:
    """Curve of a posterior (P,) against what is true (P,), as text, and its root mean square error over particles."""
    parts, square = [], 0.0
    for low, high in pairwise(EDGES):
        chosen = (posterior >= low) & ((posterior < high) | (high == 1.0))
        if chosen.any():
            mean, true = float(posterior[chosen].mean()), float(right[chosen].mean())
            parts.append(f"{mean:.2f}:{true:.2f} ({chosen.sum()})")
            square += chosen.sum() * (mean - true) ** 2
    return "  ".join(parts), float(np.sqrt(square / len(posterior)))


def two_classes(case: str, align: str, chosen: argparse.Namespace, folder: Path) -> None:
    """One case with a domain."""
    mass, share, noise = (float(word) for word in case.split(":"))
    options = options_of(mass, chosen.particles, chosen.seed, folder / "data", chosen.threads, noise, BEADS)
    errors = {"error_orientation": 0.0, "error_position": 0.0}
    if align == "local":
        errors = {"error_orientation": 4.0, "error_position": 4.0}
    sample = simulate_mixed(options.model_copy(update=errors), share)
    extra: dict[str, Any] = {} if align == "none" else {"align": align}
    result, took = sort(sample, folder / "job", chosen.threads, **extra)
    lacking, posterior = sample.kind == 1, result.state.posterior
    number = int(posterior[lacking].mean(axis=0).argmax())
    curve, error = reliability(posterior[:, number], lacking)
    index = adjusted_rand_index(sample.kind, result.state.classes - 1)
    began = time.perf_counter()
    run_refine(
        sample.data,
        folder / "refine",
        box=BOX + 16,
        crop=BOX,
        particle_diameter=sample.data.particle_diameter_angstrom + 10.0,
        iterations=max(result.state.iteration, 2),
        threads=chosen.threads,
        sigma_ang=5.0,
        healpix_order=3,
        offset_range_px=2.0,
    )
    beside = time.perf_counter() - began
    text = (
        f"{mass:.0f} kDa, {share:.0%} less in half of {len(lacking)}, noise x {noise:g}, align {align}: "
        f"ARI {index:.3f}, "
        f"{result.state.iteration} iterations, {took:.0f} s (refine --sigma-ang 5: {beside:.0f} s)\n"
        f"  expected wrong {(1 - posterior.max(axis=1)).sum():.1f}, wrong {wrong(sample, result)}; "
        f"reliability rms {error:.3f}: {curve}"
    )
    print(text, flush=True)
    if align == "none":
        whole, pixel = read_map(sample.data.true_map)
        lack = sample_map(sample.without, BOX, pixel)
        write_map(folder / "whole.mrc", whole, pixel)
        write_map(folder / "lacking.mrc", whole - lack, pixel)
        names = f"{folder / 'whole.mrc'},{folder / 'lacking.mrc'}"
        known, _ = sort(sample, folder / "known", chosen.threads, references=names, ini_high=10.0, iterations=1)
        print(
            f"  one iteration from the true maps: ARI {adjusted_rand_index(sample.kind, known.state.classes - 1):.3f}"
        )


def wrong(sample: MixedData, result: ClassifyResult) -> int:
    """Particles in the wrong class, whatever the classes are called."""
    found = result.state.classes - 1
    return int(min((found != sample.kind).sum(), (found == sample.kind).sum()))


def junk(case: str, chosen: argparse.Namespace, folder: Path) -> None:
    """One case with false positions."""
    _, mass, noise = case.split(":")
    options = options_of(
        float(mass), chosen.particles, chosen.seed, folder / "data", chosen.threads, float(noise), BEADS
    )
    options = options.model_copy(update={"error_orientation": 0.0, "error_position": 0.0})
    sample = simulate_mixed(options, 0.1, 0.0, 0.15, 0.15, SHIFT)
    true = sample.kind == 0
    for name, extra in (("--k 1 --junk", {"classes": 1, "junk": True}), ("--k 2", {"classes": 2})):
        result, took = sort(sample, folder / name, chosen.threads, **extra)
        classes = result.state.classes
        kept = classes == np.bincount(classes[true]).argmax()
        print(
            f"{mass} kDa, noise x {noise}, 15 % noise and 15 % off by {SHIFT:.0f} Å, {name}: "
            f"{(kept & true).sum() / kept.sum():.1%} of the kept are true, "
            f"{(kept & true).sum() / true.sum():.1%} of the true are kept, {took:.0f} s",
            flush=True,
        )


def main() -> None:
    """Simulate, classify, score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["430:0.1:3", "430:0.02:1", "430:0.02:3", "junk:430:3"])
    parser.add_argument("--align", nargs="+", default=["none"], choices=["none", "local"])
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    chosen = parser.parse_args()
    for case in chosen.cases:
        for align in ["none"] if case.startswith("junk") else chosen.align:
            with tempfile.TemporaryDirectory() as temporary:
                if case.startswith("junk"):
                    junk(case, chosen, Path(temporary))
                else:
                    two_classes(case, align, chosen, Path(temporary))


if __name__ == "__main__":
    main()
