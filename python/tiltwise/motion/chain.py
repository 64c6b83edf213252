"""The same normal equations along the chain of tilts: motion from one tilt to the next is a random walk.

In place of the steps of a walk the unknowns are where it has come, the state x_f of tilt f: what an image says then
belongs to its tilt alone, and the prior joins neighbours only, `|x_{f+1} - x_f|^2 / s_f^2`.  Tilts with their states
are eliminated one after the other, in blocks of 5 + 3 B, and all particles last.  The gauge, a stiff spring on the
rigid motion of all tilts together, is a handful of vectors beside the chain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from tiltwise.motion.geometry import Alignment, Specimen, gauge
from tiltwise.motion.normal import UNDETERMINED, ImageBlocks, damped_particles, fixed_tilts
from tiltwise.motion.objective import Free, Gradient

F64 = NDArray[np.float64]


def _lower(matrix: F64, right: F64, *, transposed: bool = False) -> F64:
    return np.asarray(solve_triangular(matrix, right, lower=True, trans=int(transposed), check_finite=False))


class ChainSolver:
    """Factorised normal equations with priors and damping, see `tiltwise.motion.normal.Solver`."""

    @staticmethod
    def serves(specimen: Specimen, alignment: Alignment) -> bool:
        """Whether it can be used, and costs less: particles are many or few beside the modes of all tilts."""
        modes = 3 * specimen.basis.shape[1]
        tilts, particles = float(specimen.n_tilts), 3.0 * len(specimen.position_px)
        if not modes or alignment.amplitudes.size or not (specimen.step_px > 0).all():
            return False
        chain = (5 + modes) * tilts
        # products of vectors of all particles here, of all modes there
        return bool(particles * particles * chain + particles**3 / 3 <= particles * chain * chain + chain**3 / 3)

    def __init__(
        self, specimen: Specimen, alignment: Alignment, blocks: ImageBlocks, free: Free, damping: float = 0.0
    ) -> None:
        self.free, self.steps = free, specimen.step_px
        self.tilts, self.modes = specimen.n_tilts, specimen.basis.shape[1]
        basis, least = specimen.basis, max(damping, UNDETERMINED)
        count, states = len(basis), 3 * self.modes
        self.particle = damped_particles(blocks.space.sum(axis=1), specimen.position_sigma_px**-2.0, damping)
        known = np.einsum("faa->fa", blocks.own)
        self.fixed = fixed_tilts(known.ravel(), free).reshape(self.tilts, 5)
        size = 5 + states
        chain = np.zeros((self.tilts, size, size))
        chain[:, :5, :5] = blocks.own
        pairs = (basis[:, :, None] * basis[:, None, :]).reshape(count, -1)
        of_states = (pairs.T @ blocks.space.reshape(count, -1)).reshape(self.modes, self.modes, self.tilts, 3, 3)
        chain[:, 5:, 5:] = of_states.transpose(2, 0, 3, 1, 4).reshape(self.tilts, states, states)
        across = (basis.T @ blocks.crossed.reshape(count, -1)).reshape(self.modes, self.tilts, 5, 3)
        chain[:, :5, 5:] = across.transpose(1, 2, 0, 3).reshape(self.tilts, 5, states)
        chain[:, 5:, :5] = np.swapaxes(chain[:, :5, 5:], 1, 2)
        diagonal = np.arange(size)
        chain[:, diagonal, diagonal] *= 1.0 + least
        weight = self.steps**-2.0
        state = np.arange(5, size)
        chain[1:, state, state] += weight[:, None]
        chain[1:-1, state, state] += weight[1:, None]
        self.held = np.zeros((self.tilts, size), bool)  # the walk begins where it is
        self.held[:, :5] = self.fixed
        self.held[0, 5:] = True
        for f in range(self.tilts):
            chain[f, self.held[f]] = 0.0
            chain[f][:, self.held[f]] = 0.0
            chain[f, self.held[f], self.held[f]] = 1.0
        self.lower: list[F64] = []
        self.carried: list[F64] = []
        for f in range(self.tilts):
            if f > 1:
                unit = np.zeros((size, states))
                unit[5:] = np.eye(states)
                self.carried.append(-weight[f - 1] * _lower(self.lower[-1], unit).T)
                chain[f, 5:, 5:] -= self.carried[-1] @ self.carried[-1].T
            else:
                self.carried.append(np.zeros((states, size)))
            self.lower.append(np.linalg.cholesky(chain[f]))
        if free.positions:
            self._join(specimen, alignment, blocks, known)

    def _join(self, specimen: Specimen, alignment: Alignment, blocks: ImageBlocks, known: F64) -> None:
        """Particles and the gauge, beside the chain."""
        basis, count = specimen.basis, len(specimen.basis)
        strength = float(np.abs(known).max(initial=1.0))
        conditions = np.sqrt(strength) * gauge(specimen, alignment)
        with_particles = np.zeros((self.tilts, 5 + 3 * self.modes, 3 * count + conditions.shape[1]))
        with_particles[:, :5, : 3 * count] = blocks.crossed.transpose(1, 2, 0, 3).reshape(self.tilts, 5, -1)
        moved = np.einsum("pb,pfij->fbipj", basis, blocks.space)
        with_particles[:, 5:, : 3 * count] = moved.reshape(self.tilts, 3 * self.modes, -1)
        with_particles[:, :5, 3 * count :] = conditions.reshape(self.tilts, 5, -1)
        with_particles[self.held] = 0.0
        self.beside = self._forward(with_particles)
        flat = self.beside.reshape(-1, self.beside.shape[2])
        products = flat.T @ flat
        inner, spring = products[: 3 * count, 3 * count :].copy(), products[3 * count :, 3 * count :]
        self.inner = inner
        self.spring = cho_factor(np.eye(len(spring)) + spring, lower=True, check_finite=False)
        left = inner @ cho_solve(self.spring, inner.T, check_finite=False) - products[: 3 * count, : 3 * count]
        rows = np.arange(3 * count).reshape(count, 3)
        left[rows[:, :, None], rows[:, None, :]] += self.particle
        self.last = cho_factor(left, lower=True, check_finite=False)

    def _forward(self, right: F64) -> F64:
        """(F, n, k) times the inverse of the lower triangle of the chain."""
        found = np.empty_like(right)
        for f, (lower, carried) in enumerate(zip(self.lower, self.carried, strict=True)):
            here = right[f]
            if f > 1:
                here = here.copy()
                here[5:] -= carried @ found[f - 1]
            found[f] = _lower(lower, here)
        return found

    def _backward(self, right: F64) -> F64:
        """The same for its transpose."""
        found = np.empty_like(right)
        for f in range(self.tilts - 1, -1, -1):
            here = right[f]
            if 0 < f < self.tilts - 1:
                here = here - self.carried[f + 1].T @ found[f + 1][5:]
            found[f] = _lower(self.lower[f], here, transposed=True)
        return found

    def _solved(self, chain: F64, particle: F64) -> tuple[F64, F64]:
        """Everything, from right-hand sides (F, n, k) and (3 P, k)."""
        chain = chain.copy()
        chain[self.held] = 0.0
        half = self._forward(chain)
        if not self.free.positions:
            return self._backward(half), np.zeros_like(particle)
        wide = self.beside.reshape(-1, self.beside.shape[2])
        met = wide.T @ half.reshape(len(wide), -1)
        n = len(particle)
        pulled = cho_solve(self.spring, met[n:], check_finite=False)
        moved = cho_solve(self.last, particle - met[:n] + self.inner @ pulled, check_finite=False)
        pulled = pulled - cho_solve(self.spring, self.inner.T @ moved, check_finite=False)
        left = half - (wide @ np.concatenate([moved, pulled])).reshape(half.shape)
        return self._backward(left), moved

    def step(self, gradient: Gradient) -> tuple[F64, F64, F64, F64]:
        """Newton step: tilts (F, 5), particles (P, 3), coefficients (F - 1, B, 3), amplitudes (0, 0)."""
        right = np.zeros((self.tilts, 5 + 3 * self.modes, 1))
        right[:, :5, 0] = gradient.tilt
        # a step of the walk moves all later states
        summed = gradient.coefficients.reshape(self.tilts - 1, -1) / self.steps[:, None]
        right[1:, 5:, 0] = summed
        right[1:-1, 5:, 0] -= summed[1:]
        chain, moved = self._solved(right, gradient.particle.reshape(-1, 1))
        tilt, coefficients = self._parts(chain[:, :, 0])
        return tilt, moved.reshape(-1, 3), coefficients, np.zeros((0, 0))

    def _parts(self, chain: F64) -> tuple[F64, F64]:
        """Tilts (F, 5) and coefficients (F - 1, B, 3) of states (F, n)."""
        walk = np.diff(chain[:, 5:], axis=0) / self.steps[:, None]
        return np.where(self.fixed, 0.0, chain[:, :5]), walk.reshape(self.tilts - 1, self.modes, 3)

    def log_determinant(self) -> float:
        """Of everything that is free, in coefficients."""
        factors = [*self.lower]
        if self.free.positions:
            factors += [self.spring[0], self.last[0]]
        total = sum(float(np.log(np.diagonal(factor)).sum()) for factor in factors)
        return float(2.0 * total + 6.0 * self.modes * np.log(self.steps).sum())

    def covariance(self) -> tuple[F64, F64, F64]:
        """Variances of the tilts (5 F,), covariance of the particles (P, 3, 3); there are no amplitudes."""
        count = len(self.particle)
        units = np.zeros((self.tilts, 5 + 3 * self.modes, 5 * self.tilts))
        for f in range(self.tilts):
            units[f, :5, 5 * f : 5 * f + 5] = np.eye(5)
        chain, _ = self._solved(units, np.zeros((3 * count, 5 * self.tilts)))
        tilts = np.array([chain[f, a, 5 * f + a] for f in range(self.tilts) for a in range(5)])
        tilts[self.fixed.ravel()] = 0.0
        if not self.free.positions:
            return tilts, np.zeros_like(self.particle), np.zeros((0, 0))
        whole = cho_solve(self.last, np.eye(3 * count), check_finite=False).reshape(count, 3, count, 3)
        return tilts, np.einsum("pipj->pij", whole).copy(), np.zeros((0, 0))

    def draw(self, rng: np.random.Generator, modes: int) -> tuple[F64, F64, F64, F64]:
        """A step drawn from the Gaussian with this curvature, in the parts of `step`."""
        half = rng.normal(size=(self.tilts, 5 + 3 * modes, 1))
        moved = np.zeros((3 * len(self.particle), 1))
        if self.free.positions:
            wide, n = self.beside.reshape(-1, self.beside.shape[2]), len(moved)
            moved = _lower(self.last[0], rng.normal(size=moved.shape), transposed=True)
            # the chain around what the particles make of it, on the spring of the gauge
            half -= (wide[:, :n] @ moved).reshape(half.shape)
            met = wide[:, n:].T @ half.reshape(len(wide), 1) + rng.normal(size=(len(self.spring[0]), 1))
            half -= (wide[:, n:] @ cho_solve(self.spring, met, check_finite=False)).reshape(half.shape)
        chain = self._backward(half)[:, :, 0]
        chain[self.held] = 0.0
        tilt, coefficients = self._parts(chain)
        return tilt, moved.reshape(-1, 3), coefficients, np.zeros((0, 0))
