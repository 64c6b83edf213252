"""Iterations of a classification at poses that stay: maps of the classes, scores, posteriors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.average import Average, Beyond
from tiltwise.classes.differences import ClassSums, Differences, Seen, expected_share
from tiltwise.classes.final import NONE
from tiltwise.classes.groups import PointGroups
from tiltwise.classes.guess import Particles
from tiltwise.classes.mixture import posterior, proportions
from tiltwise.classes.residuals import FixedScores
from tiltwise.classes.windows import Place
from tiltwise.errors import DataError
from tiltwise.kernels.api import C64, Backend
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
    pixel_size: float
    """Å, of the voxels of maps"""
    classes: int
    junk: bool
    tau2_fudge: float
    _particles: Particles | None = None

    def _differences(self, sums: ClassSums) -> Differences:
        average = self.average
        gain = expected_share(average.curve)
        seen = Seen(average.half_of, self.mask, average.radius, gain, self.pixel_size, self.tau2_fudge)
        return Differences(sums, seen, common=self.junk, alike=len(set(self.groups.kind_of)) == 1)

    def real(self) -> F64:
        """(P,) probability that there is a particle at all, by the average."""
        if not self.junk:
            return np.ones(len(self.over_nothing))
        log = np.stack([self.over_nothing, np.zeros_like(self.over_nothing)], axis=1)
        share = proportions(log, np.array([1.0 - JUNK, JUNK]))
        return posterior(log, share)[0][:, 0]

    def guess(self, seed: int, number: int) -> tuple[F64, list[Place]]:
        """(P, C) first posteriors, and the places where particles differ that they are made of.

        `number` is how many of the most significant places are passed over.

        Raises
        ------
        DataError
            if all positions are junk.
        """
        real = self.real()
        used = real > 0.5
        if not used.any():
            raise DataError(
                "no position holds a particle",
                where="--junk",
                expected="positions that the average of the particles explains better than nothing does",
                found=f"none of {len(real)}",
                fix="leave --junk out, or refine the poses first (tiltwise refine)",
            )
        found: list[Place] = []
        weights = np.ones((len(real), 1))
        if self.classes > 1:
            rng = np.random.default_rng(seed)
            if self._particles is None:
                shell, symmetry = int(self.average.radius), self.groups.common
                self._particles = Particles.of(
                    self.scores, self.mask, self.average.sphere, self.pixel_size, shell, symmetry, used, rng
                )
            rng = np.random.default_rng([seed, number])
            weights, found = self._particles.first_guess(self.classes, number, rng)
        weights = weights * real[:, None]
        return (np.concatenate([weights, 1.0 - real[:, None]], axis=1) if self.junk else weights), found

    def maps(self, weights: F64) -> tuple[list[dict[int, NDArray[np.float32]]], list[NDArray[np.float32]]]:
        """Differences of the classes without every fold, and of all particles, from posteriors (P, C)."""
        # a half set with next to nothing of a class would be divided by next to nothing
        chosen = np.where(weights > NONE, weights, 0.0)[:, : self.classes]
        kind_of = self.groups.kind_of

        def beyond(fold: int) -> dict[int, C64]:
            volumes = {kind: reference_volume(one.folds[fold]) for kind, one in self.beyond.items()}
            return {k: volumes[kind] for k, kind in enumerate(kind_of) if kind in volumes}

        sums = ClassSums(self.backend, self.groups.__getitem__, self.average.total.unit)
        self.scores.sums(chosen, self.average.total.box, sums.add, beyond)
        found, totals = self._differences(sums).solve()
        for k, kind in enumerate(kind_of):
            if kind in self.beyond:
                more = self.beyond[kind]
                found[k] = {fold: one + more.folds[fold] for fold, one in found[k].items()}
                totals[k] = totals[k] + more.whole
        return found, totals

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
