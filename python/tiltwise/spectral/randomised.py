"""FSC inside a mask, freed of what the mask itself correlates, by randomised phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.shells import radii

RANDOMISE_AT = 0.8
"""FSC without mask below which phases are randomised."""
BLURRED_SHELLS = 2
"""Shells beyond the first randomised one into which a mask still carries true signal: not corrected."""
TIGHT = 0.1
"""Mean FSC of randomised maps, up to the resolution, from which on a mask is called tight."""


@dataclass(frozen=True, slots=True)
class MaskedFsc:
    """FSC curves of two half maps, each `(N // 2 + 1,)`."""

    unmasked: NDArray[np.float64]
    masked: NDArray[np.float64]
    randomised: NDArray[np.float64]
    """inside the mask, of maps whose phases are random from `first_shell` on"""
    corrected: NDArray[np.float64]
    """what the maps share beyond the effect of the mask"""
    first_shell: int
    """first randomised shell; N // 2 + 1 if there is none"""


def randomise_phases(
    volume: NDArray[np.floating[Any]], first_shell: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A map `(N, N, N)` with random phases where |k| >= `first_shell`; amplitudes stay.

    |k| is not rounded, as in RELION: the inner half of that shell keeps its phases.  The phases are those of white
    noise, so the map stays real.
    """
    size = volume.shape[0]
    spectrum = rfft3(np.asarray(volume, dtype=np.float64))
    noise = rfft3(rng.standard_normal(volume.shape))
    chosen = radii(size, 3) >= first_shell
    spectrum[chosen] = np.abs(spectrum[chosen]) * noise[chosen] / np.abs(noise[chosen])
    return np.asarray(irfft3(spectrum, size))


def corrected_fsc(
    masked: NDArray[np.float64], randomised: NDArray[np.float64], first_shell: int
) -> NDArray[np.float64]:
    """`(masked - randomised) / (1 - randomised)`, from `BLURRED_SHELLS` beyond `first_shell` on; never below 0 there.

    Where the maps share signal of share `c` and the mask makes a share `r` of the rest agree, the masked FSC is
    `c + (1 - c) r`; this solves for `c`.  Shells before that keep the masked FSC.
    """
    result = np.array(masked, dtype=np.float64)
    beyond = np.arange(len(result)) >= first_shell + BLURRED_SHELLS
    own, chance = result[beyond], np.asarray(randomised, dtype=np.float64)[beyond]
    real = own > chance  # then chance < 1, as no correlation is above 1
    result[beyond] = np.where(real, (own - chance) / np.where(real, 1.0 - chance, 1.0), 0.0)
    return result


def masked_fsc(
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    mask: NDArray[np.floating[Any]],
    *,
    seed: int | Sequence[int] = 1,
    threshold: float = RANDOMISE_AT,
    first_shell: int | None = None,
    stored_once: bool = False,
) -> MaskedFsc:
    """FSC of two half maps `(N, N, N)` inside a mask, and what is left of it without the effect of the mask.

    Phases of both maps are randomised, independently of each other, from the first shell on in which the FSC
    without mask is below `threshold` (or from `first_shell`).  Same seed, same result.  `stored_once` sums
    as RELION does, see `tiltwise.spectral.shells.shell_totals`.

    Raises
    ------
    ShapeError
        if maps and mask are not cubes of one size.
    """
    masked = fsc(first, second, mask, stored_once=stored_once)
    unmasked = fsc(first, second, stored_once=stored_once)
    if first_shell is None:
        below = np.flatnonzero(~(unmasked[1:] >= threshold)) + 1
        first_shell = int(below[0]) if len(below) else len(unmasked)
    if first_shell >= len(unmasked):
        return MaskedFsc(unmasked, masked, masked.copy(), masked.copy(), len(unmasked))
    rng = np.random.default_rng(seed)
    random_first, random_second = (randomise_phases(volume, first_shell, rng) for volume in (first, second))
    randomised = fsc(random_first, random_second, mask, stored_once=stored_once)
    return MaskedFsc(unmasked, masked, randomised, corrected_fsc(masked, randomised, first_shell), first_shell)


@dataclass(frozen=True, slots=True)
class MaskEffect:
    """What a mask does to the FSC of half maps."""

    chance: float
    """mean FSC of the randomised maps from the first corrected shell to the resolution inside the mask"""
    before_angstrom: float
    """resolution (FSC 0.143) inside the mask"""
    after_angstrom: float
    """the same of the corrected curve"""

    @property
    def tight(self) -> bool:
        """Whether the mask makes random phases agree."""
        return self.chance > TIGHT


def mask_effect(curves: MaskedFsc, box: int, pixel_size: float) -> MaskEffect:
    """Effect of a mask on the FSC of half maps of `box` voxels of `pixel_size` Å."""
    before, after = (resolution_angstrom(curve, box, pixel_size) for curve in (curves.masked, curves.corrected))
    first = curves.first_shell + BLURRED_SHELLS
    last = max(round(box * pixel_size / before), first)
    chance = float(curves.randomised[first : last + 1].mean()) if first < len(curves.randomised) else 0.0
    return MaskEffect(chance, before, after)
