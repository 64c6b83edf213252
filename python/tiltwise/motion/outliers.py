"""Tilts and particles that do not look like their predictions while the others do.

A correlation C with a prediction of power W, `sum |P|^2 / sigma^2`, has the variance W.  Particles are compared by
C / W, which is the same for all if the model is right.  Tilts are compared by C / sqrt(W), which does not depend on the
contrast that the CTF of a tilt states: a stated contrast near zero is a reason to be lost, not a proof of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.objective import Evidence

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

LEVEL = 0.01
"""Chance that any tilt, and that any particle, of a series without outliers is named."""
HALF = 0.5
"""Of the median: what has more is not named, however sure it is that it has less than others."""
HARDLY_ANY = 0.1
"""Of the median: less is no signal, as what chance gives is."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Correlations of n tilts or particles in units that all share."""

    value: F64
    """(n,); nan without images"""
    noise: F64
    """(n,) standard deviation of a value without signal; nan without images"""

    @classmethod
    def of_tilts(cls, found: F64, power: F64, tilt: NDArray[np.intp], count: int) -> Agreement:
        """C / sqrt(W) from correlations, powers and tilts (m,) of images."""
        correlation, variance = _sums(found, power, tilt, count)
        return cls(correlation / np.sqrt(variance), np.ones(count))

    @classmethod
    def of_particles(cls, found: F64, power: F64, particle: NDArray[np.intp], count: int) -> Agreement:
        """C / W from correlations, powers and particles (m,) of images."""
        correlation, variance = _sums(found, power, particle, count)
        return cls(correlation / variance, 1.0 / np.sqrt(variance))

    @property
    def _shown(self) -> Bool:
        return np.isfinite(self.value)

    @property
    def typical(self) -> float:
        """Median of the values."""
        return float(np.median(self.value[self._shown])) if self._shown.any() else 0.0

    @property
    def quantile(self) -> float:
        """Standard deviations that one of n exceeds with the chance LEVEL."""
        return -float(ndtri(LEVEL / max(1, int(self._shown.sum()))))

    @property
    def deviation(self) -> F64:
        """(n,) from the median, in standard deviations of noise or of the others (median absolute deviation)."""
        away = (self.value - self.typical) / self.noise
        spread = 1.4826 * float(np.median(np.abs(away[self._shown]))) if self._shown.any() else 1.0
        return np.asarray(away / max(spread, 1.0))

    @property
    def weak(self) -> Bool:
        """(n,) less than half the median, and less by more than chance and the spread of the others explain."""
        return np.asarray((self.deviation < -self.quantile) & (self.value < HALF * self.typical))

    @property
    def without_signal(self) -> Bool:
        """(n,) nothing beyond chance, or hardly anything, where the others have it."""
        little = self.value < np.maximum(self.quantile * self.noise, HARDLY_ANY * self.typical)
        return np.asarray(little & (self.typical - self.value > self.quantile * self.noise) & (self.typical > 0.0))

    def like_others(self) -> Bool:
        """(n,) at least half the median, and twice what chance gives."""
        least = np.maximum(HALF * self.typical, 2.0 * self.quantile * self.noise)
        return np.asarray(self.value >= least)


def _sums(found: F64, power: F64, number: NDArray[np.intp], count: int) -> tuple[F64, F64]:
    """(n,) correlation and its variance, nan without images."""
    variance = np.bincount(number, power, count).astype(np.float64)
    return np.bincount(number, found, count).astype(np.float64), np.where(variance > 0.0, variance, np.nan)


@dataclass(frozen=True, slots=True)
class Outlier:
    """One tilt or particle."""

    index: int
    """of the tilt in the order of dose, or of the particle among the members of the series"""
    share: float
    """correlation over the median of the series"""
    deviation: float
    """from the median, in standard deviations"""
    signal: bool
    """False: no correlation beyond chance"""


def named(agreement: Agreement) -> tuple[Outlier, ...]:
    """Those that are weak or without signal."""
    deviation, blank = agreement.deviation, agreement.without_signal
    return tuple(
        Outlier(int(i), float(agreement.value[i] / agreement.typical), float(deviation[i]), not blank[i])
        for i in np.flatnonzero((agreement.weak | blank) & (agreement.typical > 0.0))
    )


def tilts_at(specimen: Specimen, evidence: Evidence, alignment: Alignment) -> Agreement:
    """Of the tilts at an alignment."""
    found, _ = evidence.at(alignment.predict(specimen))
    return Agreement.of_tilts(found, evidence.power, evidence.tilt, specimen.n_tilts)


def particles_at(specimen: Specimen, evidence: Evidence, alignment: Alignment) -> Agreement:
    """Of the particles at an alignment."""
    found, _ = evidence.at(alignment.predict(specimen))
    return Agreement.of_particles(found, evidence.power, evidence.particle, len(specimen.position_px))


def put_back(specimen: Specimen, alignment: Alignment, lost: Bool) -> Alignment:
    """Tilts (F,) as they were at the start."""
    none = Alignment.none(specimen)
    turn = np.where(lost[:, None, None], none.turn, alignment.turn)
    amplitudes = alignment.amplitudes
    if specimen.fields is not None and specimen.fields.per_tilt:
        amplitudes = np.where(lost[:, None], none.amplitudes, amplitudes)
    shift = np.where(lost[:, None], none.shift_px, alignment.shift_px)
    return replace(alignment, turn=turn, shift_px=shift, amplitudes=amplitudes)
