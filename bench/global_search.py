"""Global search of 200 particles, 41 tilts, box 64, HEALPix order 2 (4,608 orientations) x 81 shifts, on this machine.

PYTHONPATH=python:tests python bench/global_search.py [--particles N] [--threads N]

For three signal levels: the dense search of every cell, with the rate of its products against a large matrix
product; the pruned search with the posterior mass it misses, measured on all particles; and the whole E-step, in
which peaks are climbed and the rest is searched one level finer.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from helpers.particles import SimulatedParticles
from tiltwise.em.expectation import Expectation
from tiltwise.em.grid import PoseGrid
from tiltwise.em.octree import GlobalSearch, mass_missed
from tiltwise.em.settings import Group, Settings
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.kernels.select import default_threads

BOX, TILTS, PIXEL = 64, 41, 4.0
ORDER, RANGE_PX, STEP_PX = 2, 5.0, 2.0
COARSE, FINE = 12.0, 20.0
"""Shells: 21 and 13 Å."""


def sgemm_gflops() -> float:
    """Single-precision rate of a large matrix product."""
    a = np.random.default_rng(0).normal(size=(3072, 3072)).astype(np.float32)
    best = np.inf
    for _ in range(4):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 3072**3 / best / 1e9


def run(nats: float, particles: int, threads: int, peak: float, *, dense: bool) -> None:
    """One signal level."""
    data = SimulatedParticles.create(
        particles,
        box=BOX,
        tilts=TILTS,
        pixel_size=PIXEL,
        nats=nats,
        radius=FINE,
        reach_angstrom=RANGE_PX * PIXEL / 2,
        threads=threads,
    )
    grid = PoseGrid(ORDER, 1, np.eye(3), None, RANGE_PX * PIXEL, STEP_PX * PIXEL, np.zeros(3))
    settings = Settings(grid, COARSE, FINE, FINE, PIXEL, 10.0, threads=threads)
    group = Group(
        data.series,
        data.noise_power,
        np.arange(particles),
        data.rotations,
        np.zeros((particles, 3)),
        data.raw.__getitem__,
        audited=4,
    )
    expectation = Expectation(data.scorer, data.disc, settings)
    levels = expectation._levels
    search = GlobalSearch(data.scorer, data.series, data.disc, PIXEL, levels)

    def prior(i: int, shifts: np.ndarray) -> np.ndarray:
        return settings.shift_prior(np.zeros(3), shifts)

    rotations, shifts, count = len(levels[-1].rotations), len(levels[-1].shifts), data.disc.count(COARSE)
    print(f"\nsignal {nats:.0f} nats below {FINE:.0f} shells; {particles} particles, {rotations} x {shifts} cells")
    began = time.perf_counter()
    kept = search.run(data.whitened, prior)
    took = time.perf_counter() - began
    share = np.mean([(c.cross > -np.inf).sum() for c in kept]) / (rotations * shifts)
    print(f"  pruned search {took:.2f} s, {share:.2%} of the cells of the last level scored")
    if dense:
        began = time.perf_counter()
        full = search.run(data.whitened, prior, prune=False)
        took = time.perf_counter() - began
        rate = 4.0 * particles * rotations * shifts * TILTS * count / took / 1e9
        print(f"  dense search {took:.2f} s, {rate:.0f} GFLOP/s, {rate / peak:.0%} of sgemm, slices included")
        missed = [mass_missed(f, k, lambda s: prior(0, s), levels[-1]) for f, k in zip(full, kept, strict=True)]
        print(f"  posterior mass missed: mean {np.mean(missed):.1e}, largest {np.max(missed):.1e}")
    began = time.perf_counter()
    found = expectation.run(group, None, None, lambda n: None)
    took = time.perf_counter() - began
    error = [float(angular_distance_deg(e.rotation, r)) for e, r in zip(found, data.rotations, strict=True)]
    moved = [np.linalg.norm(e.shift_angstrom - d) for e, d in zip(found, data.shifts, strict=True)]
    print(
        f"  E-step {took:.2f} s with audit; {np.mean([e.sharp for e in found]):.0%} sharp; median error "
        f"{np.median(error):.2f} deg, {np.median(moved):.2f} A; {np.mean(np.array(error) > 15):.1%} beyond 15 deg"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--nats", type=float, nargs="+", default=[40.0, 120.0, 400.0])
    parser.add_argument("--no-dense", action="store_true")
    options = parser.parse_args()
    peak = sgemm_gflops()
    print(f"{options.threads} threads; sgemm {peak:.0f} GFLOP/s")
    for nats in options.nats:
        run(nats, options.particles, options.threads, peak, dense=not options.no_dense)


if __name__ == "__main__":
    main()
