"""What the images of a tilt series say about its CTFs, condensed to a few numbers per Fourier pixel (Eqs. 23-26).

Images are compared in the large box, where nearly all of the delocalised signal is, with slices of a reference that
does not contain the particle.  One pass over the images: noise power, scale and resolution weights are factors that
are the same for all particles of a tilt, and are applied to the sums afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.references import References
from tiltwise.exec.threads import map_ahead
from tiltwise.extract.ctf_plan import CtfPlan
from tiltwise.extract.images import ImageExtractor
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.kernels.api import C64, Backend
from tiltwise.maps.cross_fit import HALVES
from tiltwise.maps.whitening import slice_matrices
from tiltwise.spectral.disc import FourierDisc

TERMS = 8
"""Numbers per pixel, see `tiltwise.kernels.api.Backend.condense`."""
CHUNK_BYTES = 24 << 20
"""Images that are held at once, twice."""
FOR_PHASES, FOR_ODD = 5, 7
"""How many of the terms scores of defocus and scale need, and what odd aberrations need."""


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """Particles that are judged together: some folds of a half set, and one optics group."""

    half: int
    fold: int
    optics: int


@dataclass(slots=True)
class Evidence:
    """Condensed evidence of one series with F tilts, in B blocks of particles, on K pixels."""

    disc: FourierDisc
    step: float
    """1/Å per cycle per box"""
    blocks: Sequence[Block]
    sums: NDArray[np.float32]
    """(B, F, T, K) of the CTF without amplitude, the first T of 8 terms"""
    counts: NDArray[np.int64]
    """(B, F) images"""
    halves: dict[int, NDArray[np.float64]]
    """(F, 8, K) sums of either half set"""
    amplitude: NDArray[np.float64]
    """(F, K) scale x B-factor x damage of the CTF"""
    area: float
    """noise power of the images over that of boxes without the soft circle"""

    def total(self, half: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums (F, 8, K) and numbers of images (F,) of one half set, or of both."""
        chosen = [i for i, block in enumerate(self.blocks) if half in (None, block.half)]
        sums = self.halves[1] + self.halves[2] if half is None else self.halves[half]
        return sums, np.asarray(self.counts[chosen].sum(axis=0))


@dataclass(frozen=True, slots=True)
class Observed:
    """Images of one particle in n tilts."""

    tilts: NDArray[np.intp]
    images: NDArray[np.complex64]
    """(n, K)"""
    matrices: NDArray[np.float32]
    """(n, 3, 3) of the slices they are compared with"""
    depths: NDArray[np.float32]
    """(n,) defocus in Å that the depth of the particle adds"""


def condense(
    parts: Sequence[Observed],
    volumes: Sequence[tuple[C64, NDArray[np.bool_]]],
    disc: FourierDisc,
    plan: CtfPlan,
    sums: NDArray[np.float64],
    backend: Backend,
    threads: int,
) -> NDArray[np.int64]:
    """Adds images to `sums` (F, 8, K), returns how many (F,); `volumes` are references with the tilts they are for."""
    n_tilts = len(sums)
    tilts = np.concatenate([part.tilts for part in parts])
    reference = np.zeros(n_tilts, np.intp)
    for number, (_, chosen) in enumerate(volumes):
        reference[chosen] = number
    # by reference, and by tilt
    order = np.lexsort((tilts, reference[tilts]))
    images = np.concatenate([part.images for part in parts])[order]
    matrices = np.concatenate([part.matrices for part in parts])[order]
    depths = np.concatenate([part.depths for part in parts])[order]
    slopes, frequencies = plan.turns_per_angstrom.astype(np.float32), disc.frequencies3d()
    begin = 0
    for volume, chosen in volumes:
        number_of = np.bincount(tilts[chosen[tilts]], minlength=n_tilts)
        own = slice(begin, begin + int(number_of.sum()))
        begin = own.stop
        if number_of.any():
            backend.condense(
                volume,
                matrices[own],
                frequencies,
                len(volume) // 2,
                images[own],
                depths[own],
                np.concatenate([[0], np.cumsum(number_of)]).astype(np.int32),
                plan.turns,
                slopes,
                sums,
                threads=threads,
            )
    return np.bincount(tilts, minlength=n_tilts)


