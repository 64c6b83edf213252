"""Maps of classes as differences from the average of all particles, shrunk by what the data say of the differences.

A prior on the maps themselves, RELION's, has the power of the average in it: it hardly holds back the noise of the
*difference* of two classes, which alone decides between them.  Classes then look far more different than they are, and
posteriors are too sure.  Here the prior is on the differences: their power, shell by shell, is what two half sets of
the particles of a class have in common beyond the average, tau^2 = c / (1 - c) over the mean weight (the counterpart
of Eq. 13), where c is the share of signal in the power of the difference.  A difference that the data do not show
shrinks to nothing, and a posterior that rests on shrunk differences is calibrated: of a difference that is the
posterior mean, expected gain and its variance have the ratio they must have.  The half sets tell also where in the
particle a difference is (`locality`): its power is that of the places with signal, and what others have is noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.locality import signal_places
from tiltwise.kernels.api import Backend
from tiltwise.maps.spectra import half_maps, joined_fsc
from tiltwise.maps.volumes import Accumulator, PackedSums, added, shell_means, solve_map
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.shells import shell_totals

F64 = NDArray[np.float64]

LEAST_SHARE, MOST_SHARE = 1e-4, 0.999
LIKELY = 0.02
"""Power of a difference over that of the average, in every shell: what is looked for before anything is known."""
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


def expected_share(curve: F64) -> F64:
    """(N // 2 + 1,) share of signal in a difference of power `LIKELY`, from the FSC of the half sets of the average."""
    signal = np.clip(joined_fsc(curve), 0.0, 0.99)
    ratio = LIKELY * signal / (1.0 - signal)
    return np.asarray(ratio / (1.0 + ratio))


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """What two half sets say of a difference: at which resolution it is seen, and where."""

    share: F64
    """(N // 2 + 1,) of signal in a shell, in places that have any"""
    places: NDArray[np.float32]
    """(N, N, N) factor 0 to 1"""

    @classmethod
    def of(
        cls, first: PackedSums, second: PackedSums, mask: NDArray[np.float32], gain: F64, pixel_size: float
    ) -> Shrinkage:
        """From sums of the halves less the average; of nothing where one has no particles.

        `mask` (N, N, N) is where classes may differ, `gain` (N // 2 + 1,) as `expected_share`.
        """
        if not all(float(half.weight.max(initial=0.0)) > 0 for half in (first, second)):
            return cls(np.zeros(first.box // 2 + 1), np.ones_like(mask))
        a, b, _ = half_maps(first, second)
        places = signal_places(a, b, gain, mask, pixel_size)
        return cls(signal_share(a, b, mask * places), places)


def less_average(part: PackedSums, total: PackedSums) -> PackedSums:
    """Sums of a class less what the average of all, `total`, would have put there: its weights times the average."""
    ratio = np.divide(part.weight, total.weight, out=np.zeros_like(part.weight), where=total.weight > 0)
    data = part.data - np.minimum(ratio, np.float32(1.0)) * total.data
    return replace(part, data=np.asarray(data, np.complex64))


@dataclass(slots=True)
class ClassSums:
    """Sums of residuals (Eq. 11) of some maps, by fold; completed and symmetrised."""

    backend: Backend
    symmetry: Callable[[int], F64]
    """(G, 3, 3) point group of every map"""
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

    def of_all(self, fold: int) -> PackedSums:
        """Of a fold, of all maps together."""
        return added(dict(enumerate(parts[fold] for parts in self.parts)), list(range(len(self.parts))))


@dataclass(frozen=True, slots=True)
class Seen:
    """How differences are made of sums."""

    half_of: NDArray[np.int64]
    """(F,) half set of every fold"""
    mask: NDArray[np.float32]
    """(N, N, N) where maps may differ"""
    radius: float
    """cycles per box beyond which maps have nothing"""
    gain: F64
    """(N // 2 + 1,) see `expected_share`"""
    pixel_size: float
    tau2_fudge: float = 1.0

    def difference(
        self, parts: Mapping[int, PackedSums], every: Mapping[int, PackedSums] | None
    ) -> tuple[dict[int, NDArray[np.float32]], NDArray[np.float32]]:
        """Map of the sums of folds, `parts`, without every fold, and that of all; zeros where they have nothing.

        It is a difference from the mean of `every`, the sums of all classes by fold; None: `parts` are differences.
        """
        folds = sorted(parts)
        total = added(parts, folds)
        if not float(total.weight.max(initial=0.0)) > 0:
            nothing = np.zeros((total.box,) * 3, np.float32)
            return dict.fromkeys(parts, nothing), nothing
        whole = None if every is None else added(every, folds)

        def less(part: PackedSums, of_all: PackedSums | None) -> PackedSums:
            return part if of_all is None else less_average(part, of_all)

        halves = []
        for half in (1, 2):
            chosen = [fold for fold in folds if self.half_of[fold] == half]
            halves.append(less(added(parts, chosen), None if every is None else added(every, chosen)))
        found = Shrinkage.of(halves[0], halves[1], self.mask, self.gain, self.pixel_size)
        prior = difference_prior(total, found.share, self.tau2_fudge)
        places = self.mask * found.places

        def density(part: PackedSums, of_all: PackedSums | None) -> NDArray[np.float32]:
            return np.asarray(solve_map(less(part, of_all), prior, self.radius) * places, np.float32)

        maps = {}
        for fold in folds:
            others = None if every is None or whole is None else whole.without(every[fold])
            maps[fold] = density(total.without(parts[fold]), others)
        return maps, density(total, whole)


@dataclass(slots=True)
class Differences:
    """Maps made of class sums: one for the particles of every fold, without them, and one of all."""

    sums: ClassSums
    seen: Seen
    common: bool = False
    """whether maps hold also what all classes have in common beyond the average: with junk, which is in the average"""
    alike: bool = True
    """whether all classes have the same symmetry; if not, each is a difference from an average of its own"""

    def solve(self) -> tuple[list[dict[int, NDArray[np.float32]]], list[NDArray[np.float32]]]:
        """Of every class the difference without every fold, and that of all particles.

        Classes are compared with the mean of all classes from the same particles: what they have in common, noise of
        the average among it, tells nothing about a class.
        """
        sums = self.sums
        folds = sorted(sums.parts[0])
        if not self.alike:
            found = [self.seen.difference(parts, None) for parts in sums.parts]
            return [one for one, _ in found], [total for _, total in found]
        every = {fold: sums.of_all(fold) for fold in folds}
        found = [self.seen.difference(parts, every) for parts in sums.parts]
        if self.common:
            mean, of_all = self.seen.difference(every, None)
            found = [
                ({fold: one[fold] + mean[fold] for fold in folds}, total + of_all) if total.any() else (one, total)
                for one, total in found
            ]
        return [one for one, _ in found], [total for _, total in found]
