"""Classification of simulated particles of which half lack a domain, and of particles among junk.

PYTHONPATH=python:tests python bench/classify.py [CASE ...] [--align none local] [--particles N] [--seeds N ...]

Cases are `mass:share:noise`, kDa, share of the mass that the domain has, and noise over that of the dose (3 is the
physical estimate of `bench/global_refine.py`); with a share of 0 all particles are alike.  `mass:share:noise:3` has
three classes: whole, and without one or the other of two domains.  `junk:mass:noise`: 30 % false positions, half of
them noise, half off by 100 Å.  For every case and seed: adjusted Rand index, particles expected to be in the wrong
class and those that are, the reliability of the posteriors (mean posterior against the share that is right, and their
root mean square difference), the same from the true maps, which no method can beat, and the time; with `--beside`
also that of `refine` with as many iterations on the same data.  `--align local` begins with poses that are off by 4°
and 4 Å.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import pairwise, permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from global_refine import BOX, options_of
from numpy.typing import NDArray

from helpers.mixed import MixedData, adjusted_rand_index, domain, simulate_mixed
from helpers.refinements import run_refine
from tiltwise.classes import classify
from tiltwise.classes.classify import ClassifyResult
from tiltwise.classes.options import ClassifyOptions
from tiltwise.io.mrc import read_map, write_map
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.density import GaussianDensity, sample_map
from tiltwise.sim.models import load_model

BEADS = 1000
EDGES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
SHIFT = 100.0


def options_for(sample: MixedData, folder: Path, threads: int, **changes: Any) -> ClassifyOptions:
    """Of a classification."""
    return ClassifyOptions(
        input=sample.data.optimisation_set,
        output=folder,
        box=BOX + 16,
        crop=BOX,
        particle_diameter=sample.data.particle_diameter_angstrom + 10.0,
        threads=threads,
        **changes,
    )


def sort(sample: MixedData, folder: Path, threads: int, **changes: Any) -> tuple[ClassifyResult, float]:
    """Classifies; returns seconds too."""
    options = options_for(sample, folder, threads, **changes)
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


def classes(case: str, align: str, seed: int, chosen: argparse.Namespace, folder: Path) -> None:
    """One case with a domain, or two."""
    mass, share, noise, *rest = (float(word) for word in case.split(":"))
    kinds = int(rest[0]) if rest else 2
    options = options_of(mass, chosen.particles, seed, folder / "data", chosen.threads, noise, BEADS)
    errors = {"error_orientation": 0.0, "error_position": 0.0}
    if align == "local":
        errors = {"error_orientation": 4.0, "error_position": 4.0}
    each = 1.0 / kinds if share else 0.0
    third: dict[str, Any] = {}
    if kinds == 3:
        density = load_model(options).density
        assert isinstance(density, GaussianDensity)
        kept = ~domain(density, share, opposite=True)
        instead = replace(
            density,
            position_angstrom=density.position_angstrom[kept],
            weight=density.weight[kept],
            kind=density.kind[kept],
        )
        third = {"other": each, "instead": instead}
    sample = simulate_mixed(options.model_copy(update=errors), share or 0.1, each, **third)
    extra: dict[str, Any] = {"classes": kinds} if align == "none" else {"classes": kinds, "align": align}
    result, took = sort(sample, folder / "job", chosen.threads, **extra)
    told = f"{mass:.0f} kDa, {share:.0%} less in {each:.0%} of {len(sample.kind)}, {kinds} classes, noise x {noise:g}"
    print(f"{told}, align {align}, seed {seed}: {result.state.iteration} iterations, {took:.0f} s")
    print(f"  found: {figures(sample, result.state.posterior)}", flush=True)
    if align == "none" and share:
        limit = of_true_maps(sample, folder, chosen.threads, third.get("instead"))
        print(f"  with the true maps: {figures(sample, limit)}", flush=True)
    if chosen.beside:
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
        print(f"  refine --sigma-ang 5: {time.perf_counter() - began:.0f} s", flush=True)


def figures(sample: MixedData, posterior: NDArray[np.float64]) -> str:
    """How good posteriors (P, K) are."""
    found, largest = posterior.argmax(axis=1), posterior.max(axis=1)
    kinds, kind = np.unique(sample.kind, return_inverse=True)
    expected = f"{(1 - largest).sum():.1f} wrong expected"
    if len(kinds) == 1:
        return f"posteriors up to {largest.max():.3f}, {expected}; shares {posterior.mean(axis=0).round(3)}"
    # classes have no names: those with which most are right
    named = max(permutations(range(posterior.shape[1])), key=lambda names: (np.array(names)[found] == kind).sum())
    right = np.array(named)[found] == kind
    curve, error = reliability(largest, right)
    index = adjusted_rand_index(kind, found)
    return f"ARI {index:.3f}, {expected}, {(~right).sum()} are; reliability rms {error:.3f}: {curve}"


def of_true_maps(sample: MixedData, folder: Path, threads: int, third: GaussianDensity | None) -> NDArray[np.float64]:
    """Posteriors (P, K) with maps of the phantoms, up to the same resolution as those that are found."""
    whole, pixel = read_map(sample.data.true_map)
    maps = [whole, whole - sample_map(sample.without, BOX, pixel)]
    if third is not None:
        maps.append(sample_map(third, BOX, pixel))
    names = [folder / f"true{number}.mrc" for number in range(len(maps))]
    for name, one in zip(names, maps, strict=True):
        write_map(name, one, pixel)
    references = ",".join(str(name) for name in names)
    options = options_for(
        sample, folder / "known", threads, references=references, ini_high=2.0 * pixel, classes=len(maps)
    )
    with FolderJob(options, ["tiltwise", "classify"], SilentProgress()) as job:
        run = classify.Classification(options, job, SilentProgress())
        return run.start(run.prepare()).posterior


def junk(case: str, seed: int, chosen: argparse.Namespace, folder: Path) -> None:
    """One case with false positions."""
    _, mass, noise = case.split(":")
    options = options_of(float(mass), chosen.particles, seed, folder / "data", chosen.threads, float(noise), BEADS)
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
    parser.add_argument("cases", nargs="*", default=["430:0.1:3", "430:0.02:2", "430:0.02:3", "430:0:3", "junk:430:3"])
    parser.add_argument("--align", nargs="+", default=["none"], choices=["none", "local"])
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--beside", action="store_true", help="time refine on the same data")
    chosen = parser.parse_args()
    for case, seed in product(chosen.cases, chosen.seeds):
        for align in ["none"] if case.startswith("junk") else chosen.align:
            with tempfile.TemporaryDirectory() as temporary:
                if case.startswith("junk"):
                    junk(case, seed, chosen, Path(temporary))
                else:
                    classes(case, align, seed, chosen, Path(temporary))


if __name__ == "__main__":
    main()
