"""Does an alignment predict data it was not fitted to?  Otherwise it is reported and not applied.

Tilts are fitted to one half set and judged by the particles of the other, which predict themselves from references
of their own half; positions are fitted to every second tilt and judged by the others; motion is fitted to one half
set and judged by the trajectories that its prior predicts for the particles of the other, deformations as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from tiltwise.exec.threads import ordered_map
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.learning import Climb
from tiltwise.motion.objective import Evidence, Free
from tiltwise.motion.outliers import Agreement
from tiltwise.motion.priors import Priors
from tiltwise.motion.series import SeriesData

F64 = NDArray[np.float64]

LEVEL = 0.01
"""Nominal chance of accepting anything in a series without signal, all families together.  Gains of few blocks are not
quite Gaussian, and particles that overlap share noise: in simulations of crowded noise a level of 0.05 let 18 % pass.
What data support exceeds either limit by far."""
BLOCKS = 16
"""Spatial blocks of particles, at most, that count as independent."""
FAMILIES = ("large shifts", "tilts", "positions", "motion", "deformation")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one family of parameters."""

    family: str
    gain: float
    """nats that held-out images gain"""
    limit: float
    """one-sided lower limit of the gain"""
    blocks: int

    @property
    def improved(self) -> bool:
        """Whether held-out images gain beyond chance."""
        return self.limit > 0.0

    @property
    def word(self) -> str:
        """improved, worse or unchanged."""
        if self.improved:
            return "improved"
        return "worse" if self.gain < 0.0 and 2.0 * self.gain - self.limit < 0.0 else "unchanged"


def judged(family: str, gains: F64, block: NDArray[np.intp], families: int) -> Verdict:
    """Verdict from gains (n,) of particles in spatial blocks (n,)."""
    sums = np.array([gains[block == number].sum() for number in np.unique(block)])
    n = len(sums)
    if n < 2:
        return Verdict(family, float(gains.sum()), -np.inf, n)
    quantile = -float(stdtrit(n - 1, LEVEL / families))
    return Verdict(family, float(sums.sum()), float(sums.sum() - quantile * np.sqrt(n) * sums.std(ddof=1)), n)


