"""References from half maps that are given, for comparison: they contain the particles they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, ShapeError
from tiltwise.io.mrc import read_map
from tiltwise.maps.cross_fit import LEAST_FSC, PADDING
from tiltwise.maps.spectra import last_used_shell, usable
from tiltwise.maps.volumes import reference_volume
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.shells import spread

CERTAIN = 5.0
"""Standard deviations from which maps are said to have the wrong hand."""


@dataclass(frozen=True, slots=True)
class GivenReferences:
    """Half maps weighted by their FSC; of any grey scale."""

    maps: tuple[NDArray[np.float32], NDArray[np.float32]]
    """masked and weighted"""
    curve: NDArray[np.float64]
    opposite: bool

    @classmethod
    def read(
        cls, paths: tuple[Path, Path], mask: NDArray[np.float32], pixel_size: float, opposite: bool
    ) -> GivenReferences:
        """Reads `--ref1` and `--ref2`.

        Raises
        ------
        ShapeError
            if a map has another size than the images.
        DataError
            if its pixel size is another, or the maps do not agree.
        """
        maps = []
        for flag, path in zip(("--ref1", "--ref2"), paths, strict=True):
            density, own = read_map(path)
            if density.shape != mask.shape:
                raise ShapeError(
                    "half map and images differ in size",
                    where=f"{flag} {path}",
                    expected=" x ".join(str(n) for n in mask.shape) + f" voxels of {pixel_size:g} Å",
                    found=" x ".join(str(n) for n in density.shape[::-1]) + f" voxels of {own:g} Å",
                    fix="reconstruct the half maps with the same --b, --crop and --bin",
                )
            if own > 0 and abs(own - pixel_size) > 1e-2 * pixel_size:
                raise DataError(
                    "half map and images differ in pixel size",
                    where=f"{flag} {path}",
                    expected=f"{pixel_size:g} Å",
                    found=f"{own:g} Å",
                    fix="reconstruct the half maps with the same --bin",
                )
            maps.append(density)
        found = fsc(maps[0], maps[1], mask)
        curve = usable(found, LEAST_FSC)
        if not (curve[1:3] > 0).all():
            raise DataError(
                "the half maps do not agree",
                where="--ref1, --ref2",
                expected=f"a Fourier shell correlation above {LEAST_FSC} in the first shells",
                found=", ".join(f"{value:.2f}" for value in found[1:4]),
                fix="give the two unfiltered half maps of one reconstruction, and a mask that fits them",
            )
        size = len(mask)
        gain = spread(curve, size, 3)
        weighted = [irfft3(rfft3(density) * gain, size) * mask for density in maps]
        return cls((weighted[0], weighted[1]), curve, opposite)

    def mirrored(self, axis: int) -> GivenReferences:
        """The other hand: mirrored across a plane through the centre, axes z, y, x."""
        first, second = (np.roll(np.flip(density, axis), 1 - len(density) % 2, axis) for density in self.maps)
        return replace(self, maps=(first, second))

    @property
    def shell(self) -> int:
        """Last shell that references have."""
        return last_used_shell(self.curve)

    def reference(self, half: int, fold: int | None) -> NDArray[np.complex64]:
        """Padded Fourier volume for the particles of a half set, whatever their fold."""
        number = 2 - half if self.opposite else half - 1
        return reference_volume(self.maps[number].astype(np.float32), PADDING)


def refuse_mirrored(correlation: NDArray[np.float64], mirrored: Sequence[NDArray[np.float64]]) -> None:
    """Compares correlations (n,) of particles with maps and with these mirrored along z, y and x.

    Raises
    ------
    DataError
        if they fit their mirror image better, by `CERTAIN` standard deviations.
    """
    gains = [other - correlation for other in mirrored]
    surely = [gain.mean() / max(gain.std(ddof=1) / np.sqrt(len(gain)), 1e-30) for gain in gains]
    best = int(np.argmax(surely))
    if surely[best] > CERTAIN:
        raise DataError(
            f"the half maps fit the images better if they are mirrored along {'zyx'[best]}",
            where="--ref1, --ref2",
            expected="maps of the hand of the tilt series and particles",
            found=f"a correlation of mirrored maps that is {surely[best]:.0f} standard deviations higher",
            fix="give maps that were reconstructed from these particles, or --force",
        )
