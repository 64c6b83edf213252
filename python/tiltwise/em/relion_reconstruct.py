"""RELION-compatible reconstruction: the order of operations of relion_tomo_reconstruct_particle.

Mask before CTF, gather insertion into an unpadded box, sinc^2 in the radius, weight floor, taper.  Use it to
compare with RELION; `tiltwise.em.reconstruct` has the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import ordered_map
from tiltwise.extract.ctf_plan import column_limits
from tiltwise.extract.images import ImageExtractor
from tiltwise.kernels.gather import gather_slices
from tiltwise.spectral.fft import irfft2, irfft3, rfft2, rfft3
from tiltwise.spectral.masks import CircleCrop, distances, soft_edge
from tiltwise.spectral.shells import half_weights, shell_indices

CUTOFF_FRACTION = 0.01
"""Pixels whose radiation damage weight is not above this are left out."""
TAPER_PX = 10.0
CHUNK = 20
CHUNK_BYTES = 128 << 20
"""Particles whose slices are held at once, and what they may take."""


@lru_cache(maxsize=2)
def _tables(box: int) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float64]]:
    """What every solution needs: gridding correction (N, N, N), wrapped; shells of the transform, and their sizes."""
    # sinc^2 of a radius takes few values
    square = np.rint(np.fft.fftfreq(box, 1.0 / box)).astype(np.int64) ** 2
    total = square[:, None, None] + square[:, None] + square
    radius = np.sqrt(np.arange(int(total.max()) + 1))
    sinc2 = np.sinc(radius / box) ** 2
    sinc2[(sinc2 < 0.01) | (radius > box)] = 0.01
    shells = shell_indices(box, 3)
    return np.asarray(sinc2.astype(np.float32)[total]), shells, _sums(np.ones(shells.shape), shells)


def _sums(values: NDArray[np.float64], shells: NDArray[np.int32]) -> NDArray[np.float64]:
    """Sums over the shells 0..N // 2 of the full volume."""
    box = values.shape[0]
    weighted = (values * half_weights(box)).ravel()
    return np.asarray(np.bincount(shells.ravel(), weighted, box // 2 + 1)[: box // 2 + 1], dtype=np.float64)


class GatherReconstruction:
    """Numerator and denominator of one half set on the unpadded grid of the extraction box."""

    def __init__(self, box: int) -> None:
        shape = (box, box, box // 2 + 1)
        self.box = box
        self.data = np.zeros(shape, np.complex128)
        self.weight = np.zeros(shape)
        self._sinc2, self._shells, self._counts = _tables(box)

    def add(
        self,
        extractor: ImageExtractor,
        positions_px: NDArray[np.float64],
        motions_px: Sequence[NDArray[np.float64] | None],
        rotations: NDArray[np.float64],
        threads: int,
        advance: Callable[[int], None],
    ) -> None:
        """Adds particles of one tilt series at positions (n, 3) with rotations (n, 3, 3) into the tomogram."""
        limits = column_limits(extractor.box_plan, self.box, CUTOFF_FRACTION)
        circle_crop = CircleCrop(np.fft.ifftshift(distances(self.box, 2)), self.box / 2)

        def prepare(i: int) -> tuple[NDArray[np.intp], NDArray[np.complex64], NDArray[np.float32]]:
            # visibility is judged with half the box in unbinned pixels, whatever the binning
            tilts, spectra, ctf = extractor.transforms(positions_px[i], motions_px[i], self.box / 2)
            images = circle_crop(irfft2(spectra, self.box))
            used = (ctf * (np.arange(self.box // 2 + 1) < limits[tilts, :, None])).astype(np.float32)
            return tilts, np.asarray(rfft2(images) * used, np.complex64), used * used

        per_particle = 12 * extractor.series.n_tilts * self.box * (self.box // 2 + 1)
        size = max(1, min(CHUNK, CHUNK_BYTES // per_particle))
        for start in range(0, len(positions_px), size):
            chunk = range(start, min(start + size, len(positions_px)))
            parts = ordered_map(prepare, chunk, threads)
            matrices = [
                extractor.series.projection[tilts, :3, :3] @ rotations[i]
                for i, (tilts, _, _) in zip(chunk, parts, strict=True)
            ]
            # limits holds 1 + the largest column in use, so row 0 gives the radius
            radius = np.concatenate([limits[tilts, 0] for tilts, _, _ in parts]).astype(np.float64)
            gather_slices(
                np.concatenate([data for _, data, _ in parts]),
                np.concatenate([weight for _, _, weight in parts]),
                np.ascontiguousarray(np.concatenate(matrices)),
                radius,
                self.data,
                self.weight,
                threads=threads,
            )
            advance(len(chunk))

    def __add__(self, other: GatherReconstruction) -> GatherReconstruction:
        result = GatherReconstruction(self.box)
        result.data, result.weight = self.data + other.data, self.weight + other.weight
        return result

    def solve(self, crop: int, snr: float | None) -> NDArray[np.float32]:
        """Map (crop, crop, crop): gridding correction, division, crop, taper."""
        box = self.box
        # single precision from here on: sums are done
        density = irfft3(self.data.astype(np.complex64), box)
        spectrum = rfft3(density / self._sinc2)
        if snr is not None:
            weight = self.weight + 1.0 / snr
        else:
            means = _sums(self.weight, self._shells) / self._counts
            weight = np.maximum(self.weight, 1e-3 * means[np.minimum(self._shells, box // 2)])
        keep = (self._shells <= box // 2) & (weight > 0)
        density = irfft3(
            spectrum * np.divide(1.0, weight, out=np.zeros(weight.shape, np.float32), where=keep, casting="same_kind"),
            box,
        )
        first = box // 2 - crop // 2
        part = np.fft.fftshift(density)[(slice(first, first + crop),) * 3]
        taper = soft_edge(distances(crop, 3), crop / 2, TAPER_PX)
        mean = (part * taper).sum() / taper.sum()
        return np.asarray((part - mean) * taper, dtype=np.float32)
