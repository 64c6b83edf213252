"""Iterations of a classification at poses that stay: maps of the classes, scores, posteriors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.average import Average, Beyond
from tiltwise.classes.differences import ClassSums, Differences
from tiltwise.classes.final import NONE
from tiltwise.classes.groups import PointGroups
from tiltwise.classes.linear import first_guess
from tiltwise.classes.mixture import posterior, proportions
from tiltwise.classes.residuals import FixedScores
from tiltwise.errors import DataError
from tiltwise.kernels.api import C64, Backend
from tiltwise.maps.spectra import joined_fsc
from tiltwise.maps.volumes import reference_volume

F64 = NDArray[np.float64]
JUNK = 0.1
"""Share of positions without particle that is assumed at first."""


@dataclass(slots=True)
class FixedIterations:
    """K maps that are compared with residuals, and a class of junk if there is one."""

    scores: FixedScores
    average: Average
    over_nothing: F64
    """(P,) log likelihood of the average over that of nothing there"""
    backend: Backend
    groups: PointGroups
    beyond: Mapping[int, Beyond]
    """of the kinds of `groups` that are larger than what all share"""
    mask: NDArray[np.float32]
    """(N, N, N) where classes may differ"""
    classes: int
    junk: bool
    tau2_fudge: float

    def _sums(self, symmetry: Callable[[int], F64]) -> ClassSums:
        return ClassSums(self.backend, symmetry, self.average.half_of, self.average.total.unit)

    def _shared_sums(self) -> ClassSums:
        return self._sums(lambda number: self.groups.common)

    def _differences(self, sums: ClassSums) -> Differences:
        return Differences(sums, self.mask, self.average.radius, self.tau2_fudge)

    def real(self) -> F64:
        """(P,) probability that there is a particle at all, by the average."""
        if not self.junk:
            return np.ones(len(self.over_nothing))
        log = np.stack([self.over_nothing, np.zeros_like(self.over_nothing)], axis=1)
        share = proportions(log, np.array([1.0 - JUNK, JUNK]))
        return posterior(log, share)[0][:, 0]

    def guess(self, rng: np.random.Generator) -> tuple[F64, F64]:
        """(P, C) first posteriors, and the variance of particles along the strongest differences.

        Raises
        ------
        DataError
            if all positions are junk.
        """
        real = self.real()
        if not (real > 0.5).any():
            raise DataError(
                "no position holds a particle",
                where="--junk",
                expected="positions that the average of the particles explains better than nothing does",
                found=f"none of {len(real)}",
                fix="leave --junk out, or refine the poses first (tiltwise refine)",
            )
        if self.classes == 1:
            weights, strength = np.ones((len(real), 1)), np.zeros(0)
        else:
            signal = np.clip(joined_fsc(self.average.curve), 0.0, 0.99)
            weights, strength = first_guess(
                self.scores, self._differences, self._shared_sums, real, signal, self.classes, rng
            )
        weights = weights * real[:, None]
        return (np.concatenate([weights, 1.0 - real[:, None]], axis=1) if self.junk else weights), strength

    def maps(self, weights: F64) -> tuple[list[dict[int, NDArray[np.float32]]], list[NDArray[np.float32]]]:
        """Differences of the classes without every fold, and of all particles, from posteriors (P, C)."""
        # a half set with next to nothing of a class would be divided by next to nothing
        chosen = np.where(weights > NONE, weights, 0.0)[:, : self.classes]
        kind_of = self.groups.kind_of

        def beyond(fold: int) -> dict[int, C64]:
            volumes = {kind: reference_volume(one.folds[fold]) for kind, one in self.beyond.items()}
            return {k: volumes[kind] for k, kind in enumerate(kind_of) if kind in volumes}

        sums = self._sums(self.groups.__getitem__)
        self.scores.sums(chosen, chosen, self.average.total.box, sums.add, beyond)
        differences = self._differences(sums)
        solved = [differences.solve(k, differences.share(k)) for k in range(self.classes)]
        for k, kind in enumerate(kind_of):
            if kind in self.beyond:
                more, (folds, total) = self.beyond[kind], solved[k]
                solved[k] = {fold: one + more.folds[fold] for fold, one in folds.items()}, total + more.whole
        return [folds for folds, _ in solved], [total for _, total in solved]

    def log_likelihoods(self, maps: Callable[[int], Sequence[NDArray[np.float32]]]) -> F64:
        """(P, C) log likelihood of every class over that of nothing there; `maps(fold)` are K differences."""

        def volumes(fold: int) -> list[C64]:
            return [reference_volume(density) for density in maps(fold)]

        cross, quadratic = self.scores.score(volumes, self.classes)
        log = 2.0 * cross - quadratic + self.over_nothing[:, None]
        return np.concatenate([log, np.zeros((len(log), 1))], axis=1) if self.junk else log

    def step(self, weights: F64) -> F64:
        """(P, C) log likelihoods by maps made with posteriors (P, C)."""
        folds, _ = self.maps(weights)
        return self.log_likelihoods(lambda fold: [maps[fold] for maps in folds])
