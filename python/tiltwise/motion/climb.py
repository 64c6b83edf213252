"""Search for the best alignment: quasi-Newton steps on Fisher information, or L-BFGS as in the paper."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from tiltwise.motion.curvature import Curvature, Factorised, Parts
from tiltwise.motion.geometry import Alignment, Specimen, gauge
from tiltwise.motion.objective import Evidence, Free, Gradient, gradient

F64 = NDArray[np.float64]

FAR, NEAR = 2.0**-10, 2.0**-24
"""Damping of the first step from a start far from the end, and near to it.  Curvatures of a random walk differ by
orders of magnitude, and damping keeps the weak directions behind; from afar it has to."""
LARGEST_DAMPING = 1e6
MORE = 1024.0
"""Damping where short steps fail is so many times larger: few factorisations on the way."""
SHORTER = 0.25
"""Of a step after a failure."""
FAILURES = 2
"""Shorter steps in one direction before another one is tried."""
SHORTEST, LONGEST = 1e-5, 16.0
"""Steps over those of the Fisher information, which is that of the top of a hill, without noise."""
SMALL_GAIN = 1e-3
"""Gain of log posterior, in nats per root of the number of images, below which a climb ends."""
REMEMBERED = 8
"""Steps whose changes of the gradient correct the curvature."""


@dataclass(frozen=True, slots=True)
class Climbed:
    """Where a climb ended."""

    alignment: Alignment
    value: float
    steps: int
    converged: bool
    curvature: Curvature

    @property
    def solver(self) -> Factorised:
        """Curvature at the start, hardly damped."""
        return self.curvature.solver(NEAR)


@dataclass(frozen=True, slots=True)
class _Memory:
    """Steps and the changes of the gradient they brought, newest last: what the Fisher information did not foresee."""

    pairs: tuple[tuple[Parts, Parts, float], ...] = ()

    def after(self, step: Parts, before: Gradient, after: Gradient) -> _Memory:
        """One pair more, if it is one of a hill."""
        change = tuple(a - b for a, b in zip(_parts(before), _parts(after), strict=True))
        product = _dot(step, change)
        if not product > 0:
            return self
        return _Memory((*self.pairs[1 - REMEMBERED :], (step, change, product)))

    def step(self, solver: Factorised, here: Gradient) -> Parts:
        """Towards the top: the two loops of L-BFGS around a step of the solver."""
        right, weights = _parts(here), []
        for step, change, product in reversed(self.pairs):
            weight = _dot(step, right) / product
            right = tuple(a - weight * b for a, b in zip(right, change, strict=True))
            weights.append(weight)
        found = _solve(solver, here, right)
        if self.pairs:
            step, change, product = self.pairs[-1]
            scale = product / max(_dot(change, _solve(solver, here, change)), 1e-300)
            scale = min(max(scale, 1 / LONGEST), LONGEST)
            found = tuple(scale * part for part in found)
        for (step, change, product), weight in zip(self.pairs, reversed(weights), strict=True):
            weight -= _dot(change, found) / product
            found = tuple(a + weight * b for a, b in zip(found, step, strict=True))
        return found


def _parts(found: Gradient) -> Parts:
    return found.tilt, found.particle, found.coefficients, found.amplitudes


def _solve(solver: Factorised, here: Gradient, right: Parts) -> Parts:
    tilt, particle, coefficients, amplitudes = right
    return solver.step(replace(here, tilt=tilt, particle=particle, coefficients=coefficients, amplitudes=amplitudes))


def _dot(first: Parts, second: Parts) -> float:
    return float(sum(np.vdot(a, b) for a, b in zip(first, second, strict=True)))


def climb(
    specimen: Specimen,
    evidence: Evidence,
    start: Alignment,
    free: Free | None = None,
    steps: int = 60,
    damping: float = FAR,
) -> Climbed:
    """Quasi-Newton steps from the damped Fisher information: never ends below its start."""
    free = free or Free()
    curvature = Curvature(specimen, evidence, start, free)
    if not free.tilt.any() and not start.coefficients.size and not start.amplitudes.size:
        return _climb_apart(specimen, evidence, start, curvature, steps)
    now, here = start, gradient(specimen, evidence, start)
    small, memory = SMALL_GAIN * np.sqrt(max(1, len(evidence.particle))), _Memory()
    for number in range(steps):
        step, gained, shorter = memory.step(curvature.solver(damping), here), 0.0, 0
        while damping <= LARGEST_DAMPING:
            tried = now.moved(*step)
            there = gradient(specimen, evidence, tried)
            gained = there.value - here.value
            if gained > 0:
                break
            if shorter < FAILURES:
                shorter += 1
                step = tuple(SHORTER * part for part in step)
            else:
                shorter = 0
                damping = damping if memory.pairs else damping * MORE
                memory = _Memory()
                step = memory.step(curvature.solver(damping), here)
        if not gained > 0:
            return Climbed(now, here.value, number, True, curvature)
        memory = memory.after(step, here, there)
        now, here = tried, there
        if gained < small:
            return Climbed(now, here.value, number + 1, True, curvature)
    return Climbed(now, here.value, steps, False, curvature)


def _climb_apart(specimen: Specimen, evidence: Evidence, start: Alignment, curvature: Curvature, steps: int) -> Climbed:
    """Where tilts, motion and deformations are known, every particle climbs on its own, as fast as it can."""
    normal, count = curvature.normal, len(specimen.position_px)

    def of_particles(found: Gradient, at: F64) -> F64:
        own = np.bincount(evidence.particle, found.images, minlength=count)
        return np.asarray(own - 0.5 * normal.position_weight * (at**2).sum(axis=1))

    images = np.bincount(evidence.particle, minlength=count)
    active = (images > 0) & curvature.free.positions
    diagonal = np.einsum("pii->pi", normal.particle)
    weight = normal.particle + (NEAR * diagonal + normal.position_weight + 1e-12)[:, :, None] * np.eye(3)
    now, here = start.displacement_px, gradient(specimen, evidence, start)
    value, slope, stretch = of_particles(here, now), here.particle, np.ones(count)
    number = 0
    while number < steps and active.any():
        step = stretch[:, None] * np.linalg.solve(weight, slope[:, :, None])[:, :, 0]
        tried = np.where(active[:, None], now + step, now)
        there = gradient(specimen, evidence, replace(start, displacement_px=tried))
        found = of_particles(there, tried)
        better = active & (found > value)
        active &= np.where(better, found - value >= SMALL_GAIN * np.sqrt(images), stretch > SHORTEST)
        # how much flatter the hill is than foreseen: far from its top by a lot
        change = ((slope - there.particle) * step).sum(axis=1)
        flat = np.einsum("pi,pij,pj->p", step, weight, step) / np.where(change > 0, change, 1.0)
        flat = np.where(change > 0, np.clip(flat, 1.0 / LONGEST, LONGEST), np.minimum(4.0 * stretch, LONGEST))
        stretch = np.where(better, flat, SHORTER * stretch)
        now, slope = np.where(better[:, None], tried, now), np.where(better[:, None], there.particle, slope)
        value = np.where(better, found, value)
        number += 1
    alignment = replace(start, displacement_px=now)
    return Climbed(alignment, float(value.sum()), number, not active.any(), curvature)


def climb_lbfgs(
    specimen: Specimen, evidence: Evidence, start: Alignment, free: Free | None = None, steps: int = 500
) -> Climbed:
    """The same by L-BFGS, the paper's method; angles in units that move a particle by about a pixel."""
    free = free or Free()
    arm = max(float(np.linalg.norm(specimen.position_px - specimen.centre_px, axis=1).mean()), 1.0)
    tilts, count = specimen.n_tilts, len(specimen.position_px)
    modes, fields = start.coefficients, start.amplitudes
    rest = 3 * count + modes.size + fields.size
    unit = np.concatenate([np.tile([1 / arm] * 3 + [1.0] * 2, tilts), np.ones(rest)])
    others = np.ones(modes.size + fields.size, bool)
    open_ = np.concatenate([np.tile(free.tilt, tilts), np.full(3 * count, free.positions), others])
    ends = np.cumsum([5 * tilts, 3 * count, modes.size])

    rigid = np.where(open_[: 5 * tilts, None], unit[: 5 * tilts, None] * gauge(specimen, start), 0.0)
    if not free.positions:
        rigid = rigid[:, :0]
    left, size, _ = np.linalg.svd(rigid, full_matrices=False)
    rigid = left[:, size > 1e-9 * size.max(initial=0.0)]

    def held(x: F64) -> F64:
        """Without what is not fitted, and without the rigid motion of all tilts that positions make up for."""
        x = np.where(open_, x, 0.0)
        x[: 5 * tilts] -= rigid @ (rigid.T @ x[: 5 * tilts])
        return x

    def at(x: F64) -> Alignment:
        tilt, particle, mode, field = np.split(held(x) * unit, ends)
        parts = (mode.reshape(modes.shape), field.reshape(fields.shape))
        return start.moved(tilt.reshape(-1, 5), particle.reshape(-1, 3), *parts)

    def cost(x: F64) -> tuple[float, F64]:
        found = gradient(specimen, evidence, at(x))
        tilt = found.tilt.copy()
        angles = (held(x) * unit)[: 5 * tilts].reshape(-1, 5)[:, :3]
        tilt[:, :3] = np.einsum("fij,fi->fj", _left_jacobian(angles), tilt[:, :3])
        parts = (tilt, found.particle, found.coefficients, found.amplitudes)
        flat = np.concatenate([part.ravel() for part in parts]) * unit
        return -found.value, -held(flat)

    best = minimize(cost, np.zeros(len(unit)), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    curvature = Curvature(specimen, evidence, start, free)
    return Climbed(at(best.x), -float(best.fun), int(best.nit), bool(best.success), curvature)


def _left_jacobian(w: F64) -> F64:
    """(n, 3, 3) J with `exp([w + e]x) = exp([J e]x) exp([w]x)` for small e."""
    angle = np.linalg.norm(w, axis=1)[:, None, None]
    cross = np.zeros((len(w), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = w[:, [0, 1, 2]]
    cross[:, [1, 2, 0], [2, 0, 1]] = -w[:, [0, 1, 2]]
    small = np.maximum(angle, 1e-6)
    first = np.where(angle < 1e-4, 0.5, (1.0 - np.cos(small)) / small**2)
    second = np.where(angle < 1e-4, 1.0 / 6.0, (small - np.sin(small)) / small**3)
    return np.eye(3) + first * cross + second * (cross @ cross)
