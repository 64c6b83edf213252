"""Search for the best alignment: Gauss-Newton with damping, or L-BFGS as in the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.normal import NormalEquations, Solver
from tiltwise.motion.objective import Evidence, Free, gradient, value

F64 = NDArray[np.float64]

FAR, NEAR = 1e-3, 1e-7
"""Damping of the first step from a start far from the end, and near to it; never less than the latter.  Curvatures of a
random walk differ by orders of magnitude, and damping keeps the weak directions behind; from afar it has to."""
LARGEST_DAMPING = 1e6
MORE = 1000.0
"""Damping after a failure is so many times larger: few factorisations on the way."""
SMALL_GAIN = 1e-3
"""Gain of log posterior, in nats per root of the number of images, below which a climb ends."""


@dataclass(frozen=True, slots=True)
class Climbed:
    """Where a climb ended."""

    alignment: Alignment
    value: float
    steps: int
    converged: bool
    solver: Solver
    """curvature at the start, hardly damped"""


def climb(
    specimen: Specimen,
    evidence: Evidence,
    start: Alignment,
    free: Free | None = None,
    steps: int = 60,
    damping: float = FAR,
) -> Climbed:
    """Levenberg-Marquardt with the Fisher information: never ends below its start."""
    free = free or Free()
    now = start
    here = gradient(specimen, evidence, now)
    small = SMALL_GAIN * np.sqrt(max(1, len(evidence.particle)))
    # turns are small: the geometry of the start serves the whole climb
    normal = NormalEquations.of(specimen, evidence, now)
    least = Solver(normal, free, NEAR)
    solvers = {NEAR: least}
    for number in range(steps):
        gained = 0.0
        while damping <= LARGEST_DAMPING:
            if damping not in solvers:
                solvers[damping] = Solver(normal, free, damping)
            tried = now.moved(*solvers[damping].step(here))
            gained = value(specimen, evidence, tried) - here.value
            if gained > 0:
                break
            damping *= MORE
        if not gained > 0:
            return Climbed(now, here.value, number, True, least)
        now, here = tried, gradient(specimen, evidence, tried)
        if gained < small:
            return Climbed(now, here.value, number + 1, True, least)
        damping = max(damping / MORE, NEAR)
    return Climbed(now, here.value, steps, False, least)


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

    def at(x: F64) -> Alignment:
        tilt, particle, mode, field = np.split(np.where(open_, x * unit, 0.0), ends)
        parts = (mode.reshape(modes.shape), field.reshape(fields.shape))
        return start.moved(tilt.reshape(-1, 5), particle.reshape(-1, 3), *parts)

    def cost(x: F64) -> tuple[float, F64]:
        found = gradient(specimen, evidence, at(x))
        tilt = found.tilt.copy()
        angles = (x * unit)[: 5 * tilts].reshape(-1, 5)[:, :3]
        tilt[:, :3] = np.einsum("fij,fi->fj", _left_jacobian(angles), tilt[:, :3])
        parts = (tilt, found.particle, found.coefficients, found.amplitudes)
        flat = np.concatenate([part.ravel() for part in parts]) * unit
        return -found.value, np.where(open_, -flat, 0.0)

    best = minimize(cost, np.zeros(len(unit)), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    solver = Solver(NormalEquations.of(specimen, evidence, start), free, NEAR)
    return Climbed(at(best.x), -float(best.fun), int(best.nit), bool(best.success), solver)


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
