"""Particle images kept in memory between iterations, in 16 bits a number.

Images are always cut at the *anchor* of a particle, the point nearest to it on a lattice of `ANCHOR_STEP_PX` about
its stored coordinate, rounded to 16 bits, and brought from there to the present position with a phase ramp.  Kept
or cut anew, they are the same numbers, so results do not depend on how much memory there is; and the anchor follows
from the position alone, so a run that is continued has the same.

Depth, and with it defocus, visibility, and the masks belong to the anchor, at most `sqrt(3) / 2` steps away.  That is
harmless: of a pixel of p Å, with a finest period of 2 p, a move by d pixels in depth changes the phase of the CTF there
by `pi lambda d / (4 p)`, 0.014 rad at most for p = 1 Å and 300 kV, a hundredth of what the spread of depths inside a
particle does; masks have edges of 5 pixels, and every search moves the particle under its mask by more than this;
boxes at the rim of an image repeat its last pixels.  A particle whose position has settled moves by a small part of a
step, and is hardly ever cut again.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.phases import shift_ramps

ANCHOR_STEP_PX = 1.0
"""Lattice of anchors in binned pixels; see above."""
LARGEST = 32767
"""Of a 16-bit whole number."""


@dataclass(frozen=True, slots=True)
class PackedSpectra:
    """Complex spectra as pairs of 16-bit whole numbers, in units of the largest of their tilt and shell.

    The scale of a shell does what the exponent of a half-precision float would do, and leaves all bits to the number:
    errors are at most 1.6e-5 of the largest.
    """

    values: NDArray[np.int16]
    """(F, K, 2) real and imaginary parts"""
    unit: NDArray[np.float32]
    """(F, s) of every shell of the disc that has components"""

    @classmethod
    def of(cls, spectra: NDArray[np.complex64], disc: FourierDisc) -> PackedSpectra:
        """From (F, K) at all components of the disc.  A shell with NaN or infinities comes back as NaN."""
        parts = np.ascontiguousarray(spectra).view(np.float32).reshape(*spectra.shape, 2)
        starts = np.flatnonzero(np.diff(disc.shells, prepend=-1))
        largest = np.maximum.reduceat(np.abs(parts).max(axis=2), starts, axis=1)
        unit = np.asarray(largest / LARGEST, np.float32)
        unit[unit == 0] = 1.0
        unit[~np.isfinite(unit)] = np.nan
        with np.errstate(invalid="ignore"):
            values = np.rint(parts / spread(unit, disc, len(disc))[..., None]).astype(np.int16)
        return cls(values, unit)

    def unpack(self, factors: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """(F, K') the first components times factors (F, K'), which are to contain the units (see `spread`)."""
        parts = self.values[:, : factors.shape[1]].astype(np.float32, order="C")
        return np.asarray(parts.view(np.complex64)[..., 0] * factors)


def spread(unit: NDArray[np.float32], disc: FourierDisc, count: int) -> NDArray[np.float32]:
    """(F, s) values of shells -> (F, count) of the first components of a disc."""
    starts = np.flatnonzero(np.diff(disc.shells[:count], prepend=-1))
    return np.repeat(unit[:, : len(starts)], np.diff(starts, append=count), axis=1)


@dataclass(frozen=True, slots=True)
class PackedImages:
    """Images of one particle at an anchor."""

    anchor_angstrom: NDArray[np.float64]
    """(3,) displacement from the stored coordinate"""
    tilts: NDArray[np.intp]
    data: PackedSpectra
    masked: PackedSpectra | None
    """None if it is the same as `data`"""
    power: NDArray[np.float64]
    """(F, S)"""
    premultiplied: bool


class ParticleCache:
    """Loads images of particles, and keeps those of as many as fit in `limit_bytes`, in the order they are asked for.

    So a worker that computes a part of the particles keeps its own.
    """

    def __init__(self, source: ParticleSource, limit_bytes: int) -> None:
        self.source = source
        self._sizes = self.sizes(source)
        self._left = limit_bytes
        self._lock = Lock()
        self._kept: dict[int, PackedImages] = {}

    @property
    def n_kept(self) -> int:
        """Particles whose images are kept."""
        return len(self._kept)

    @staticmethod
    def sizes(source: ParticleSource) -> NDArray[np.int64]:
        """(P,) bytes of every particle at most: as if all tilts showed it."""
        disc, copies = source.disc, 2 if source.masks else 1
        per_tilt = copies * (4 * len(disc) + 4 * disc.n_shells) + 8 * disc.n_shells
        tilts = np.array([series.n_tilts for series in source.optset.series], np.int64)
        return np.asarray(tilts[source.series_of] * per_tilt)

    def load(
        self, particle: int, displacement_angstrom: NDArray[np.float64], count: int | None = None
    ) -> ParticleImages:
        """Images of a particle displaced (3,) from its stored coordinate; `ParticleSource.load` to rounding.

        `count` asks for the first components of the disc alone; of images that came premultiplied C^2 is always given
        in full.  Several threads may load at once, but not the same particle.
        """
        anchor = self._anchor(displacement_angstrom)
        packed = self._kept.get(particle)
        if packed is None or not np.array_equal(packed.anchor_angstrom, anchor):
            packed = self._cut(particle, anchor, displacement_angstrom)
            self._keep(particle, packed)
        return self._at(particle, packed, displacement_angstrom, count)

    def _keep(self, particle: int, packed: PackedImages) -> None:
        """In place of older images of the particle, or if there is room."""
        with self._lock:
            size = int(self._sizes[particle])
            if particle not in self._kept:
                if size > self._left:
                    return
                self._left -= size
            self._kept[particle] = packed

    def _anchor(self, displacement: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of images that were extracted before, where they were extracted."""
        if self.source.from_stacks:
            return np.zeros(3)
        step = ANCHOR_STEP_PX * self.source.pixel_size
        return np.asarray(np.rint(displacement / step) * step)

    def _cut(self, particle: int, anchor: NDArray[np.float64], displacement: NDArray[np.float64]) -> PackedImages:
        images = self.source.cut(particle, anchor)
        if not len(images.tilts):
            # no image shows the anchor, but one may still show the particle, just so
            anchor, images = displacement, self.source.load(particle, displacement)
        disc = self.source.disc
        data = PackedSpectra.of(images.data, disc)
        masked = None if images.masked is images.data else PackedSpectra.of(images.masked, disc)
        return PackedImages(anchor, images.tilts, data, masked, images.power, images.premultiplied)

    def _at(
        self, particle: int, packed: PackedImages, displacement: NDArray[np.float64], count: int | None
    ) -> ParticleImages:
        """Unpacked at the present position."""
        disc, series = self.source.disc, self.source.optset.series[int(self.source.series_of[particle])]
        count = len(disc) if count is None else min(count, len(disc))
        moved = displacement - packed.anchor_angstrom
        stored = self.source.optset.particles.coordinate_px[particle]
        axes = series.image_axes(stored + packed.anchor_angstrom / series.pixel_size_angstrom)[packed.tilts]
        ramp = shift_ramps(axes, moved[None], disc.frequencies[:count], disc.box * self.source.pixel_size)[0]
        data = packed.data.unpack(ramp * spread(packed.data.unit, disc, count))
        masked = data
        if packed.masked is not None:
            masked = packed.masked.unpack(ramp * spread(packed.masked.unit, disc, count))
        whole = len(disc) if packed.premultiplied else count
        ctf2 = self.source.ctf2(particle, packed.anchor_angstrom, packed.tilts, whole)
        return ParticleImages(packed.tilts, data, masked, ctf2, packed.power, packed.premultiplied)
