"""Fits to one half set scored on the other, and error bars from the differences of the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.series import SeriesFit, SeriesModel
from tiltwise.ctf.shells import calibrate, log_likelihood
from tiltwise.ctf.verdict import Verdict, judge
from tiltwise.maps.cross_fit import HALVES

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What the halves say about each other in one series."""

    defocus: Verdict | None
    """None where it was not fitted"""
    scale: Verdict | None
    inflation: float
    """factor on error bars of defocus that makes the differences of the halves as large as they should be"""
    per_tilt: F64
    """(F,) log-likelihood that the held-out particles of a tilt gain by new defoci and scales"""


def compare(model: SeriesModel, families: int) -> HeldOut:
    """Verdicts on the defocus and on the scale of a series."""
    evidence, settings = model.evidence, model.settings
    fits: dict[int, SeriesFit] = {}
    for half in HALVES:
        sums, counts = evidence.total(half)
        if not counts.any():
            return HeldOut(_none(settings.defocus), _none(settings.scale), 1.0, np.zeros(model.series.n_tilts))
        fits[half] = model.fit(sums)
    defocus, scale, per_tilt = [], [], np.zeros(model.series.n_tilts)
    information = np.zeros(2)
    for half, fit in fits.items():
        # nuisances, the scales and gains, are fitted to the same half as the defocus, for either hypothesis
        old = model.scale(evidence.total(half)[0], None)
        flat = calibrate(fit.linear, fit.quadratic, fit_scale=False)
        new, wave = fit.calibration.product, model.wave(fit.tilts.change)
        for index, block in enumerate(evidence.blocks):
            if block.half == half:
                continue
            sums = evidence.sums[index]
            after, before = model.shell_parts(sums, wave), model.shell_parts(sums, None)
            score = log_likelihood(*after, new)
            of_old, of_flat = log_likelihood(*before, old.product), log_likelihood(*after, flat.product)
            defocus.append(float((score - of_old).sum()))
            scale.append(float((score - of_flat).sum()))
            per_tilt += score - of_old
            # a prediction that changes from P to P' by chance gains or loses with the variance sum |P' - P|^2 / sigma^2
            moved = model.shell_parts(sums, (wave[0] - 1.0, wave[1]))[1]
            information += [(moved * new**2).sum(), (after[1] * (new - flat.product) ** 2).sum()]
    return HeldOut(
        judge(np.array(defocus), float(information[0]), families) if settings.defocus else None,
        judge(np.array(scale), float(information[1]), families) if settings.scale else None,
        inflation(fits[1], fits[2]) if settings.defocus else 1.0,
        per_tilt,
    )


def inflation(first: SeriesFit, second: SeriesFit) -> float:
    """Root mean square of the differences of two fits of the defocus over their standard deviations, at least 1."""
    known = first.tilts.known & second.tilts.known
    if not known.any():
        return 1.0
    difference = (first.tilts.change - second.tilts.change)[known, 0]
    variance = first.tilts.sigma[known, 0] ** 2 + second.tilts.sigma[known, 0] ** 2
    return float(max(1.0, np.sqrt(np.mean(difference**2 / variance))))


def _none(fitted: bool) -> Verdict | None:
    """Nothing can be said without particles in both halves."""
    return Verdict("unchanged", 0.0, 0.0) if fitted else None
