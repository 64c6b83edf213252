"""Fisher information at the start of a climb, factorised in the way that costs least."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.motion.chain import ChainSolver
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.normal import ImageBlocks, NormalEquations, Solver
from tiltwise.motion.objective import Evidence, Free, Gradient

F64 = NDArray[np.float64]
Parts = tuple[F64, ...]
"""Tilts (F, 5), particles (P, 3), coefficients (F - 1, B, 3), amplitudes (N, M)."""


class Factorised(Protocol):
    """Damped information, whichever way it was factorised."""

    def step(self, gradient: Gradient) -> tuple[F64, F64, F64, F64]:
        """Newton step: tilts (F, 5), particles (P, 3), coefficients (F - 1, B, 3), amplitudes (N, M)."""
        ...

    def log_determinant(self) -> float:
        """Of everything that is free."""
        ...

    def covariance(self) -> tuple[F64, F64, F64]:
        """Variances of the tilts (5 F,), covariance of the particles (P, 3, 3) and of amplitudes (N M, N M)."""
        ...

    def draw(self, rng: np.random.Generator, modes: int) -> tuple[F64, F64, F64, F64]:
        """A step drawn from the Gaussian with this curvature."""
        ...


class Curvature:
    """Information at an alignment, factorised with the dampings that are asked for.

    Turns are small: the geometry of the start serves the whole climb.
    """

    def __init__(self, specimen: Specimen, evidence: Evidence, start: Alignment, free: Free) -> None:
        self.specimen, self.start, self.free = specimen, start, free
        self.blocks = ImageBlocks.of(specimen, evidence, start)
        self.chained = ChainSolver.serves(specimen, start)
        self._normal: NormalEquations | None = None
        self._solvers: dict[float, Factorised] = {}

    @property
    def normal(self) -> NormalEquations:
        """All blocks, modes of all tilts together."""
        if self._normal is None:
            self._normal = NormalEquations.from_blocks(self.specimen, self.start, self.blocks)
        return self._normal

    def solver(self, damping: float) -> Factorised:
        """With this damping."""
        if damping not in self._solvers:
            self._solvers[damping] = (
                ChainSolver(self.specimen, self.start, self.blocks, self.free, damping)
                if self.chained
                else Solver(self.normal, self.free, damping)
            )
        return self._solvers[damping]
