"""Condensed evidence about CTF phases, and the cost of phase errors (Eqs. 23-28)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.compare import EPS32, assert_close, relative_l2
from helpers.kernel_problems import SliceProblem
from tiltwise.errors import ShapeError
from tiltwise.kernels.api import Backend

# odd and even volumes; an empty group; fewer components than a vector, more than a batch
EXTENTS = [(9, 4.0, [0, 1], 1), (14, 6.5, [0, 2, 2, 3], 5), (19, 9.0, [0, 3, 5], 261), (16, 8.0, [0, 0, 9], 128)]


@dataclass
class CondenseProblem:
    """Images of particles at different depths, in groups."""

    slices: SliceProblem
    depths: NDArray[np.float32]
    starts: NDArray[np.int32]
    turns: NDArray[np.float32]
    slopes: NDArray[np.float32]

    @classmethod
    def create(cls, size: int, radius: float, starts: list[int], k: int) -> CondenseProblem:
        """Depths of up to 1000 Å that turn the phase by up to a few whole turns."""
        rng = np.random.default_rng([size, k])
        return cls(
            SliceProblem.create(size, radius, starts[-1], k),
            rng.uniform(-1000, 1000, starts[-1]).astype(np.float32),
            np.array(starts, np.int32),
            rng.uniform(-0.5, 0.5, (len(starts) - 1, k)).astype(np.float32),
            rng.uniform(-4e-3, 0, k).astype(np.float32),
        )

    def computed(self, backend: Backend, start: float = 0.0, threads: int = 0) -> NDArray[np.float64]:
        """The kernel, adding to `start`."""
        p = self.slices
        out = np.full((len(self.turns), 8, p.slices.shape[1]), start)
        backend.condense(
            p.volume,
            p.matrices,
            p.frequencies,
            p.radius,
            p.slices,
            self.depths,
            self.starts,
            self.turns,
            self.slopes,
            out,
            threads=threads,
        )
        return out


@pytest.mark.parametrize(("size", "radius", "starts", "k"), EXTENTS)
def test_condensed_evidence_matches_the_oracle(
    compiled: Backend, oracle: Backend, size: int, radius: float, starts: list[int], k: int
) -> None:
    p = CondenseProblem.create(size, radius, starts, k)
    found, expected = p.computed(compiled, 2.0), p.computed(oracle, 2.0)
    # Coordinates are rounded at their size, phases at that of their turns (a few, times 2 pi): terms move in
    # proportion to what is summed, energy for the matrix and its geometric mean with the power for the vector.
    energy, power = np.abs(expected[:, 0] + expected[:, 2] - 4) ** 0.5, np.abs(expected[:, 7] - 2) ** 0.5
    scales = [energy**2] * 3 + [energy * power] * 4 + [power**2]
    for row, scale in enumerate(scales):
        error = np.linalg.norm(found[:, row] - expected[:, row]) / max(float(np.linalg.norm(scale)), 1e-30)
        assert error <= 128 * EPS32, f"row {row}: {error:.2e}"


def test_evidence_is_the_residual(oracle: Backend, backend: Backend) -> None:
    """u.R.u - 2 b.u + power is |X - C V|^2 summed over particles, whatever the phase errors (Eqs. 23-28)."""
    p = CondenseProblem.create(16, 8.0, [0, 4, 9], 120)
    found = p.computed(backend)
    slices = oracle.project(p.slices.volume, p.slices.matrices, p.slices.frequencies, p.slices.radius)
    rng = np.random.default_rng(0)
    for _ in range(50):
        error = rng.uniform(-10, 10, 120)
        direct = np.zeros(120)
        for i, depth in enumerate(p.depths):
            group = int(i >= 4)
            gamma = 2 * np.pi * (p.turns[group].astype(np.float64) + p.slopes.astype(np.float64) * depth)
            direct += np.abs(p.slices.slices[i] + np.sin(gamma + error) * slices[i]) ** 2
        r00, r01, r11, b0, b1, _, _, power = found.sum(axis=0)
        c, s = np.cos(error), np.sin(error)
        condensed = r00 * c * c + 2 * r01 * c * s + r11 * s * s - 2 * (b0 * c + b1 * s) + power
        tolerance = 1e-10 if backend.name == "reference" else 256 * EPS32
        assert_close(condensed, direct, tolerance)


def test_odd_evidence_turns_with_the_image(oracle: Backend, backend: Backend) -> None:
    """X exp(i r): rows 3 and 5, and 4 and 6, are the parts of one number that turns by r."""
    p = CondenseProblem.create(16, 8.0, [0, 5], 90)
    before = p.computed(backend)[0]
    p.slices.slices = np.ascontiguousarray(p.slices.slices * np.exp(0.7j), np.complex64)
    after = p.computed(backend)[0]
    for real, imaginary in ((3, 5), (4, 6)):
        turned = (before[real] + 1j * before[imaginary]) * np.exp(0.7j)
        assert_close(after[real] + 1j * after[imaginary], turned, 64 * EPS32)


def test_groups_and_chunks_do_not_matter(backend: Backend) -> None:
    p = CondenseProblem.create(14, 7.0, [0, 6], 140)
    whole = p.computed(backend)
    out = np.zeros_like(whole)
    for part in (slice(0, 2), slice(2, 6)):
        q = p.slices
        n = len(p.depths[part])
        backend.condense(
            q.volume,
            q.matrices[part].copy(),
            q.frequencies,
            q.radius,
            q.slices[part].copy(),
            p.depths[part].copy(),
            np.array([0, n], np.int32),
            p.turns,
            p.slopes,
            out,
        )
    assert out.tobytes() == whole.tobytes()


def test_starts_that_do_not_fit_are_refused(compiled: Backend) -> None:
    p = CondenseProblem.create(8, 4.0, [0, 1, 3], 10)
    for starts in ([0, 4, 3], [1, 2, 3], [0, 1, 2]):
        p.starts = np.array(starts, np.int32)
        with pytest.raises(ShapeError, match="does not cut the images into groups"):
            p.computed(compiled)


def test_nothing_to_add(backend: Backend) -> None:
    for starts, k in (([0], 5), ([0, 0], 5), ([0, 2], 0)):
        found = CondenseProblem.create(8, 4.0, starts, k).computed(backend, 3.0)
        assert (found == 3.0).all()


def costs(n: int, m: int, p: int, k: int) -> tuple[NDArray[np.float64], ...]:
    """Random positive matrices, vectors, basis and parameters."""
    rng = np.random.default_rng([n, m, p, k])
    d = rng.normal(size=(m, 3, 2, k))
    matrices = np.stack([(d[:, :, 0] ** 2).sum(1), (d[:, :, 0] * d[:, :, 1]).sum(1), (d[:, :, 1] ** 2).sum(1)], axis=1)
    rows = rng.integers(0, m, n).astype(np.int32)
    return matrices, rng.normal(size=(m, 2, k)), rng.normal(size=(p, k)), rng.normal(size=(n, p)), rows


@pytest.mark.parametrize(
    ("n", "m", "p", "k"), [(1, 1, 1, 1), (5, 3, 3, 200), (2, 2, 9, 333), (3, 1, 0, 20), (0, 1, 2, 4)]
)
def test_cost_matches_the_oracle(compiled: Backend, oracle: Backend, n: int, m: int, p: int, k: int) -> None:
    arrays = costs(n, m, p, k)
    found, expected = compiled.phase_cost(*arrays), oracle.phase_cost(*arrays)
    assert found.shape == (n, 2, 1 + p + p * (p + 1) // 2)
    assert_close(found, expected, 1e-13)


def test_derivatives_against_differences(backend: Backend) -> None:
    matrices, vectors, basis, parameters, rows = costs(4, 2, 3, 150)
    found = backend.phase_cost(matrices, vectors, basis, parameters, rows)
    step = 1e-5
    first, second = [], []
    for unit in np.eye(3) * step:
        up, down = (backend.phase_cost(matrices, vectors, basis, parameters + s * unit, rows) for s in (1, -1))
        first.append((up[..., 0] - down[..., 0]) / (2 * step))
        second.append((up[..., 1:4] - down[..., 1:4]) / (2 * step))
    assert relative_l2(found[..., 1:4], np.stack(first, axis=-1)) <= 1e-7
    hessian = np.stack(second, axis=-1)
    rows3, columns3 = np.triu_indices(3)
    assert relative_l2(found[..., 4:], hessian[..., rows3, columns3]) <= 1e-7


def test_too_many_parameters_are_refused(compiled: Backend) -> None:
    with pytest.raises(ShapeError, match="too many parameters"):
        compiled.phase_cost(*costs(1, 1, 65, 3))
