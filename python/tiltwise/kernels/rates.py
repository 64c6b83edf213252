"""Rates of the kernels against the measured peaks of this machine; every answer is checked in the same run.

Work as in a refinement of images of 64 pixels with 41 tilts: slices of a volume padded to 128 voxels, at the Fourier
pixels below 20 and 32 shells.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.errors import TiltwiseError
from tiltwise.kernels.api import Backend
from tiltwise.spectral.disc import FourierDisc

BOX, PADDED, TILTS = 64, 128, 41
ROTATIONS, SHIFTS = 384, 81
RADII = (20.0, 32.0)
TOLERANCE = 1e-5
"""Relative L2 error allowed against the float64 reference: rounding of single precision, summed at random."""
SAMPLE = 8
"""Bytes of one complex number in single precision."""

_PEAK = """
import time, numpy as np
a = np.random.default_rng(0).normal(size=(3072, 3072)).astype(np.float32)
out, best, spent = np.empty_like(a), np.inf, 0.0
while spent < 0.7:
    began = time.perf_counter()
    np.matmul(a, a, out=out)
    took = time.perf_counter() - began
    best, spent = min(best, took), spent + took
print(2 * 3072**3 / best)
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured peaks."""

    threads: int
    flops: float
    """single-precision operations per second of a large matrix product of NumPy's BLAS on that many threads"""
    bytes_per_s: float
    """read and written by copies far larger than the caches, on that many threads"""


@dataclass(frozen=True, slots=True)
class Rate:
    """One kernel."""

    kernel: str
    radius: float
    """shells of the images"""
    seconds: float
    samples: int
    """Fourier samples of slices, or of products of a slice with a shifted image, per call"""
    flops: float
    """operations per call of the plain formula, additions and multiplications counted one each"""
    bytes_moved: float
    """bytes per call that the kernel asks for or writes, most of which caches may hold"""
    error: float
    """relative L2 against the float64 reference"""


def _seconds(work: Callable[[], Any], least: float = 0.4) -> float:
    """Shortest time of one call, over at least `least` seconds and three calls."""
    work()
    best, spent, calls = np.inf, 0.0, 0
    while spent < least or calls < 3:
        began = time.perf_counter()
        work()
        took = time.perf_counter() - began
        best, spent, calls = min(best, took), spent + took, calls + 1
    return best


