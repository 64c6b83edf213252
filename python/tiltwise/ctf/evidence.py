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
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.ctf_plan import CtfPlan
from tiltwise.extract.images import ImageExtractor
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.kernels.api import Backend
from tiltwise.maps.whitening import slice_matrices
from tiltwise.spectral.disc import FourierDisc

TERMS = 8
"""Numbers per pixel, see `tiltwise.kernels.api.Backend.condense`."""
CHUNK_BYTES = 48 << 20
"""Images that are held at once."""


@dataclass(frozen=True, slots=True)
class Block:
    """Particles that share a reference and an optics group."""

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
    sums: NDArray[np.float64]
    """(B, F, 8, K) of the CTF without amplitude"""
    counts: NDArray[np.int64]
    """(B, F) images"""
    amplitude: NDArray[np.float64]
    """(F, K) scale x B-factor x damage of the CTF"""
    area: float
    """noise power of the images over that of boxes without the soft circle"""

    def total(self, half: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums (F, 8, K) and numbers of images (F,) of one half set, or of both."""
        chosen = [i for i, block in enumerate(self.blocks) if half in (None, block.half)]
        return np.asarray(self.sums[chosen].sum(axis=0)), np.asarray(self.counts[chosen].sum(axis=0))


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
) -> Evidence:
    """Evidence of the particles `members` of one series."""
    optset = source.optset
    series, particles = optset.series[number], optset.particles
    keys = {
        i: Block(int(references.halves[i]), int(references.folds[i]), int(particles.optics_index[i])) for i in members
    }
    blocks = sorted(set(keys.values()), key=lambda block: (block.half, block.fold, block.optics))
    sums = np.zeros((len(blocks), series.n_tilts, TERMS, len(disc)))
    counts = np.zeros((len(blocks), series.n_tilts), np.int64)
    frequencies = disc.frequencies3d()
    step = 1.0 / (disc.box * source.pixel_size)
    amplitude, area = np.zeros((series.n_tilts, len(disc))), 1.0
    pixel = series.pixel_size_angstrom

    def load(particle: int) -> tuple[NDArray[np.intp], NDArray[np.complex64], NDArray[np.float64]]:
        loader = source.loader(particle)
        assert isinstance(loader, ImageExtractor)
        position = poses.stored_px[particle] + poses.displacement_angstrom[particle] / pixel
        motion = optset.trajectories.get(particles.name[particle])
        tilts, images = loader.observed(position, None if motion is None else motion / pixel, disc)
        if particles.visible:
            kept = particles.visible[particle][tilts]
            tilts, images = tilts[kept], images[kept]
        return tilts, images, loader.depth_defocus(position, tilts)

    for index, block in enumerate(blocks):
        plan = CtfPlan.create(series, optset.optics[block.optics], *(disc.frequencies * step).T)
        amplitude = plan.amplitude.astype(np.float64)
        turns, slopes = plan.turns, plan.turns_per_angstrom.astype(np.float32)
        chosen = [int(i) for i in members if keys[i] == block]
        loader = source.loader(chosen[0])
        assert isinstance(loader, ImageExtractor)
        area = loader.observed_area
        size = max(1, CHUNK_BYTES // (8 * series.n_tilts * len(disc)))
        for start in range(0, len(chosen), size):
            chunk = chosen[start : start + size]
            parts = ordered_map(load, chunk, threads)
            advance(len(chunk))
            tilts = np.concatenate([part[0] for part in parts])
            if not len(tilts):
                continue
            matrices = np.concatenate(
                [
                    slice_matrices(series, part[0], poses.rotation[i][None], references.padded / disc.box)
                    for i, part in zip(chunk, parts, strict=True)
                ]
            )
            order = np.argsort(tilts, kind="stable")
            tilts, matrices = tilts[order], matrices[order]
            images, depths = (np.concatenate([part[i] for part in parts])[order] for i in (1, 2))
            counts[index] += np.bincount(tilts, minlength=series.n_tilts)
            for volume, chosen_images in references.of_images(block.half, block.fold, number, tilts):
                mine = slice(None) if chosen_images.all() else chosen_images
                number_of = np.bincount(tilts[mine], minlength=series.n_tilts)
                backend.condense(
                    volume,
                    np.ascontiguousarray(matrices[mine]),
                    frequencies,
                    references.padded // 2,
                    images[mine],
                    depths[mine].astype(np.float32),
                    np.concatenate([[0], np.cumsum(number_of)]).astype(np.int32),
                    turns,
                    slopes,
                    sums[index],
                    threads=threads,
                )
    return Evidence(disc, step, blocks, sums, counts, amplitude, area)
