"""Results have the same bytes for any number of threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from helpers.kernel_problems import CorrelationProblem, ScoreProblem, SliceProblem
from tiltwise.kernels.api import Backend

SLICES = SliceProblem.create(24, 12.0, n=7, k=300)
SCORES = ScoreProblem.create(37, 6, 500)


def project(backend: Backend, threads: int) -> list[np.ndarray]:
    p = SLICES
    return [backend.project(p.volume, p.matrices, p.frequencies, p.radius, threads=threads)]


def insert(backend: Backend, threads: int) -> list[np.ndarray]:
    p = SLICES
    data, weight = p.accumulators()
    backend.insert(p.slices, p.weights, p.matrices, p.frequencies, p.radius, data, weight, threads=threads)
    return [data, weight]


def score(backend: Backend, threads: int) -> list[np.ndarray]:
    p = SCORES
    return list(backend.score(p.slices, p.image, p.power, p.phases, threads=threads))


def rough_score(backend: Backend, threads: int) -> list[np.ndarray]:
    p = SCORES
    wanted = np.arange(37 * 6).reshape(37, 6) % 5 < 2
    return list(backend.score(p.slices, p.image, p.power, p.phases, wanted=wanted, rough=True, threads=threads))


def posterior(backend: Backend, threads: int) -> list[np.ndarray]:
    cross, quadratic = SCORES.weights * 9, SCORES.slices[:, 0].real.copy()
    weights, summary = backend.posterior(cross, quadratic, SCORES.power[:6].copy(), 0.9, threads=threads)
    return [weights, np.array([summary.log_evidence, summary.max_probability, summary.entropy])]


def backproject(backend: Backend, threads: int) -> list[np.ndarray]:
    p = SCORES
    return list(backend.backproject(p.weights, p.image, p.power, p.phases, threads=threads))


def shell_sums(backend: Backend, threads: int) -> list[np.ndarray]:
    p = SCORES
    shells = (np.arange(500) // 29).astype(np.int32)
    return [backend.shell_sums(p.slices, p.slices[::-1].copy(), p.power, shells, 18, threads=threads)]


def curvature(backend: Backend, threads: int) -> list[np.ndarray]:
    p, rows = SLICES, np.arange(7, dtype=np.int32)[::-1].copy()
    arrays = p.volume, p.matrices, p.frequencies, p.radius, p.slices, p.weights, rows
    return [backend.curvature(*arrays, p.weights[:, :axes].copy(), threads=threads) for axes in (2, 3)]


def condense(backend: Backend, threads: int) -> list[np.ndarray]:
    p = SLICES
    out = np.zeros((2, 8, 300))
    starts, depths = np.array([0, 3, 7], np.int32), p.weights[:, 0].copy()
    turns, slopes = p.weights[:2].copy(), p.weights[2].copy()
    arrays = p.volume, p.matrices, p.frequencies, p.radius, p.slices, depths, starts, turns, slopes, out
    backend.condense(*arrays, threads=threads)
    return [out]


def phase_cost(backend: Backend, threads: int) -> list[np.ndarray]:
    values = np.random.default_rng(4).normal(size=(5, 3, 200))
    rows = np.arange(5, dtype=np.int32)
    arrays = values, values[:, :2].copy(), values[0], values[:, 0, :3].copy(), rows
    return [backend.phase_cost(*arrays, threads=threads)]


def cc_table(backend: Backend, threads: int) -> list[np.ndarray]:
    p = CorrelationProblem.create(7, 13, 6)
    return list(backend.cc_table(*p.arguments, threads=threads))


def cc_cost(backend: Backend, threads: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    tables, rows = rng.normal(size=(9, 11, 11)).astype(np.float32), rng.integers(0, 9, 2000).astype(np.int32)
    return [backend.cc_cost(tables, rows, rng.uniform(-6, 6, (2000, 2)), threads=threads)]


KERNELS = [
    project,
    insert,
    score,
    rough_score,
    posterior,
    backproject,
    shell_sums,
    curvature,
    condense,
    phase_cost,
    cc_table,
    cc_cost,
]


@pytest.mark.parametrize("kernel", KERNELS)
def test_bytes_do_not_depend_on_threads(compiled: Backend, kernel: Callable[..., list[np.ndarray]]) -> None:
    alone = kernel(compiled, 1)
    for threads in (2, 3, 8):
        for one, many in zip(alone, kernel(compiled, threads), strict=True):
            assert one.tobytes() == many.tobytes(), f"{threads} threads"
