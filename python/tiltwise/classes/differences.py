"""Maps of classes as differences from the average of all particles, shrunk by what the data say of the differences.

A prior on the maps themselves, RELION's, has the power of the average in it: it hardly holds back the noise of the
*difference* of two classes, which alone decides between them.  Classes then look far more different than they are, and
posteriors are too sure.  Here the prior is on the differences: their power, shell by shell, is what two half sets of
the particles of a class have in common beyond the average, tau^2 = c / (1 - c) over the mean weight (the counterpart
of Eq. 13), where c is the share of signal in the power of the difference.  A difference that the data do not show
shrinks to nothing, and a posterior that rests on shrunk differences is calibrated: of a difference that is the
posterior mean, expected gain and its variance have the ratio they must have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.kernels.api import Backend
from tiltwise.maps.spectra import half_maps
from tiltwise.maps.volumes import Accumulator, PackedSums, shell_means, solve_map
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.shells import shell_totals

F64 = NDArray[np.float64]

LEAST_SHARE, MOST_SHARE = 1e-4, 0.999
WINDOW = 2
"""Shells on either side that are looked at together: single shells have few components."""


def signal_share(first: NDArray[np.float32], second: NDArray[np.float32], mask: NDArray[np.float32]) -> F64:
    """(N // 2 + 1,) share of signal in the power of the mean of two half maps, inside the mask; 0 to 1."""
    size = len(mask)
    a, b = (rfft3(np.asarray(part * mask, np.float64)) for part in (first, second))
    cross = shell_totals((a.conj() * b).real, size, 3)
    power = 0.5 * (shell_totals(np.abs(a) ** 2, size, 3) + shell_totals(np.abs(b) ** 2, size, 3))
    kernel = np.ones(2 * WINDOW + 1)
    cross, power = (np.convolve(part[1:], kernel)[WINDOW:-WINDOW] for part in (cross, power))
    half = np.clip(np.divide(cross, power, out=np.zeros_like(cross), where=power > 0), 0.0, 1.0)
    share = 2.0 * half / (1.0 + half)
    return np.concatenate([share[:1], share])


def difference_prior(total: PackedSums, share: F64, tau2_fudge: float) -> F64:
    """(N // 2 + 1,) 1/tau^2 of differences in the units of the weights, from the share of signal in them."""
    clipped = np.clip(share, LEAST_SHARE, MOST_SHARE)
    return np.asarray(shell_means(total) * (1.0 - clipped) / clipped / tau2_fudge)


def share_of_halves(first: PackedSums, second: PackedSums, mask: NDArray[np.float32]) -> F64:
    """`signal_share` of the maps of two half sets; zeros where one has nothing."""
    if not all(float(half.weight.max(initial=0.0)) > 0 for half in (first, second)):
        return np.zeros(first.box // 2 + 1)
    maps = half_maps(first, second)
    return signal_share(maps[0], maps[1], mask)


@dataclass(slots=True)
class ClassSums:
    """Sums of residuals (Eq. 11) of some maps, by fold; completed and symmetrised."""

    backend: Backend
    symmetry: Callable[[int], F64]
    """(G, 3, 3) point group of every map"""
    half_of: NDArray[np.int64]
    """(F,) half set of every fold"""
    unit: float
    """that all sums are divided by, see `PackedSums`"""
    parts: list[dict[int, PackedSums]] = field(default_factory=list)
    """of every map: fold to its sums"""

    def add(self, fold: int, sums: list[Accumulator]) -> None:
        """Takes the sums of a fold, one of every map."""
        while len(self.parts) < len(sums):
            self.parts.append({})
        for number, one in enumerate(sums):
            # incomplete sums are needed no more
            own = one.complete().symmetrised(self.symmetry(number), self.backend)
            self.parts[number][fold] = PackedSums.of(own, self.unit)

    def total(self, number: int, half: int | None = None) -> PackedSums:
        """Of all folds, or those of a half set."""
        chosen = [part for fold, part in sorted(self.parts[number].items()) if half in (None, self.half_of[fold])]
        result = chosen[0].copy()
        for part in chosen[1:]:
            result.add(part)
        return result


@dataclass(slots=True)
class Differences:
    """Maps made of class sums: one for the particles of every fold, without them, and one of all."""

    sums: ClassSums
    mask: NDArray[np.float32]
    """(N, N, N) where maps may differ"""
    radius: float
    tau2_fudge: float = 1.0

    def share(self, number: int) -> F64:
        """(N // 2 + 1,) share of signal in the difference of map `number`, from the two half sets."""
        return share_of_halves(self.sums.total(number, 1), self.sums.total(number, 2), self.mask)

    def solve(self, number: int, share: F64) -> tuple[dict[int, NDArray[np.float32]], NDArray[np.float32]]:
        """Difference without every fold, and that of all particles."""
        total = self.sums.total(number)
        prior = difference_prior(total, share, self.tau2_fudge)
        if not float(total.weight.max(initial=0.0)) > 0:
            nothing = np.zeros((total.box,) * 3, np.float32)
            return dict.fromkeys(self.sums.parts[number], nothing), nothing

        def density(part: PackedSums) -> NDArray[np.float32]:
            return np.asarray(solve_map(part, prior, self.radius) * self.mask, np.float32)

        folds = {fold: density(total.without(part)) for fold, part in self.sums.parts[number].items()}
        return folds, density(total)
