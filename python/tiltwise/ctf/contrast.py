"""Contrast of tilt series against each other.

Scales of the tilts of one series are relative to their mean, since its gains take up a common factor.  All series are
compared with the same maps: with the scales of its tilts given, a series has one factor f_n and all share one gain per
shell, which is the model of `tiltwise.ctf.shells` with series in the place of tilts.  Factors fitted to one half set
are judged by the other, as everything is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.shells import calibrate, log_likelihood
from tiltwise.ctf.verdict import Verdict, judge
from tiltwise.maps.cross_fit import HALVES

F64 = NDArray[np.float64]
ShellParts = tuple[F64, F64]
"""l and q (S,) over sigma^2 of a whole series whose tilts have their scales"""


def of_series(linear: F64, quadratic: F64, scale: F64) -> ShellParts:
    """Parts of a series from those of its tilts (F, S) and their scales (F,), NaN without evidence."""
    known = np.nan_to_num(scale)
    return known @ linear, known**2 @ quadratic


@dataclass(frozen=True, slots=True)
class ContrastEvidence:
    """What one series says about its factor."""

    total: ShellParts
    halves: dict[int, ShellParts]
    """of each half set, at the fit to it"""
    held_out: dict[int, list[ShellParts]]
    """of every block of the other half, at the fit to this one"""


@dataclass(frozen=True, slots=True)
class Factors:
    """Contrast of N series."""

    factor: F64
    """(N,) of mean 1; NaN without evidence"""
    verdicts: list[Verdict]


def fit_factors(series: Sequence[ContrastEvidence], families: int) -> Factors:
    """Factors of all series, and what held-out particles say of each against having none."""

    def stacked(parts: Sequence[ShellParts]) -> ShellParts:
        return np.array([part[0] for part in parts]), np.array([part[1] for part in parts])

    gains: list[list[float]] = [[] for _ in series]
    information = np.zeros(len(series))
    for half in HALVES:
        known = [number for number, one in enumerate(series) if half in one.halves]
        if len(known) < 2:
            continue
        own = stacked([series[number].halves[half] for number in known])
        new, old = calibrate(*own), calibrate(*own, fit_scale=False)
        for row, number in enumerate(known):
            one, with_factor, without = series[number], new.product[row], old.product[row]
            for linear, quadratic in one.held_out.get(half, ()):
                scores = log_likelihood(linear, quadratic, np.stack([with_factor, without]))
                gains[number].append(float(scores[0] - scores[1]))
                information[number] += float(((with_factor - without) ** 2) @ quadratic)
    factor = calibrate(*stacked([one.total for one in series])).scale
    verdicts = [judge(np.array(g), float(i), families) for g, i in zip(gains, information, strict=True)]
    return Factors(factor, verdicts)