def spatial_blocks(positions: F64, seen: NDArray[np.bool_], most: int = BLOCKS) -> NDArray[np.intp]:
    """(P,) block of every particle: cut in two along the longest extent until there are `most`, -1 if unseen."""
    result = np.full(len(positions), -1, np.intp)
    parts = [np.flatnonzero(seen)]
    while len(parts) < most:
        parts.sort(key=len)
        largest = parts.pop()
        if len(largest) < 4:
            parts.append(largest)
            break
        axis = int(np.argmax(np.ptp(positions[largest], axis=0)))
        order = largest[np.argsort(positions[largest, axis], kind="stable")]
        parts += [order[: len(order) // 2], order[len(order) // 2 :]]
    for number, part in enumerate(parts):
        result[part] = number
    return result


def gains_of(specimen: Specimen, evidence: Evidence, after: Alignment, before: Alignment, other: Specimen) -> F64:
    """(P,) gain of every particle; `other` is the specimen of `before`."""
    new, _ = evidence.at(after.predict(specimen))
    old, _ = evidence.at(before.predict(other))
    return np.bincount(evidence.particle, new - old, minlength=len(specimen.position_px)).astype(np.float64)


def tilts_alone(alignment: Alignment, specimen: Specimen) -> Alignment:
    """The turns and shifts of an alignment, particles where they were."""
    return replace(Alignment.none(specimen), turn=alignment.turn, shift_px=alignment.shift_px)


@dataclass(frozen=True, slots=True)
class Judge:
    """What the verdicts of one series need."""

    data: SeriesData
    evidence: Evidence
    halves: NDArray[np.int64]
    """(P,) of the members"""
    free: Free
    climb: Climb
    families: int
    """verdicts of this series, which share the level"""
    threads: int = 1
    """2 work on both halves at a time"""

    def _of_parts(self, gains: Callable[[int], F64], parts: tuple[int, int]) -> F64:
        """(P,) sum of the gains of two halves, or of odd and even tilts."""
        return np.asarray(sum(ordered_map(gains, parts, min(self.threads, 2)), np.zeros(len(self.halves))))

    def _blocks(self) -> NDArray[np.intp]:
        return spatial_blocks(self.data.position_px, self.data.seen)

    def _judge(self, family: str, gains: F64) -> Verdict:
        seen = np.bincount(self.evidence.particle, minlength=len(gains)) > 0
        return judged(family, gains[seen], self._blocks()[seen], self.families)

    def tilts(self, start: Alignment) -> tuple[Verdict, Agreement]:
        """Turns and shifts, and how the tilts agree with what the other half set says of them.

        Tilts without signal do not enter the verdict: they are to be put back to where they were.
        """
        still, only = self.data.specimen(), Free(angles=False, shifts=False, positions=self.free.positions)
        blurred = self.evidence.blurred()
        none = Alignment.none(still)

        def of_half(half: int) -> tuple[Evidence, F64, F64]:
            fitting, testing = (self.evidence.of(chosen) for chosen in (self.halves == half, self.halves != half))
            if not (len(fitting.particle) and len(testing.particle)):
                nothing = testing.only(np.zeros(len(testing.particle), bool))
                return nothing, np.zeros(0), np.zeros(0)
            near = self.climb(still, blurred.of(self.halves == half), start, self.free).alignment
            fitted = self.climb(still, fitting, near, self.free).alignment
            after = self.climb(still, testing, tilts_alone(fitted, still), only).alignment
            before = self.climb(still, testing, none, only).alignment
            return testing, testing.at(after.predict(still))[0], testing.at(before.predict(still))[0]

        parts = ordered_map(of_half, (1, 2), min(self.threads, 2))
        particle, tilt, power = (
            np.concatenate([getattr(testing, name) for testing, _, _ in parts])
            for name in ("particle", "tilt", "power")
        )
        after, before = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        agreement = Agreement.of_tilts(after, power, tilt, still.n_tilts)
        counted = ~agreement.without_signal[tilt]
        gains = np.bincount(particle, (after - before) * counted, minlength=len(self.halves))
        return self._judge("tilts", gains.astype(np.float64)), agreement

    def positions(self, fitted: Alignment, specimen: Specimen) -> Verdict:
        """Positions, the rigid part of which belongs to the tilts."""
        only = Free(angles=False, shifts=False, positions=True)
        rigid = replace(fitted, displacement_px=rigid_part(specimen, fitted, self.data.seen))

        def of_parity(parity: int) -> F64:
            fitting, testing = (self.evidence.only(self.evidence.tilt % 2 == p) for p in (parity, 1 - parity))
            motion, deformation = fitted.motion(specimen), fitted.deformation(specimen)
            frozen = replace(self.data.specimen(), motion_px=motion, given=deformation)
            none = Alignment.none(frozen)
            start = replace(rigid, coefficients=none.coefficients, amplitudes=none.amplitudes)
            after = self.climb(frozen, fitting, start, only).alignment
            return gains_of(frozen, testing, after, start, frozen)

        return self._judge("positions", self._of_parts(of_parity, (0, 1)))

    def added(self, start: Alignment, family: str, more: Priors, less: Priors) -> Verdict:
        """Motion or deformation, which `more` has and `less` has not; `start` has neither."""
        still, only = self.data.specimen(), Free(angles=False, shifts=False, positions=self.free.positions)

        def of_half(half: int) -> F64:
            fitting, testing = (self.evidence.of(chosen) for chosen in (self.halves == half, self.halves != half))
            known = np.flatnonzero((self.halves == half) & self.data.seen)
            if len(known) < 2 or not len(testing.particle):
                return np.zeros(len(self.halves))
            judged_by = []
            for priors in (more, less):
                specimen = self._of_half(priors, known)
                fitted = self.climb(specimen, fitting, priors.begin(specimen, start, still), self.free).alignment
                frozen = replace(still, motion_px=fitted.motion(specimen), given=fitted.deformation(specimen))
                judged_by.append((frozen, self.climb(frozen, testing, tilts_alone(fitted, frozen), only).alignment))
            (with_it, after), (without, before) = judged_by
            return gains_of(with_it, testing, after, before, without)

        return self._judge(family, self._of_parts(of_half, (1, 2)))

    def _of_half(self, priors: Priors, known: NDArray[np.intp]) -> Specimen:
        """All particles, with the modes of motion of some and what they mean for the others."""
        if priors.motion is None:
            return priors.specimen(self.data)
        part = replace(self.data, members=self.data.members[known], position_px=self.data.position_px[known])
        basis = part.basis(priors.motion.length_angstrom, priors.kernel)
        return priors.specimen(self.data, basis.at(self.data.position_px * self.data.series.pixel_size_angstrom))


def rigid_part(specimen: Specimen, alignment: Alignment, seen: NDArray[np.bool_]) -> F64:
    """(P, 3) the rigid motion closest to the displacements of the particles that were seen."""
    arms = specimen.position_px - specimen.centre_px
    displacement = alignment.displacement_px
    if seen.sum() < 3:
        return np.tile(displacement[seen].mean(axis=0) if seen.any() else np.zeros(3), (len(arms), 1))
    # d = a + r x arm, linear in six numbers
    design = np.zeros((len(arms), 3, 6))
    design[:, :, :3] = np.eye(3)
    for axis in range(3):
        design[:, :, 3 + axis] = np.cross(np.eye(3)[axis], arms)
    chosen = design[seen].reshape(-1, 6)
    six = np.linalg.lstsq(chosen, displacement[seen].ravel(), rcond=1e-9)[0]
    return np.asarray(design @ six)
