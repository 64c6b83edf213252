"""Noise power of the tilts and amplitude of the reference, from condensed evidence, shell by shell.

The amplitude of a reference is right at best on average: wrong parameters blur it, masks let its FSC look better than
it is, and neighbours leak into shells where CTFs vanish.  Such errors would pass for contrast that changes with dose.
So the model has a gain g_s per shell, common to all tilts, beside the scale a_f of every tilt:

    log L = sum_fs  a_f g_s l_fs - (a_f g_s)^2 / 2 q_fs

with l and q the linear and quadratic parts summed over a shell.  Predictions come from references that do not contain
the particle, so g is the regression of the images on the reference: the Wiener weight that the data themselves ask for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.maps.spectra import smoothed
from tiltwise.spectral.disc import FourierDisc

GAIN_SIGMA = 0.5
"""Width of the prior on a gain, about 1: shells without evidence keep the weight that the FSC gives them."""
ALTERNATIONS = 50


Wave = tuple[NDArray[np.float64], NDArray[np.float64]]
"""cos and sin (F, K) of phase errors"""


@dataclass(frozen=True, slots=True)
class Parts:
    """Linear and quadratic part of the likelihood per pixel, (F, K), without noise power, scale and gain."""

    linear: NDArray[np.float64]
    quadratic: NDArray[np.float64]


def parts_at(sums: NDArray[np.float64], amplitude: NDArray[np.float64], wave: Wave | None = None) -> Parts:
    """Parts of `sums` (F, 8, K) at the phase errors of a wave, none by default; the CTF has `amplitude` (F, K)."""
    if wave is None:
        return Parts(amplitude * sums[:, 3], amplitude**2 * sums[:, 0])
    c, s = wave
    linear = sums[:, 3] * c + sums[:, 4] * s
    quadratic = sums[:, 0] * c * c + 2.0 * sums[:, 1] * c * s + sums[:, 2] * s * s
    return Parts(amplitude * linear, amplitude**2 * quadratic)


def shell_sums(values: NDArray[np.float64], disc: FourierDisc) -> NDArray[np.float64]:
    """(..., K) -> (..., S), the bare sums over the stored half plane."""
    # pixels are in shell order: every shell is one run
    starts = np.searchsorted(disc.shells, np.arange(disc.n_shells))
    result = np.zeros((*values.shape[:-1], disc.n_shells))
    present = np.unique(disc.shells)
    result[..., present] = np.add.reduceat(values, starts[present], axis=-1)
    return result


def noise_power(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    parts: Parts,
    amplitude_of_shell: NDArray[np.float64],
    disc: FourierDisc,
    area: float,
) -> NDArray[np.float64]:
    """sigma^2 = E|n|^2 (F, S) of images without the soft circle, from residuals (Eq. 12, exact form).

    `amplitude_of_shell` (F, S) is scale times gain.  Tilts without images have infinite noise.
    """
    pixels = np.maximum(np.bincount(disc.shells, minlength=disc.n_shells)[: disc.n_shells], 1)
    power = shell_sums(sums[:, 7], disc)
    linear, quadratic = shell_sums(parts.linear, disc), shell_sums(parts.quadratic, disc)
    explained = 2.0 * amplitude_of_shell * linear - amplitude_of_shell**2 * quadratic
    # an over-fitted model may explain more than there is; noise is never less than a tenth of the power
    residual = np.maximum(power - explained, 0.1 * power) / (pixels * area)
    present = np.bincount(disc.shells, minlength=disc.n_shells)[: disc.n_shells] > 0
    result = np.full_like(residual, np.inf)
    seen = counts > 0
    if seen.any():
        result[np.ix_(seen, present)] = smoothed(residual[seen] / counts[seen, None])[:, present]
    return np.where(result > 0, result, np.inf)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scale of every tilt and gain of every shell."""

    scale: NDArray[np.float64]
    """(F,) relative to that of the metadata; NaN without evidence"""
    gain: NDArray[np.float64]
    """(S,)"""

    @property
    def product(self) -> NDArray[np.float64]:
        """(F, S) what multiplies the CTF of the metadata; 0 without evidence."""
        return np.nan_to_num(self.scale)[:, None] * self.gain


def calibrate(linear: NDArray[np.float64], quadratic: NDArray[np.float64], *, fit_scale: bool = True) -> Calibration:
    """Scales and gains that maximise the likelihood, from l and q (F, S) over sigma^2, full-plane sums.

    The mean scale of the tilts with evidence is 1: one factor common to all of them cannot be told from the gains.
    Without `fit_scale` all are 1.
    """
    seen = quadratic.sum(axis=1) > 0
    scale = np.where(seen, 1.0, np.nan)
    gain = np.ones(linear.shape[1])
    prior = 1.0 / GAIN_SIGMA**2
    if not seen.any():
        return Calibration(scale, gain)
    straight, square, a = linear[seen], quadratic[seen], np.ones(int(seen.sum()))
    for _ in range(ALTERNATIONS if fit_scale else 1):
        before = a
        gain = np.maximum((a @ straight + prior) / (a**2 @ square + prior), 0.0)
        if not fit_scale:
            break
        information = square @ gain**2
        a = np.divide(straight @ gain, information, out=np.ones_like(a), where=information > 0)
        mean = a.mean()
        if not mean > 0:
            a = before
            break
        a = a / mean
        if np.abs(a - before).max() < 1e-6:
            break
    scale[seen] = a
    return Calibration(scale, gain)


def log_likelihood(
    linear: NDArray[np.float64], quadratic: NDArray[np.float64], product: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(..., F) log-likelihood relative to no signal, from l and q (..., F, S) over sigma^2, full-plane sums."""
    return np.asarray((product * linear - 0.5 * product**2 * quadratic).sum(axis=-1))
