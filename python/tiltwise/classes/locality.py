"""Where in the particle classes differ: the share of signal in a difference, place by place.

Two half sets show the same difference where there is one, and only noise elsewhere.  Inside a small ball the
correlation of their differences, filtered to the resolution at which differences can be seen, tells the share of signal
in them, as the correlation inside a shell does for a resolution.  A difference that fills a small part of the particle
is then not drowned in the noise of the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.masks import soft_sphere
from tiltwise.spectral.shells import shell_counts, shell_totals, spread

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

RADIUS = 20.0
"""Å, of the balls in which halves are compared."""
EDGE = 10.0
"""Å, of the smaller ones in which their shares are averaged: no edge of a difference is sharper."""
CERTAIN = 4.0
"""Correlation, over its standard deviation in noise, from which a ball has signal: all of some hundred have less."""

DOUBT = 2.0
"""Standard deviations that are taken off the correlation of all other places together."""


def signal_places(first: F32, second: F32, gain: F64, mask: F32, pixel_size: float) -> F32:
    """(N, N, N) factor 0 to 1 on a difference, of which `first` and `second` are unfiltered half maps (N, N, N).

    `gain` (N // 2 + 1,) is the filter through which they are compared, `mask` (N, N, N) where they may differ.  The
    factor is the share of signal in the mean of both halves about a place, over that of the places with signal; 1
    everywhere where no ball shows more than others.
    """
    size = len(mask)
    filters = spread(gain, size, 3)

    def seen(half: F32) -> F64:
        return np.asarray(irfft3(rfft3(np.asarray(half, np.float64)) * filters, size) * mask, np.float64)

    a, b = seen(first), seen(second)
    ball, edge = (_ball(size, radius / pixel_size) for radius in (RADIUS, EDGE))

    def about(values: F64, weights: F64 = ball) -> F64:
        kernel = rfft3(weights, norm="backward")
        return np.asarray(irfft3(rfft3(values) * kernel, size), np.float64)

    cross, power = about(a * b), 0.5 * about(a**2 + b**2)
    inside = mask > 0.5
    least = 0.05 * float(power[inside].mean()) if inside.any() else 0.0
    noise = spectrum(a - b)
    if not (least > 0 and noise.any()):
        return np.ones_like(mask)
    correlation = np.where(power > least, cross / np.maximum(power, least), 0.0)
    correlation = np.clip(correlation, -0.999, 0.999)
    # Fisher's transform has a deviation that does not depend on the correlation; the difference is noise alone
    degrees = max(independent(ball, noise) - 3.0, 1.0)
    sure = (np.arctanh(correlation) * np.sqrt(degrees) > CERTAIN) & inside
    if not sure.any():
        return np.ones_like(mask)
    # what is beyond the balls with signal may have some, weak but wide
    rest = inside & ~sure
    weak = float((a * b)[rest].sum()) / max(float(0.5 * (a**2 + b**2)[rest].sum()), 1e-30)
    chance = 1.0 / np.sqrt(max(degrees * float((ball**2).sum()) * rest.sum(), 1.0))
    weak = max(weak - DOUBT * chance, 0.0)
    half = np.where(sure, correlation, weak)
    half = np.clip(half, 0.0, 1.0)
    share = 2.0 * half / (1.0 + half)
    reference = float(share[sure].mean())
    around = about(inside.astype(np.float64), edge)
    mean = about(np.where(inside, share, 0.0), edge) / np.maximum(around, 1e-3)
    return np.asarray(np.clip(mean / reference, 0.0, 1.0), np.float32)


def _ball(size: int, radius: float) -> F64:
    """(N, N, N) soft ball of sum 1 about voxel 0."""
    ball = np.fft.ifftshift(soft_sphere(size, radius + 1.0, 2.0))
    return np.asarray(ball / ball.sum(), np.float64)


def spectrum(density: F64) -> F64:
    """(N // 2 + 1,) mean power of a component."""
    size = len(density)
    return np.asarray(shell_totals(np.abs(rfft3(density)) ** 2, size, 3) / np.maximum(shell_counts(size, 3), 1))


def independent(ball: F64, power: F64) -> float:
    """Degrees of freedom of noise with a spectrum `power` (N // 2 + 1,) under weights (N, N, N) of sum 1.

    The variance of a weighted sum of products of two such noises over the square of their power is its inverse.
    """
    size = len(ball)
    covariance = irfft3(spread(power, size, 3).astype(np.complex128), size)
    covariance /= covariance[0, 0, 0]
    weights = rfft3(ball, norm="backward")
    variance = float((irfft3(np.abs(weights) ** 2, size, norm="backward") * covariance**2).sum())
    return 1.0 / max(variance, 1e-30)
