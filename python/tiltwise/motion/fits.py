"""Fits and verdicts of one series after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import map_ahead
from tiltwise.motion.climb import FAR, NEAR, Climbed, climb, climb_lbfgs
from tiltwise.motion.drift import without_drift
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.learning import SERIES, MotionPrior, learn, learn_width, log_evidence, usual_prior
from tiltwise.motion.objective import Evidence, Free
from tiltwise.motion.options import AlignOptions
from tiltwise.motion.outliers import Agreement, named, particles_at, put_back, tilts_at
from tiltwise.motion.priors import DeformationPrior, Priors
from tiltwise.motion.residuals import residuals
from tiltwise.motion.results import SeriesResult, errors_of
from tiltwise.motion.series import SeriesData
from tiltwise.motion.shifts import shared_shifts
from tiltwise.motion.state import Fitted
from tiltwise.motion.verdict import Judge, Verdict, rigid_part

F64 = NDArray[np.float64]
Result = TypeVar("Result")

USUAL_DEFORMATION = 3.0
"""Å: where the search for the width of deformations begins."""


@dataclass(frozen=True, slots=True)
class Fits:
    """What the fits of a run have in common."""

    options: AlignOptions
    free: Free
    halves: NDArray[np.int64]
    """of all particles of the set"""
    check: Callable[[], None]
    """raises if the run is to end"""
    threads: int = 1
    """series that are fitted at a time"""
    inside: int = 1
    """threads for one of them"""

    def each(self, function: Callable[[int], Result], count: int, advance: Callable[[int], None]) -> list[Result]:
        """`function` of the numbers of `count` series, several at a time; `advance` hears how many are done."""

        def checked(number: int) -> Result:
            self.check()
            return function(number)

        found: list[Result] = []
        batches = [range(i, min(i + self.threads, count)) for i in range(0, count, self.threads)]
        for batch in map_ahead(checked, batches, self.threads):
            found += batch
            advance(len(batch))
        return found

    @property
    def usual_priors(self) -> Priors:
        """What was given, else where learning starts."""
        options = self.options
        motion = usual_prior(options.velocity, options.divergence) if options.motion else None
        if options.deformation == "none":
            return Priors(motion, None, options.kernel)
        width = options.deformation_sigma or USUAL_DEFORMATION
        per_tilt = options.deformation_per == "tilt"
        fields = DeformationPrior(options.deformation, options.grid_of_deformation, per_tilt, width)
        return Priors(motion, fields, options.kernel)

    def climb(
        self, specimen: Specimen, evidence: Evidence, start: Alignment, free: Free, damping: float = FAR
    ) -> Climbed:
        """By the method that was asked for."""
        if self.options.solver == "l-bfgs":
            return climb_lbfgs(specimen, evidence, start, free)
        return climb(specimen, evidence, start, free, damping=damping)

    def rigid(self, data: SeriesData, evidence: Evidence, now: Fitted, free: Free, number: int | None = None) -> Fitted:
        """Tilts and positions.  In round `number`, 0 or later, all shifts that particles share are looked at too.

        The first references are poor: a tilt may end beside a neighbour in a lattice, and better ones tell.
        """
        still = data.specimen()
        none = Alignment.none(still)
        start = replace(now.alignment, coefficients=none.coefficients, amplitudes=none.amplitudes)
        shared = now.shared
        if number == 0:
            shared = shared_shifts(evidence, still.n_tilts)
            if free.shifts:
                start = self.climb(still, evidence.blurred(), shared.start(start), free).alignment
        found = self.climb(still, evidence, start, free)
        if number and shared is not None and free.shifts:
            jumps = shared_shifts(evidence, still.n_tilts, found.alignment.predict(still))
            if jumps.shift_px.any():
                again = self.climb(still, evidence, jumps.start(found.alignment), free)
                if again.value > found.value:
                    found, shared = again, shared.after(jumps)
        return Fitted(still, back_in_reach(still, evidence, found.alignment), shared)

    def full(
        self, data: SeriesData, evidence: Evidence, start: Fitted, free: Free, priors: Priors
    ) -> tuple[Fitted, float]:
        """The same with motion and deformation, and its log evidence; starts from any alignment."""
        specimen = priors.specimen(data)
        begun = priors.begin(specimen, start.alignment, start.specimen)
        found = self.climb(specimen, evidence, begun, free, NEAR)
        weight = log_evidence(found)
        return Fitted(specimen, back_in_reach(specimen, evidence, found.alignment), start.shared), weight

    def learn(self, data: Sequence[SeriesData], evidence: Sequence[Evidence], fitted: Sequence[Fitted]) -> Priors:
        """Priors that explain the series with most images best.

        Motion alone first, which fields of every tilt would imitate; then deformations beside it, and motion again.
        """
        counts = [len(one.particle) for one in evidence]
        chosen = [int(i) for i in np.argsort(counts)[::-1][:SERIES] if counts[i]]
        starts = list(fitted)

        def total(priors: Priors) -> float:
            def of(number: int) -> float:
                i = chosen[number]
                starts[i], own = self.full(data[i], evidence[i], starts[i], self.free, priors)
                return own

            return sum(self.each(of, len(chosen), lambda done: None))

        options, priors = self.options, self.usual_priors

        def motion(beside: Priors, first: MotionPrior) -> MotionPrior:
            def of_motion(velocity: float, length: float) -> float:
                return total(replace(beside, motion=MotionPrior(velocity, length, 0)))

            return learn(of_motion, options.velocity, options.divergence, first)

        if priors.motion is not None:
            priors = replace(priors, motion=motion(priors.only(["motion"]), priors.motion))
        if priors.deformation is not None and options.deformation_sigma is None:
            fields, others = priors.deformation, priors

            def of_fields(sigma: float) -> float:
                return total(replace(others, deformation=replace(fields, sigma_angstrom=sigma)))

            width, trials = learn_width(of_fields, fields.sigma_angstrom)
            priors = replace(priors, deformation=replace(fields, sigma_angstrom=width, trials=trials))
        if priors.motion is not None and priors.deformation is not None:
            priors = replace(priors, motion=motion(priors, priors.motion))
        return priors

    def recovered(
        self, found: Fitted, evidence: Evidence, lost: NDArray[np.bool_], free: Free
    ) -> tuple[Fitted, NDArray[np.bool_]]:
        """Tilts (F,) that were lost, looked for once more from where they were; and which of them were found there.

        The others stay where they were, and nothing is fitted to them.
        """
        specimen = found.specimen

        def fitted(start: Alignment, left_out: NDArray[np.bool_]) -> Alignment:
            return self.climb(specimen, evidence.only(~left_out[evidence.tilt]), start, free, NEAR).alignment

        without = fitted(put_back(specimen, found.alignment, lost), lost)
        back = np.zeros(len(lost), bool)
        if free.shifts:
            own = evidence.only(lost[evidence.tilt])
            looked = shared_shifts(own, specimen.n_tilts, without.predict(specimen)).start(without)
            again = fitted(looked, back)
            back = lost & tilts_at(specimen, evidence, again).like_others()
            if back.any():
                without = fitted(put_back(specimen, again, lost & ~back), lost & ~back)
        shared = found.shared
        if shared is not None:
            shared = replace(shared, clipped=shared.clipped & ~lost)
        return Fitted(specimen, without, shared), back

    def settled(self, data: SeriesData, now: Fitted, drift: Mapping[int, F64]) -> Fitted:
        """Without the drift of the maps; particles that no image shows move with the others."""
        moved = without_drift(data, now.alignment.displacement_px, self.halves, drift)
        alignment = replace(now.alignment, displacement_px=moved)
        rigid = rigid_part(now.specimen, alignment, data.seen)
        moved = np.where(data.seen[:, None], moved, rigid)
        return replace(now, alignment=replace(alignment, displacement_px=moved))

    def conclude(
        self, data: SeriesData, evidence: Evidence, found: Fitted, priors: Priors, drift: Mapping[int, F64]
    ) -> SeriesResult:
        """Verdicts of one series, and the alignment they leave."""
        free, force, images = self.free, self.options.force, evidence
        none = Alignment.none(data.specimen())
        if not len(evidence.particle):
            return SeriesResult.unchanged(data, "no particle is visible")
        families = int(free.angles or free.shifts) + int(free.positions) + judgements(priors)
        halves = self.halves[data.members]
        verdicts: list[Verdict] = []
        held_out: Agreement | None = None
        if free.angles or free.shifts:
            start = found.shared.start(none) if found.shared is not None and free.shifts else none
            judge = Judge(data, evidence, halves, free, self.climb, families, self.inside)
            verdict, held_out = judge.tilts(start)
            verdicts.append(verdict)
            lost = held_out.without_signal
            if lost.any() and (verdict.improved or force):
                found, back = self.recovered(found, evidence, lost, free)
                # nothing is fitted to the others any more
                evidence = evidence.only(~(lost & ~back)[evidence.tilt])
                here = tilts_at(found.specimen, evidence, found.alignment)
                held_out = replace(held_out, value=np.where(back, here.value, held_out.value))
            if not (verdict.improved or force):
                held_out = None
                # everything else is fitted again, to the tilts as they were
                free = Free(angles=False, shifts=False, positions=free.positions)
                found = self.rigid(data, evidence, Fitted(data.specimen(), none, found.shared), free)
                if priors.families:
                    found, _ = self.full(data, evidence, found, free, priors)
        judge = Judge(data, evidence, halves, free, self.climb, families, self.inside)
        kept = found
        if priors.families:
            still = self.rigid(data, evidence, found, free)
            chosen, supported = supported_by(partial(judge.added, still.alignment), priors, force)
            verdicts += chosen
            if supported != priors.families:
                kept = still
                if supported:
                    kept, _ = self.full(data, evidence, still, free, priors.only(supported))
        if free.positions:
            verdicts.append(judge.positions(kept.alignment, kept.specimen))
            if not (verdicts[-1].improved or force):
                free, drift = Free(free.angles, free.shifts, positions=False), {}
                alone = replace(kept.alignment, displacement_px=np.zeros_like(kept.alignment.displacement_px))
                kept = replace(kept, alignment=self.climb(kept.specimen, evidence, alone, free).alignment)
        applied = {verdict.family: verdict.improved or force for verdict in verdicts}
        of_tilts = held_out or tilts_at(kept.specimen, evidence, kept.alignment)
        of_particles = particles_at(kept.specimen, evidence, kept.alignment)
        outliers = named(of_tilts), named(of_particles)
        if not any(applied.values()):
            same = SeriesResult.unchanged(data, "held-out data support no change", verdicts, found.shared)
            left = residuals(same.specimen, images, same.alignment)
            return replace(same, outlier_tilts=outliers[0], outlier_particles=outliers[1], residuals=left)
        kept = self.settled(data, kept, drift)
        errors = errors_of(kept.specimen, evidence, kept.alignment, free, self.options.seed)
        left = residuals(kept.specimen, images, kept.alignment)
        return SeriesResult(
            data, kept.specimen, kept.alignment, verdicts, applied, errors, found.shared, "", *outliers, left
        )


def back_in_reach(specimen: Specimen, evidence: Evidence, alignment: Alignment) -> Alignment:
    """Tilts whose particles have left their tables, by more than half, are as they were: nothing holds them there.

    A tilt with hardly any contrast can be carried off by noise; where tables end there is no way back.
    """
    moved = alignment.predict(specimen)[evidence.particle, evidence.tilt]
    outside = (np.abs(moved) > evidence.reach_px).any(axis=1)
    count = np.bincount(evidence.tilt, minlength=specimen.n_tilts)
    lost = np.bincount(evidence.tilt, outside, specimen.n_tilts) > 0.5 * np.maximum(count, 1)
    if not lost.any():
        return alignment
    return put_back(specimen, alignment, lost)


def judgements(priors: Priors) -> int:
    """Verdicts that motion and deformation may need, at most."""
    return {0: 0, 1: 1, 2: 4}[len(priors.families)]


def supported_by(
    judge: Callable[[str, Priors, Priors], Verdict], priors: Priors, force: bool
) -> tuple[list[Verdict], list[str]]:
    """A verdict on each of motion and deformation, and which of them to keep.

    Where both are fitted each is judged beside the other, which would take its place if it could.  If that supports
    neither, they are judged one after the other: two that imitate each other are not needed together.
    """
    families = priors.families
    beside = {
        name: judge(name, priors, priors.only([other for other in families if other != name])) for name in families
    }
    supported = [name for name in families if beside[name].improved or force]
    if len(families) == 2 and not supported:
        for name in families:
            beside[name] = judge(name, priors.only([*supported, name]), priors.only(supported))
            if beside[name].improved:
                supported.append(name)
    return list(beside.values()), supported
