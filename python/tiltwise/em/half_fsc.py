"""FSC of the half maps as a refinement uses it: inside the mask, and freed of what the mask correlates if asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.maps.spectra import MIN_PRIOR_SHELL, half_maps, last_shell_above
from tiltwise.maps.volumes import Accumulator
from tiltwise.spectral.fsc import fsc, fsc_without_radial
from tiltwise.spectral.randomised import BLURRED_SHELLS, MaskedFsc, mask_effect, masked_fsc


@dataclass(slots=True)
class HalfFsc:
    """Compares half maps.

    Parameters
    ----------
    mask
        (N, N, N), multiplied in.
    corrected
        take off what the mask correlates (`tiltwise.spectral.randomised`); without, the masked FSC counts.
    seed
        of the random phases; those of every iteration differ.
    flat
        whether posteriors are: then spheres are noise.  Where they are sharp, a sphere is what the particle looks like.
    """

    mask: NDArray[np.float32]
    corrected: bool
    seed: int
    flat: bool = True

    def curve(self, first: NDArray[np.float32], second: NDArray[np.float32], iteration: int) -> NDArray[np.float64]:
        """FSC (N // 2 + 1,) of two maps; with flat posteriors no more than without spheres, beyond the first shells.

        Particles whose posterior is flat, noise for one, add spheres to the map, and two spheres agree or disagree in
        whole shells by chance.
        """
        curve = self.curves(first, second, iteration).corrected if self.corrected else fsc(first, second, self.mask)
        return self._without_spheres(curve, first, second)

    def _without_spheres(
        self, curve: NDArray[np.float64], first: NDArray[np.float32], second: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        if not self.flat:
            return curve
        beyond = slice(MIN_PRIOR_SHELL + 1, None)
        curve[beyond] = np.minimum(curve, fsc_without_radial(first, second, self.mask))[beyond]
        return curve

    def shared_shell(self, sums: Mapping[int, Accumulator], limit: int, start: int, before: NDArray[np.float64]) -> int:
        """Shell up to which completed sums of the halves may be joined, `limit` at most.

        Never beyond what the halves know of each other: joined noise is in both references, counts as signal in the
        next FSC, and is found again.  That is where the FSC of the sums falls below 0.5, or `start`, the shell of the
        starting map, which both halves have seen.  Not looked at where the last FSC `before` is well beyond `limit`.
        """
        if not 0 < start < limit or last_shell_above(before) > limit + BLURRED_SHELLS:
            return max(limit, 1)
        first, second, _ = half_maps(sums[1], sums[2])
        curve = self._without_spheres(fsc(first, second, self.mask), first, second)
        return int(min(limit, max(last_shell_above(curve), start)))

    def curves(self, first: NDArray[np.float32], second: NDArray[np.float32], iteration: int) -> MaskedFsc:
        """All curves of two maps, whether the correction is asked for or not."""
        return masked_fsc(first, second, self.mask, seed=(self.seed, iteration))


def effect_of_mask(curves: MaskedFsc, box: int, pixel_size: float) -> str | None:
    """A sentence for the user if the mask makes the FSC look better than the maps are; None if not."""
    effect = mask_effect(curves, box, pixel_size)
    if not (effect.tight and effect.after_angstrom > effect.before_angstrom):
        return None
    return (
        f"the mask is tight: maps with random phases agree inside it (FSC {effect.chance:.2f} on average up to "
        f"{effect.before_angstrom:.1f} Å), and without its effect the resolution is {effect.after_angstrom:.1f} Å. Add "
        "--solvent-correct-fsc, or use a wider mask with a softer edge"
    )
