"""The convention test: which reading of the metadata the images prefer, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.check.convention.offset import SharedOffset, shared_offset
from tiltwise.check.convention.readings import (
    Alternative,
    Reading,
    alternatives,
    coordinate_alternatives,
    coordinate_pairs,
)
from tiltwise.check.convention.scoring import Level, Scores

F64 = NDArray[np.float64]

LEAST_NATS, LEAST_SIGMA, GEOMETRIC_SIGMA = 15.0, 2.0, 4.0
"""Gain, and gain over its standard deviation, from which another reading is believed.

No gain lies half-way between the readings: two standard deviations above are four above what is expected if the stated
reading is right.  Among the many readings of the geometry more is asked for."""
CLEAR_SIGMA = 2.0
"""Standard deviations by which the stated reading must win to be called confirmed."""
_ROUNDS = 4
_FEW = 16
_ONE_PIXEL_CHI2, _OFF_CHI2 = 25.0, 36.0
_SMALLEST_OFFSET_PX = 0.35


@dataclass(frozen=True, slots=True)
class Answer:
    """What the images say to one question."""

    question: str
    preferred: str
    """"as stated", or what the images prefer instead"""
    codes: tuple[str, ...]
    """findings; empty where the stated reading is kept"""
    nats: float
    """of the preferred reading over the best other one"""
    sigma: float
    """the same in standard deviations, from the scatter of the particles"""
    particles: int

    @property
    def per_particle(self) -> float:
        """Nats per particle."""
        return self.nats / max(self.particles, 1)

    @property
    def verdict(self) -> str:
        """wrong, confirmed, or undecided."""
        if self.codes:
            return "wrong"
        return "confirmed" if self.sigma >= CLEAR_SIGMA and self.nats > 0 else "undecided"

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "question": self.question,
            "verdict": self.verdict,
            "preferred": self.preferred,
            "nats": round(self.nats, 2),
            "nats_per_particle": round(self.per_particle, 3),
            "sigma": round(self.sigma, 2),
        }


@dataclass(slots=True)
class ConventionResult:
    """Answers to all questions."""

    answers: list[Answer] = field(default_factory=list)
    particles: int = 0
    gain: float = 0.0
    """nats of the preferred reading over no particles"""
    signal_sigma: float = 0.0
    """by how many standard deviations it beats the same reading beside the particles"""
    offset: SharedOffset | None = None
    offset_codes: tuple[str, ...] = ()
    slopes: tuple[F64, F64] | None = None
    """defocus slopes, in units of the stated hand, and nats over none"""

    @property
    def has_signal(self) -> bool:
        """Whether the reference is found at all."""
        return self.signal_sigma >= GEOMETRIC_SIGMA

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "particles": self.particles,
            "nats_per_particle": round(self.gain / max(self.particles, 1), 3),
            "signal_sigma": round(self.signal_sigma, 2),
            "answers": [answer.plain() for answer in self.answers],
            "offset_px": None if self.offset is None else self.offset.tomogram_px.round(3).tolist(),
            "offset_sigma_px": None if self.offset is None else self.offset.sigma_px.round(3).tolist(),
        }


def decide(
    coarse: Level,
    fine: Level,
    readings: Sequence[Reading],
    *,
    slopes: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> ConventionResult:
    """Compare every alternative; take the best as long as one is better beyond doubt; then ask again.

    Low resolution (`coarse`) decides what moves particles or tilts, high resolution (`fine`) the rest.
    """
    present = list(readings)
    wrong: list[Answer] = []
    margins: dict[str, Answer] = {}
    for level, geometric in ((coarse, True), (fine, False)):
        best = level.score(present) if geometric else level.settled(present)
        for _ in range(_ROUNDS):
            winner, now = _ask(level, present, best, _choices(present, geometric), geometric)
            margins.update(now)
            advance()
            if winner is None and geometric and _signal(level, present, best) < GEOMETRIC_SIGMA:
                # Two mistakes at once can hide the particles altogether: neither alone brings them back.
                winner, _ = _ask(level, present, best, coordinate_pairs(present[0]), geometric)
                advance()
            if winner is None:
                break
            wrong += winner.answers()
            present = winner.readings
            best = winner.scores if geometric else level.settled(present)
    found = {answer.question for answer in wrong}
    result = ConventionResult(
        [*wrong, *(one for name, one in margins.items() if name not in found)],
        particles=len(best.gain),
        gain=best.total,
        signal_sigma=_signal(fine, present, best),
    )
    if result.has_signal:
        _place(fine, present, best, result)
        if slopes:
            result.slopes = _slopes(fine, present, best)
    return result


@dataclass(frozen=True, slots=True)
class _Trial:
    """An alternative and what it gives."""

    alternative: Alternative
    readings: list[Reading]
    scores: Scores
    gain: F64
    """(P,) over the present reading"""

    def believed(self, least_sigma: float) -> bool:
        """Whether it is better beyond doubt."""
        return bool(self.gain.sum() > LEAST_NATS and _sigma(self.gain) > least_sigma)

    def answers(self) -> list[Answer]:
        """One for every convention that it changes."""
        nats, sigma, n = float(self.gain.sum()), _sigma(self.gain), len(self.gain)
        parts = self.alternative.parts or (self.alternative,)
        return [Answer(one.question, one.answer, one.codes, nats, sigma, n) for one in parts]


def _ask(
    level: Level, present: list[Reading], best: Scores, choices: Iterable[Alternative], geometric: bool
) -> tuple[_Trial | None, dict[str, Answer]]:
    """The alternative that is best, if it is better than the present reading beyond doubt; margins of the present one.

    A few particles rule out most alternatives of the geometry; only the others are tried on all.
    """
    few = present
    if geometric:
        few = [reading.take(_few(len(reading.position_px))) for reading in present]
    whole = all(len(a.position_px) == len(b.position_px) for a, b in zip(few, present, strict=True))
    base = best if whole else level.score(few)
    # Fine differences would drown in jumps between points of the search.
    places = None if geometric else best.shift_angstrom

    def attempt(alternative: Alternative, readings: list[Reading], against: Scores) -> _Trial | None:
        changed = [one for one in map(alternative.change, readings) if one is not None]
        if len(changed) < len(readings):
            return None
        scores = level.score(changed, places)
        return _Trial(alternative, changed, scores, scores.gain - against.gain)

    trials = [one for one in (attempt(alternative, few, base) for alternative in choices) if one is not None]
    margins: dict[str, Answer] = {}
    for one in trials:
        lead, question = -one.gain, one.alternative.question
        known = margins.get(question)
        if known is None or lead.sum() < known.nats:
            margins[question] = Answer(question, "as stated", (), float(lead.sum()), _sigma(lead), len(lead))
    least_sigma = GEOMETRIC_SIGMA if geometric else LEAST_SIGMA
    top = max([base, *(one.scores for one in trials)], key=lambda scores: scores.total)
    winner: _Trial | None = None
    for one in trials:
        behind = top.gain - one.scores.gain
        if one.scores is not top and behind.sum() > LEAST_NATS and _sigma(behind) > least_sigma:
            continue
        final = one if whole else attempt(one.alternative, present, best)
        better = winner is None or (final is not None and final.scores.total > winner.scores.total)
        if final is not None and final.believed(least_sigma) and better:
            winner = final
    return winner, margins


def _few(count: int) -> NDArray[np.intp]:
    """Rows of a few particles, spread over all."""
    return np.unique(np.linspace(0, count - 1, _FEW).astype(np.intp))


def _choices(present: Sequence[Reading], geometric: bool) -> Iterable[Alternative]:
    if geometric:
        yield from coordinate_alternatives(present[0])
    for one in alternatives():
        if one.geometric == geometric:
            yield one


def _sigma(gain: F64) -> float:
    """Sum over its standard deviation, from the scatter of the particles."""
    spread = float(gain.std(ddof=1)) * np.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return float(gain.sum() / spread) if spread > 0 else 0.0


def _signal(level: Level, present: Sequence[Reading], best: Scores) -> float:
    """How far the gain is above that beside the particles."""
    beside = []
    for reading in present:
        step = 1.5 * level.radius_px
        side = np.where(reading.position_px[:, :1] > reading.size[0] / 2, -step, step)
        beside.append(reading.placed(reading.units + side * np.array([1.0, 0.5, 0.0]), reading.from_centre))
    return _sigma(best.gain - level.score(beside).gain)


def _place(level: Level, present: Sequence[Reading], best: Scores, result: ConventionResult) -> None:
    offset = shared_offset(level, present, best)
    result.offset = offset
    if offset is None:
        return
    none = offset.chi2(np.zeros(3))
    for sign in (1.0, -1.0):
        corner = np.full(3, sign)
        room = np.maximum(_SMALLEST_OFFSET_PX, 3 * offset.sigma_px)
        if none - offset.chi2(corner) > _ONE_PIXEL_CHI2 and (np.abs(offset.tomogram_px - corner) < room).all():
            result.offset_codes = ("TW-CONV-08",)
            return
    if none > _OFF_CHI2 and (np.abs(offset.tomogram_px) > _SMALLEST_OFFSET_PX).any():
        result.offset_codes = ("TW-CONV-14",)


def _slopes(level: Level, present: Sequence[Reading], best: Scores) -> tuple[F64, F64]:
    slopes = np.linspace(-2.0, 2.0, 9)
    totals = []
    for slope in slopes:
        changed = [replace(one, series=replace(one.series, defocus_slope=float(slope))) for one in present]
        totals.append(level.score(changed, best.shift_angstrom).total)
    return slopes, np.array(totals) - totals[4]
