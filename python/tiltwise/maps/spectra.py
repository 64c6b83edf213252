"""Spectra of half maps: their FSC, the prior it implies; smoothed noise power."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import ordered_map
from tiltwise.maps.volumes import Accumulator, PackedSums, packed, padded_shells, shell_means, solve_map

MIN_PRIOR_SHELL = 5
"""Shells below carry so few components that an FSC means nothing: they are not regularised."""


def prior_from_fsc(
    sums: Accumulator | PackedSums, curve: NDArray[np.float64], tau2_fudge: float = 1.0
) -> NDArray[np.float64]:
    """1/tau^2 per shell in units of the weights of completed sums, (N // 2 + 1,).

    With gold-standard halves the signal-to-noise ratio of a shell is FSC / (1 - FSC), and tau^2 that ratio
    over the mean weight (the counterpart of Eq. 13).
    """
    clipped = np.clip(curve, 1e-3, 0.999)
    prior = shell_means(sums) * (1.0 - clipped) / clipped / tau2_fudge
    prior[:MIN_PRIOR_SHELL] = 0.0
    return np.asarray(prior)


def half_maps(
    first: Accumulator | PackedSums, second: Accumulator | PackedSums, threads: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Unfiltered maps of completed sums, and the relative prior (N // 2 + 1,) they were made with.

    Where a shell is noisy, plain division by the weights blows up the voxels few images reach, and they spoil
    the correlation of the shell.  A prior in proportion to its mean weight holds them back: `(1 - FSC) / FSC`,
    from the correlation of the sums themselves, between 0.01 and 3.  What it takes from the shell on
    average is given back, so the maps keep their amplitudes.
    """
    halves = ordered_map(packed, (first, second), threads)
    relative = relative_prior(halves[0], halves[1])
    maps = ordered_map(lambda sums: solve_map(sums, relative * shell_means(sums), restore=True), halves, threads)
    return maps[0], maps[1], relative


def relative_prior(first: PackedSums, second: PackedSums) -> NDArray[np.float64]:
    """See `half_maps`; in units of the mean weight of every shell."""
    values = []
    for sums in (first, second):
        denominator = (shell_means(sums) / sums.unit).astype(np.float32).take(sums.shells)
        denominator += sums.weight
        value = np.divide(sums.data, denominator, out=np.zeros_like(sums.data), where=denominator > 0)
        values.append(value)
    a, b = values
    power = first.shell_totals(a.real**2 + a.imag**2) * first.shell_totals(b.real**2 + b.imag**2)
    curve = first.shell_totals(a.real * b.real + a.imag * b.imag) / np.sqrt(np.maximum(power, 1e-300))
    curve = np.clip(curve, 1e-3, 1.0)
    return np.asarray(np.clip((1.0 - curve) / curve, 0.01, 3.0))


def joined_fsc(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the joined map with the truth, squared: 2 FSC / (1 + FSC), from that of the halves."""
    positive = np.clip(curve, 0.0, 1.0)
    return np.asarray(2.0 * positive / (1.0 + positive))


def join_low_resolution(first: Accumulator, second: Accumulator, shell: int) -> None:
    """Gives both completed accumulators the mean of the two in all shells up to `shell`, in place.

    Keeps the orientations of the halves from drifting apart; nothing above the shell is shared.
    """
    low = padded_shells(first.box, first.padded) <= shell
    for a, b in ((first.data, second.data), (first.weight, second.weight)):
        mean = 0.5 * (a[low] + b[low])
        a[low], b[low] = mean, mean


def last_shell_above(curve: NDArray[np.float64], threshold: float = 0.5) -> int:
    """Last shell before the FSC first falls below a threshold; 0 if it does in shell 1."""
    below = np.flatnonzero(~(curve[1:] >= threshold))
    return int(below[0]) if len(below) else len(curve) - 1


def usable(curve: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """A copy that is zero from the first shell below a threshold on: the shells that references have."""
    result = curve.copy()
    result[last_shell_above(curve, threshold) + 1 :] = 0.0
    return result


def last_used_shell(curve: NDArray[np.float64]) -> int:
    """Last shell of a curve as `usable` leaves it."""
    return last_shell_above(curve, float(np.finfo(np.float64).tiny))


def resolution_shell(curve: NDArray[np.float64], threshold: float = 0.5) -> int:
    """As `last_shell_above`, at least `MIN_PRIOR_SHELL`."""
    return max(last_shell_above(curve, threshold), MIN_PRIOR_SHELL)


def smoothed(spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running mean over three shells of (F, S) spectra; keeps low shells with few components from jumping.

    Shell 0 does not enter: it holds the mean grey value of the images, often far above all noise.  Its own
    value is that or, of images whose mean was removed, that of shell 1.
    """
    padded = np.pad(spectrum[:, 1:], ((0, 0), (1, 1)), mode="edge")
    means = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3.0
    return np.concatenate([np.maximum(spectrum[:, :1], means[:, :1]), means], axis=1)
