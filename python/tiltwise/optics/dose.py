"""Radiation damage: what is left of the amplitudes after an exposure (q_f of Eq. 14)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def critical_dose(k: ArrayLike) -> NDArray[np.float64]:
    """Dose in e/Å^2 at which the amplitude at |k| (1/Å) falls to exp(-1/2): 0.245 k^-1.665 + 2.81.

    Grant and Grigorieff's curve for 300 kV, infinite at k = 0.
    """
    with np.errstate(divide="ignore"):
        return np.asarray(0.245 * np.asarray(k, dtype=np.float64) ** -1.665 + 2.81)


def dose_weight(k: ArrayLike, pre_exposure: ArrayLike, bfactor_per_dose: float = 0.0) -> NDArray[np.float64]:
    """Amplitude weights at |k| (1/Å) after `pre_exposure` (e/Å^2, before the image); arguments broadcast.

    `exp(-dose / (2 critical dose))`, or `exp(-bfactor_per_dose * dose * k^2 / 4)` where a B-factor in Å^2
    per e/Å^2 is given (rlnCtfBfactorPerElectronDose).
    """
    dose = np.asarray(pre_exposure, dtype=np.float64)
    if bfactor_per_dose > 0:
        return np.asarray(np.exp(-0.25 * bfactor_per_dose * dose * np.asarray(k) ** 2))
    return np.asarray(np.exp(-0.5 * dose / critical_dose(k)))
