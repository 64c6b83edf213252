"""Fits to one half set scored on the other, and error bars from the differences of the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.contrast import ShellParts, of_series
from tiltwise.ctf.lambert import fit_slab
from tiltwise.ctf.series import SeriesFit, SeriesModel
from tiltwise.ctf.shells import Calibration, calibrate, log_likelihood
from tiltwise.ctf.verdict import Verdict, judge
from tiltwise.exec.threads import ordered_map
from tiltwise.maps.cross_fit import HALVES

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What the halves say about each other in one series."""

    defocus: Verdict | None
    """None where it was not fitted"""
    scale: Verdict | None
    phase_shift: Verdict | None
    """over a fit of the defocus alone"""
    inflation: float
    """factor on error bars of defocus that makes the differences of the halves as large as they should be"""
    per_tilt: F64
    """(F,) log-likelihood that the held-out particles of a tilt gain by new defoci and scales"""
    halves: dict[int, ShellParts]
    held_out: dict[int, list[ShellParts]]
    """of `tiltwise.ctf.contrast.ContrastEvidence`; empty without particles in both halves"""


def compare(model: SeriesModel, families: int, *, force: bool = False) -> HeldOut:
    """Verdicts on the defocus, the phase shift and the scale of a series.

    That on the defocus is about the fit with phase shifts where these are better, or forced.
    """
    evidence, settings = model.evidence, model.settings
    sums = {half: evidence.total(half) for half in HALVES}
    if not all(counts.any() for _, counts in sums.values()):
        none = Verdict("unchanged", 0.0, 0.0)
        defocus, scale, phase = settings.defocus, settings.scale, settings.phase_shift
        zero = np.zeros(model.series.n_tilts)
        return HeldOut(none if defocus else None, none if scale else None, none if phase else None, 1.0, zero, {}, {})

    def fits_of(phase_shift: bool) -> dict[int, SeriesFit]:
        found = ordered_map(lambda half: model.fit(sums[half][0], phase_shift=phase_shift), HALVES, model.threads)
        return dict(zip(HALVES, found, strict=True))

    fits, phase_verdict = fits_of(False), None
    if settings.phase_shift:
        shifted = fits_of(True)
        phase_verdict = phase_shift_verdict(model, fits, shifted, families)
        if force or phase_verdict.improved:
            fits = shifted
    of_half = {
        half: block_scores(model, fit, sums[half][0], [b.half != half for b in evidence.blocks])
        for half, fit in fits.items()
    }
    scores = [score for half in HALVES for score in of_half[half]]
    information = np.sum([score.information for score in scores], axis=0)
    gains = np.array([score.gains for score in scores])
    return HeldOut(
        judge(gains[:, 0], float(information[0]), families) if settings.defocus else None,
        judge(gains[:, 1], float(information[1]), families) if settings.scale else None,
        phase_verdict,
        inflation(fits[1], fits[2]) if settings.defocus else 1.0,
        np.sum([score.per_tilt for score in scores], axis=0),
        {half: of_series(fit.linear, fit.quadratic, fit.calibration.scale) for half, fit in fits.items()},
        {half: [score.parts for score in of_half[half]] for half in HALVES},
    )


def phase_shift_verdict(
    model: SeriesModel, plain: dict[int, SeriesFit], shifted: dict[int, SeriesFit], families: int
) -> Verdict:
    """Fits with phase shifts against those of the defocus alone, by half set."""
    gains, information = [], 0.0
    for half in HALVES:
        with_shift, without = (model.wave(fits[half].tilts.change) for fits in (shifted, plain))
        new, old = (fits[half].calibration.product for fits in (shifted, plain))
        moved = with_shift[0] - without[0], with_shift[1] - without[1]
        for block, sums in zip(model.evidence.blocks, model.evidence.sums, strict=True):
            if block.half == half:
                continue
            found = log_likelihood(*model.shell_parts(sums, with_shift), new)
            gains.append(float((found - log_likelihood(*model.shell_parts(sums, without), old)).sum()))
            information += float((model.shell_parts(sums, moved)[1] * new**2).sum())
    return judge(np.array(gains), information, families)


@dataclass(frozen=True, slots=True)
class BlockScore:
    """What one block of particles says about CTFs it had no part in."""

    gains: tuple[float, float]
    """log-likelihood gained by the defoci, and by the scales"""
    information: tuple[float, float]
    """squared length of the changes of either: the variance that chance gives the gain"""
    per_tilt: F64
    """(F,) log-likelihood gained by both"""
    parts: ShellParts
    """of the block as a whole, at the scales of the fit"""


def block_scores(model: SeriesModel, fit: SeriesFit, own: F64, chosen: list[bool]) -> list[BlockScore]:
    """Scores of the `chosen` blocks; `fit` is to other particles, whose sums are `own` (F, 8, K)."""
    # nuisances, the scales and gains, are fitted to the same half as the defocus, for either hypothesis
    old = model.scale(own, None)
    flat = calibrate(fit.linear, fit.quadratic, fit_scale=False)
    new, wave = predicted(model, fit), model.wave(fit.tilts.change)

    def score(sums: F64) -> BlockScore:
        after, before = model.shell_parts(sums, wave), model.shell_parts(sums, None)
        found = log_likelihood(*after, new)
        of_old, of_flat = log_likelihood(*before, old.product), log_likelihood(*after, flat.product)
        # a prediction that changes from P to P' by chance gains or loses with the variance sum |P' - P|^2 / sigma^2
        moved = model.shell_parts(sums, (wave[0] - 1.0, wave[1]))[1]
        return BlockScore(
            (float((found - of_old).sum()), float((found - of_flat).sum())),
            (float((moved * new**2).sum()), float((after[1] * (new - flat.product) ** 2).sum())),
            found - of_old,
            of_series(*after, fit.calibration.scale),
        )

    blocks = [sums for sums, keep in zip(model.evidence.sums, chosen, strict=True) if keep]
    return ordered_map(score, blocks, model.threads)


def predicted(model: SeriesModel, fit: SeriesFit) -> F64:
    """(F, S) what multiplies the CTF of the metadata: scales of tilts, or those of a slab of ice fitted to them."""
    calibration = fit.calibration
    if model.settings.lambert:
        known = np.isfinite(calibration.scale) & (fit.scale_sigma > 0)
        h = np.where(known, 1.0 / np.where(known, fit.scale_sigma, 1.0) ** 2, 0.0)
        slab = fit_slab(np.where(known, calibration.scale, 0.0) * h, h, model.series.projection)
        if slab is not None:
            calibration = Calibration(np.where(known, slab.scale, calibration.scale), calibration.gain)
    return calibration.product


def inflation(first: SeriesFit, second: SeriesFit) -> float:
    """Root mean square of the differences of two fits of the defocus over their standard deviations, at least 1."""
    known = first.tilts.known & second.tilts.known
    if not known.any():
        return 1.0
    difference = (first.tilts.change - second.tilts.change)[known, 0]
    variance = first.tilts.sigma[known, 0] ** 2 + second.tilts.sigma[known, 0] ** 2
    return float(max(1.0, np.sqrt(np.mean(difference**2 / variance))))