def collect(
    source: ParticleSource,
    poses: Poses,
    number: int,
    members: NDArray[np.intp],
    references: References,
    disc: FourierDisc,
    backend: Backend,
    threads: int,
    advance: Callable[[int], None],
    *,
    judged: int,
    terms: int,
) -> Evidence:
    """Evidence of the particles `members` of one series.

    Folds are judged in up to `judged` blocks of each half set, which keep the first `terms` of the 8 terms.
    """
    optset = source.optset
    series, particles = optset.series[number], optset.particles
    halves, folds = references.halves, references.folds
    step = 1.0 / (disc.box * source.pixel_size)
    pixel = series.pixel_size_angstrom

    def load(particle: int) -> Observed:
        loader = extractor(source, particle)
        position = poses.stored_px[particle] + poses.displacement_angstrom[particle] / pixel
        motion = optset.trajectories.get(particles.name[particle])
        tilts, images = loader.observed(position, None if motion is None else motion / pixel, disc)
        if particles.visible:
            seen = particles.visible[particle][tilts]
            tilts, images = tilts[seen], images[seen]
        matrices = slice_matrices(series, tilts, poses.rotation[particle][None], references.padded / disc.box)
        return Observed(tilts, images, matrices, loader.depth_defocus(position, tilts).astype(np.float32))

    size = max(1, CHUNK_BYTES // (8 * series.n_tilts * len(disc)))
    of_fold: dict[tuple[Block, int], list[int]] = {}
    for i in map(int, members):
        block = Block(int(halves[i]), int(folds[i]) % judged, int(particles.optics_index[i]))
        of_fold.setdefault((block, int(folds[i])), []).append(i)
    batches = [
        (block, fold, chosen[start : start + size])
        for (block, fold), chosen in sorted(of_fold.items())
        for start in range(0, len(chosen), size)
    ]
    blocks = sorted({block for block, _ in of_fold})
    kept = np.zeros((len(blocks), series.n_tilts, terms, len(disc)), np.float32)
    counts = np.zeros((len(blocks), series.n_tilts), np.int64)
    shape = series.n_tilts, TERMS, len(disc)
    totals, sums = {half: np.zeros(shape) for half in HALVES}, np.zeros(shape)
    plan: CtfPlan | None = None
    every_tilt = np.arange(series.n_tilts)
    loaded = map_ahead(load, (batch for _, _, batch in batches), threads)
    for place, ((block, fold, batch), parts) in enumerate(zip(batches, loaded, strict=True)):
        if plan is None or batches[place - 1][0].optics != block.optics:
            plan = CtfPlan.create(series, optset.optics[block.optics], *(disc.frequencies * step).T)
        volumes = references.of_images(block.half, fold, number, every_tilt)
        index = blocks.index(block)
        counts[index] += condense(parts, volumes, disc, plan, sums, backend, threads)
        advance(len(batch))
        if place + 1 == len(batches) or batches[place + 1][0] != block:
            kept[index] = sums[:, :terms]
            totals[block.half] += sums
            sums.fill(0.0)
    amplitude = np.zeros((series.n_tilts, len(disc))) if plan is None else plan.amplitude.astype(np.float64)
    area = extractor(source, int(members[0])).observed_area
    return Evidence(disc, step, blocks, kept, counts, totals, amplitude, area)


def extractor(source: ParticleSource, particle: int) -> ImageExtractor:
    """What cuts the images of a particle; there are tilt images."""
    loader = source.loader(particle)
    assert isinstance(loader, ImageExtractor)
    return loader
