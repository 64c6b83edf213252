"""From the mean of half maps to a map to look at: detector, weights of the FSC, B-factor, low-pass filter.

Rosenthal and Henderson (2003).  Curves have one value per shell, `(N // 2 + 1,)`; shell s of a box of N voxels of
a Å has the frequency s / (N a).  Detector, B-factor and low-pass filter are applied at the frequency of each component,
weights of the FSC by shell, as RELION does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.io.star import read_star
from tiltwise.maps.spectra import joined_fsc

F64 = NDArray[np.float64]

WEIGHT_ENDS_AT = 1e-4
"""FSC below which a map weighted by it is zero, from the first such shell on."""
FIT_POINTS = 3
"""Shells a B-factor is fitted to, at least."""


@dataclass(frozen=True, slots=True)
class Guinier:
    """Logarithm of the amplitudes against the square of the frequency, and the line through it."""

    frequency_squared: F64
    """(S,) 1/Å²"""
    original: F64
    """(S,) ln of the mean amplitude of each shell; transform divided by the number of voxels"""
    weighted: F64
    """after detector and FSC; -inf where the weight is zero"""
    slope: float
    """Å², of `weighted` in the fitted range; 0 without a fit"""
    intercept: float
    correlation: float
    fitted: NDArray[np.bool_]
    """(S,) shells of the fit; none without one"""

    @property
    def bfactor_angstrom2(self) -> float:
        """4 times the slope: negative, as RELION has it."""
        return 4.0 * self.slope


def frequencies(size: int, pixel_size: float) -> F64:
    """Frequencies of shells 0 to N // 2, 1/Å."""
    return np.arange(size // 2 + 1) / (size * pixel_size)


def fsc_weights(curve: F64) -> F64:
    """`sqrt(2 FSC / (1 + FSC))`, zero from the first shell on in which the FSC is below `WEIGHT_ENDS_AT`."""
    below = np.flatnonzero(~(curve[1:] >= WEIGHT_ENDS_AT)) + 1
    weights = np.sqrt(joined_fsc(curve))
    weights[below[0] if len(below) else len(curve) :] = 0.0
    return np.asarray(weights)


def fit_guinier(amplitudes: F64, weights: F64, frequency: F64, low_angstrom: float, high_angstrom: float) -> Guinier:
    """Straight line through ln(amplitude x weight) between two resolutions, in Å.

    Without a fit, slope and intercept are 0: fewer than `FIT_POINTS` shells in the range.
    """
    with np.errstate(divide="ignore"):
        original, weighted = np.log(amplitudes), np.log(amplitudes * weights)
    square = frequency**2
    rounding = 1e-9
    inside = (frequency * low_angstrom >= 1.0 - rounding) & (frequency * high_angstrom <= 1.0 + rounding)
    inside &= np.isfinite(weighted)
    if inside.sum() < FIT_POINTS:
        return Guinier(square, original, weighted, 0.0, 0.0, 0.0, np.zeros(len(square), bool))
    x, y = square[inside], weighted[inside]
    slope, intercept = np.polyfit(x, y, 1)
    return Guinier(square, original, weighted, float(slope), float(intercept), float(np.corrcoef(x, y)[0, 1]), inside)


def bfactor_filter(bfactor_angstrom2: float, frequency: F64) -> F64:
    """`exp(-B s^2 / 4)` at any frequencies s in 1/Å: a negative B sharpens."""
    return np.asarray(np.exp(-0.25 * bfactor_angstrom2 * frequency**2))


def read_mtf(path: Path, frequency: F64, pixel_size: float) -> F64:
    """Modulation transfer at frequencies in 1/Å, from a STAR table of RELION; linear between its points.

    `pixel_size` in Å is that of the detector, whose Nyquist frequency is 0.5 in the table.

    Raises
    ------
    FormatError
        if the file has no columns rlnResolutionInversePixel and rlnMtfValue.
    DataError
        if its values are not positive up to the highest frequency.
    """
    document = read_star(path)
    block = next((b for b in document if "rlnMtfValue" in b), document.blocks[0])
    position, value = block.floats("rlnResolutionInversePixel"), block.floats("rlnMtfValue")
    order = np.argsort(position, kind="stable")
    curve = np.interp(frequency * pixel_size, position[order], value[order])
    if not (curve > 0).all():
        raise DataError(
            "the MTF cannot be divided by",
            where=f"--mtf {path}",
            expected=f"positive values up to {float(frequency[-1]) * pixel_size:.3g} of the sampling frequency",
            found=f"{float(curve.min()):g}",
            fix="check the table, and --mtf-angpix",
        )
    return np.asarray(curve)
