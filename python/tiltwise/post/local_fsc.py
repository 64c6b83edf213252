"""Local correlation of half maps: a bank of band filters, and a window that moves over every voxel at once.

The transform of a map is parted into bands B_j with sum 1.  In each, with the filtered half maps f and g,

    C_j(x) = <f g> / sqrt(<f^2> <g^2>),   <h>(x) = sum_y w_j(x - y) m(y) h(y),

where w_j is a Gaussian window and m the mask; C_j is then averaged over a somewhat wider window, in which every place
counts alike and not by its power.  The mask weights products of maps that were filtered before it, so it correlates
nothing.  Bands are a fixed share of their frequency wide and windows a fixed number of their periods: coarse
detail is compared over large regions, fine detail over small ones, with the same number of independent values.
Cost: two transforms for each of some 20 to 40 bands, instead of two for each position of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tiltwise.spectral.fft import irfft3
from tiltwise.spectral.shells import half_weights, radii

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

BAND_SHARE = 0.2
"""Distance of neighbouring bands over their frequency, at least one shell."""
FWHM = float(np.sqrt(8 * np.log(2)))
"""Full width at half maximum of a Gaussian over its standard deviation."""
INNER_PERIODS = 2.0
"""Full width at half maximum of the windows in which power is summed, in periods of the band: wide windows would let
strong neighbours speak for a weak region."""
COARSE_SIGMA = 1.5
"""Standard deviation of a window in blocks of voxels, at least; products are averaged over blocks first."""


@dataclass(frozen=True, slots=True)
class Band:
    """Local correlation in one band; arrays are those of the region the mask fills, see `region_of`."""

    shell: float
    """centre, cycles per box; 0 for all that is coarser than the first band"""
    mean: F32
    """the band of the mean of both maps"""
    correlation: F32
    """local correlation; 0 where the mask has no weight"""
    noise_sigma: F32
    """standard deviation of the correlation of noise"""


def band_centres(first_shell: float, last_shell: float) -> F64:
    """Centres of the bands in shells, from the first to the last."""
    centres = [first_shell]
    while centres[-1] < last_shell:
        centres.append(min(last_shell, max(centres[-1] + 1.0, centres[-1] * (1.0 + BAND_SHARE))))
    return np.array(centres)


def band_gain(radius: F64, centres: F64, band: int) -> F64:
    """Filter of a band at radii in shells: sin² up from the centre below, cos² down to the centre above.

    The first band keeps all below its centre, the last one all above; all together are 1.
    """
    rise, fall = np.ones_like(radius), np.zeros_like(radius)
    if band > 0:
        low, high = centres[band - 1], centres[band]
        rise = np.sin(0.5 * np.pi * np.clip((radius - low) / (high - low), 0.0, 1.0)) ** 2
    if band + 1 < len(centres):
        low, high = centres[band], centres[band + 1]
        fall = np.sin(0.5 * np.pi * np.clip((radius - low) / (high - low), 0.0, 1.0)) ** 2
    return rise - fall


def region_of(mask: F32) -> tuple[slice, slice, slice]:
    """Smallest part of the box, along z, y and x, that holds every voxel of a mask above zero."""
    found = ndimage.find_objects((mask > 0).astype(np.int8))[0]
    return found[0], found[1], found[2]


def local_correlations(
    first: NDArray[np.complexfloating],
    second: NDArray[np.complexfloating],
    mask: F32,
    centres: F64,
    periods: float,
    workers: int = 1,
) -> Iterator[Band]:
    """Bands of two half maps, coarse first.

    Parameters
    ----------
    first, second
        half-complex transforms `(N, N, N // 2 + 1)` of the half maps (`norm="forward"`).
    mask
        `(N, N, N)`, weights of voxels in the local averages.
    centres
        of the bands, in shells.
    periods
        full width at half maximum of the window in all, in periods of its band; more than `INNER_PERIODS`.
    """
    size = mask.shape[0]
    radius = radii(size, 3)
    weights = half_weights(size)
    region = region_of(mask)
    inside = np.ascontiguousarray(mask[region])
    for number, centre in enumerate(centres):
        gain = band_gain(radius, centres, number).astype(np.float32)
        f, g = (
            np.asarray(irfft3(v * gain, size, workers, norm="forward")[region], np.float32) for v in (first, second)
        )
        inner, outer = (p * size / centre / FWHM for p in (INNER_PERIODS, periods))
        window = Window(inside, inner, outer)
        cross, power_f, power_g = (window.average(v) for v in (f * g, f * f, g * g))
        power = power_f * power_g
        correlation = np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)
        correlation = window.widened(correlation)
        # Independent values: those of the band in the whole box, times the share of it the window sees.
        components = float((gain.astype(np.float64) ** 2 * weights).sum()) ** 2 / float(
            (gain.astype(np.float64) ** 4 * weights).sum()
        )
        seen = window.effective_voxels() * (components / size**3)
        sigma_noise = 1.0 / np.sqrt(np.maximum(seen, 1.0))
        yield Band(float(centre), 0.5 * (f + g), window.spread(correlation), window.spread(sigma_noise))


class Window:
    """Averages under a moving Gaussian, weighted by a mask, on a grid of blocks of voxels.

    Sums are taken under a Gaussian of `inner` voxels (standard deviation), and correlations made of them under one that
    widens it to `outer`.
    """

    def __init__(self, mask: F32, inner: float, outer: float) -> None:
        self._mask = mask
        self._block = max(1, int(inner / COARSE_SIGMA))
        self._inner, self._outer = inner / self._block, outer / self._block
        self._weight = self._blocks(mask)

    def average(self, values: F32) -> F32:
        """Sum of mask x values under the inner window at every block, up to a factor that is the same everywhere."""
        return _smooth(self._blocks(values * self._mask), self._inner)

    def widened(self, blocks: F32) -> F32:
        """Mean of values of blocks, weighted by the mask, under the window that makes inner ones outer ones."""
        sigma = float(np.sqrt(self._outer**2 - self._inner**2))
        weight = _smooth(self._weight, sigma)
        total = _smooth(blocks * self._weight, sigma)
        return np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-6)

    def effective_voxels(self) -> F32:
        """`(sum w m)² / sum (w m)²` of the outer window at every block: number of equal voxels with the same noise."""
        weight = _smooth(self._weight, self._outer)
        # The square of a Gaussian is one of sigma / sqrt(2), lower by (2 sqrt(pi) sigma)^3 when both have the sum 1.
        square = _smooth(self._blocks(self._mask**2), self._outer / np.sqrt(2.0))
        square /= np.float32((2.0 * np.sqrt(np.pi) * self._outer) ** 3)
        ratio = np.divide(weight**2, square, out=np.zeros_like(weight), where=square > 1e-12)
        return np.asarray(ratio * np.float32(self._block**3))

    def spread(self, blocks: F32) -> F32:
        """Values of blocks on the voxels, linear between the centres of blocks."""
        if self._block == 1:
            return blocks
        fine = ndimage.zoom(blocks, self._block, order=1, mode="nearest", grid_mode=True)
        depth, height, width = self._mask.shape
        return np.asarray(fine[:depth, :height, :width])

    def _blocks(self, values: F32) -> F32:
        counts = [-(-n // self._block) for n in values.shape]
        padded = np.pad(values, [(0, c * self._block - n) for c, n in zip(counts, values.shape, strict=True)])
        shape = [length for count in counts for length in (count, self._block)]
        return np.asarray(padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32))


def _smooth(blocks: F32, sigma: float) -> F32:
    return np.asarray(ndimage.gaussian_filter(blocks, sigma, mode="constant", truncate=3.5))