def measure_machine(threads: int) -> Machine:
    """Peaks on `threads` threads; the matrix product runs in a process of its own, whose BLAS obeys the number."""
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    done = subprocess.run([sys.executable, "-c", _PEAK], env=environment, capture_output=True, text=True, check=True)
    parts = [(np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        took = _seconds(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return Machine(threads, float(done.stdout), 2 * sum(a.nbytes for a, _ in parts) / took)


def _error(kernel: str, found: Any, expected: Any) -> float:
    error = float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))
    if not error <= TOLERANCE:
        raise TiltwiseError(
            f"the kernel {kernel!r} gives wrong results here",
            where="bench",
            expected=f"a relative error below {TOLERANCE:g} of the float64 reference",
            found=f"{error:.2e}",
            fix="take another --backend and report this",
        )
    return error


def measure_kernels(backend: Backend, oracle: Backend, radius: float, threads: int) -> list[Rate]:
    """Every kernel of a backend on images of `radius` shells.

    Raises
    ------
    TiltwiseError
        if a kernel differs from `oracle` by more than `TOLERANCE`.
    """
    rng = np.random.default_rng(1)
    disc = FourierDisc.create(BOX)
    count = disc.count(radius)
    frequencies, limit = disc.frequencies3d(count), PADDED // 2
    shape = (PADDED, PADDED, PADDED // 2 + 1)
    volume = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    tilts = Rotation.from_euler("y", np.linspace(-60, 60, TILTS)[:, None], degrees=True).as_matrix()
    turns = Rotation.random(ROTATIONS, rng=rng).as_matrix()
    matrices = 2.0 * np.swapaxes(np.einsum("fij,rjk->rfik", tilts, turns).reshape(-1, 3, 3), 1, 2)
    matrices = np.ascontiguousarray(matrices, np.float32)
    samples, k = len(matrices) * count, TILTS * count
    some = slice(0, TILTS)
    rates = []

    def add(kernel: str, work: Callable[[], Any], error: float, n: int, flops: float, moved: float) -> None:
        rates.append(Rate(kernel, radius, _seconds(work), n, flops, moved, error))

    # eight voxels per sample; 18 operations for the coordinates, 24 for the weights and 32 for the sums
    def project() -> Any:
        return backend.project(volume, matrices, frequencies, limit, threads=threads)

    slices = project()
    error = _error("project", slices[some], oracle.project(volume, matrices[some], frequencies, limit))
    add("project", project, error, samples, 74.0 * samples, 9.0 * SAMPLE * samples)

    weights = np.ones(slices.shape, np.float32)
    data, weight = np.zeros(shape, np.complex128), np.zeros(shape)
    exact = np.zeros(shape, np.complex128), np.zeros(shape)

    def insert(n: int | None = None) -> None:
        backend.insert(slices[:n], weights[:n], matrices[:n], frequencies, limit, data, weight, threads=threads)

    insert(TILTS)
    oracle.insert(slices[some], weights[some], matrices[some], frequencies, limit, *exact)
    error = _error("insert", data, exact[0])
    add("insert", insert, error, samples, 90.0 * samples, (12 + 8 * 2 * 24) * samples)

    indices = np.arange(len(matrices), dtype=np.int32)
    slopes = rng.uniform(-1, 1, (len(matrices), 2)).astype(np.float32)

    def curvature(n: int | None = None) -> Any:
        chosen = indices[:n], slopes[:n]
        return backend.curvature(volume, matrices[:n], frequencies, limit, slices, weights, *chosen, threads=threads)

    chosen = indices[some], slopes[some]
    expected = oracle.curvature(volume, matrices[some], frequencies, limit, slices, weights, *chosen)
    error = _error("curvature", curvature(TILTS), expected)
    add("curvature", curvature, error, samples, 240.0 * samples, (9 * SAMPLE + 12) * samples)

    flat = slices.reshape(ROTATIONS, k)
    image = np.ascontiguousarray(flat[0] + flat[1])
    power = rng.uniform(0.5, 1.0, k).astype(np.float32)
    phases = np.exp(1j * rng.uniform(0, 2 * np.pi, (SHIFTS, k))).astype(np.complex64)

    def score() -> Any:
        return backend.score(flat, image, power, phases, threads=threads)

    products = ROTATIONS * SHIFTS * k
    error = _error("score", score()[0][:4], oracle.score(flat[:4], image, power, phases)[0])
    add("score", score, error, products, 4.0 * products, SAMPLE * (ROTATIONS + SHIFTS) * k)

    log_likelihood = (20.0 * rng.normal(size=(ROTATIONS, SHIFTS))).astype(np.float32)
    priors = np.zeros(ROTATIONS, np.float32), np.zeros(SHIFTS, np.float32)

    def posterior() -> Any:
        return backend.posterior(log_likelihood, *priors, 0.999, threads=threads)

    error = _error("posterior", posterior()[0], oracle.posterior(log_likelihood, *priors, 0.999)[0])
    add("posterior", posterior, error, log_likelihood.size, 30.0 * log_likelihood.size, 8.0 * log_likelihood.size)

    few = np.ascontiguousarray(rng.uniform(size=(64, SHIFTS)).astype(np.float32))

    def backproject() -> Any:
        return backend.backproject(few, image, power, phases, threads=threads)

    error = _error("backproject", backproject()[0], oracle.backproject(few, image, power, phases)[0])
    products = len(few) * SHIFTS * k
    add("backproject", backproject, error, products, 4.0 * products, SAMPLE * (len(few) * 1.5 + SHIFTS) * k)

    shells = disc.shells[:count].astype(np.int32)

    def shell_sums() -> Any:
        return backend.shell_sums(slices, slices, None, shells, BOX // 2 + 1, threads=threads)

    error = _error(
        "shell_sums", shell_sums()[some], oracle.shell_sums(*2 * (slices[some],), None, shells, BOX // 2 + 1)
    )
    add("shell_sums", shell_sums, error, samples, 4.0 * samples, 2.0 * SAMPLE * samples)

    # images against the slices of their particle; shifts of 10 pixels at 3.5 points per period
    half = int(np.ceil(10.0 * 3.5 * radius / BOX))
    line = int(disc.frequencies[:count].max()) + 1
    angle = 2.0 * np.pi / (3.5 * radius) * np.outer(np.arange(line), np.arange(half + 1))
    waves = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    components = disc.frequencies[:count].astype(np.int32)
    correlated = min(16 * TILTS, len(slices))

    def cc_table(n: int = correlated) -> Any:
        arrays = slices[:n], slices[:n], weights[:n], weights[:TILTS], indices[:n] % TILTS, components, *waves
        return backend.cc_table(*arrays, threads=threads)

    own = slices[some], slices[some], weights[some], weights[:TILTS], indices[some], components, *waves
    error = _error("cc_table", cc_table(TILTS)[0], oracle.cc_table(*own)[0])
    # products, then sums over kx of the half disc and over ky of the square, each for shifts of one sign
    work = 16.0 * count + 8.0 * (half + 1) * (count / 2.0) + 8.0 * line * (half + 1) ** 2
    moved = (2 * SAMPLE + 8.0) * count + 4.0 * (2 * half + 1) ** 2
    add("cc_table", cc_table, error, correlated * count, work * correlated, moved * correlated)

    tables = cc_table()[0]
    number = rng.permutation(np.arange(correlated, dtype=np.int32))
    places = rng.uniform(2 - half, half - 2, (correlated, 2))

    def cc_cost() -> Any:
        return backend.cc_cost(tables, number, places, threads=threads)

    error = _error("cc_cost", cc_cost(), oracle.cc_cost(tables, number, places))
    add("cc_cost", cc_cost, error, correlated, 200.0 * correlated, (64 + 4 + 16 + 48.0) * correlated)
    return rates
