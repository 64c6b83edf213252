"""Rates of the kernels on this machine, against its measured peak; every answer is checked in the same run.

python bench/kernels.py [--backend NAME] [--threads N] [--json FILE]

Work as in a refinement of 64 px images with 41 tilts: slices of a volume padded to 128 voxels, at the Fourier
pixels below 20 and 32 shells.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.kernels.api import Backend
from tiltwise.kernels.select import default_threads, load_backend
from tiltwise.spectral.disc import FourierDisc

BOX, PADDED, TILTS = 64, 128, 41
ROTATIONS, SHIFTS = 384, 81


def seconds(work: Callable[[], Any], least: float = 0.5) -> float:
    """Shortest time of one call, over at least `least` seconds and three calls."""
    work()
    best, spent, calls = np.inf, 0.0, 0
    while spent < least or calls < 3:
        began = time.perf_counter()
        work()
        took = time.perf_counter() - began
        best, spent, calls = min(best, took), spent + took, calls + 1
    return best


def peak_gflops() -> float:
    """Single-precision rate of a large matrix product with the threads NumPy's BLAS uses."""
    a = np.random.default_rng(0).normal(size=(3072, 3072)).astype(np.float32)
    out = np.empty_like(a)
    return 2 * 3072**3 / seconds(lambda: np.matmul(a, a, out=out)) / 1e9


def bandwidth_gb() -> float:
    """Bytes read and written by a copy far larger than the caches, one core."""
    a = np.ones(1 << 26, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / seconds(lambda: np.copyto(b, a)) / 1e9


def check(name: str, found: Any, expected: Any, tolerance: float) -> float:
    """Relative L2 error; stops the benchmark when it is too large."""
    error = float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))
    if not error <= tolerance:
        raise SystemExit(f"{name}: wrong answer, relative error {error:.2e}")
    return error


def measure(backend: Backend, oracle: Backend, radius: float, threads: int) -> list[dict[str, Any]]:
    """One row per kernel."""
    rng = np.random.default_rng(1)
    disc = FourierDisc.create(BOX)
    count = disc.count(radius)
    frequencies = disc.frequencies3d(count)
    shape = (PADDED, PADDED, PADDED // 2 + 1)
    volume = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    angles = np.linspace(-60, 60, TILTS)[:, None]
    tilts = Rotation.from_euler("y", angles, degrees=True).as_matrix()
    turns = Rotation.random(ROTATIONS, rng=rng).as_matrix()
    matrices = 2.0 * np.swapaxes(np.einsum("fij,rjk->rfik", tilts, turns).reshape(-1, 3, 3), 1, 2)
    matrices = np.ascontiguousarray(matrices, np.float32)
    samples, k = len(matrices) * count, TILTS * count
    some = slice(0, TILTS)
    rows = []

    def row(name: str, took: float, unit: str, per_second: float, error: float, **more: float) -> None:
        rows.append({"kernel": name, "radius": radius, "seconds": took, unit: per_second, "error": error, **more})

    def project() -> Any:
        return backend.project(volume, matrices, frequencies, PADDED // 2, threads=threads)

    slices = project()
    error = check("project", slices[some], oracle.project(volume, matrices[some], frequencies, PADDED // 2), 1e-5)
    took = seconds(project)
    row("project", took, "Msamples/s/core", samples / took / 1e6 / threads, error, ns=took * threads / samples * 1e9)

    weights = np.ones(slices.shape, np.float32)
    data, weight = np.zeros(shape, np.complex128), np.zeros(shape)
    exact = np.zeros(shape, np.complex128), np.zeros(shape)

    def insert(n: int | None = None) -> None:
        backend.insert(slices[:n], weights[:n], matrices[:n], frequencies, PADDED // 2, data, weight, threads=threads)

    insert(TILTS)
    oracle.insert(slices[some], weights[some], matrices[some], frequencies, PADDED // 2, *exact)
    error = check("insert", data, exact[0], 1e-5)
    took = seconds(insert)
    row("insert", took, "Msamples/s/core", samples / took / 1e6 / threads, error, ns=took * threads / samples * 1e9)

    indices, slopes = (
        np.arange(len(matrices), dtype=np.int32),
        rng.uniform(-1, 1, (len(matrices), 2)).astype(np.float32),
    )

    def curvature(n: int | None = None) -> Any:
        return backend.curvature(
            volume, matrices[:n], frequencies, PADDED // 2, slices, weights, indices[:n], slopes[:n], threads=threads
        )

    expected = oracle.curvature(
        volume, matrices[some], frequencies, PADDED // 2, slices, weights, indices[some], slopes[some]
    )
    error = check("curvature", curvature(TILTS), expected, 1e-5)
    took = seconds(curvature)
    row("curvature", took, "Msamples/s/core", samples / took / 1e6 / threads, error, ns=took * threads / samples * 1e9)

    flat = slices.reshape(ROTATIONS, k)
    image = np.ascontiguousarray(flat[0] + flat[1])
    power = rng.uniform(0.5, 1.0, k).astype(np.float32)
    phases = np.exp(1j * rng.uniform(0, 2 * np.pi, (SHIFTS, k))).astype(np.complex64)

    def score() -> Any:
        return backend.score(flat, image, power, phases, threads=threads)

    error = check("score", score()[0][:4], oracle.score(flat[:4], image, power, phases)[0], 1e-5)
    took = seconds(score)
    row("score", took, "GFLOP/s", 4.0 * ROTATIONS * SHIFTS * k / took / 1e9, error)

    posterior = rng.uniform(size=(64, SHIFTS)).astype(np.float32)

    def backproject() -> Any:
        return backend.backproject(posterior, image, power, phases, threads=threads)

    error = check("backproject", backproject()[0], oracle.backproject(posterior, image, power, phases)[0], 1e-5)
    took = seconds(backproject)
    row("backproject", took, "GFLOP/s", 4.0 * 64 * SHIFTS * k / took / 1e9, error)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    backend, oracle = load_backend(options.backend), load_backend("reference")
    machine = {"sgemm_gflops": peak_gflops(), "copy_gb_per_s_one_core": bandwidth_gb()}
    print(f"backend {backend.name}, {options.threads} threads; sgemm {machine['sgemm_gflops']:.0f} GFLOP/s", end="")
    print(f", copy {machine['copy_gb_per_s_one_core']:.1f} GB/s")
    rows = [row for radius in (20.0, 32.0) for row in measure(backend, oracle, radius, options.threads)]
    for row in rows:
        if "GFLOP/s" in row:
            rate = f"{row['GFLOP/s']:8.1f} GFLOP/s {row['GFLOP/s'] / machine['sgemm_gflops']:5.0%} of sgemm"
        else:
            rate = f"{row['Msamples/s/core']:8.1f} Msamples/s/core {row['ns']:5.2f} ns per sample"
        head = f"{row['kernel']:12} radius {row['radius']:3.0f}  {row['seconds'] * 1e3:8.2f} ms"
        print(f"{head} {rate}  error {row['error']:.1e}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "threads": options.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
