"""Cross-fitted references from the poses in a set: what images of any particle or tilt are predicted from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import map_ahead
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.kernels.api import Backend
from tiltwise.maps.cross_fit import CrossFit
from tiltwise.maps.initial import initial_noise_power
from tiltwise.model import OptimisationSet

CHUNK_IMAGES = 600
"""Images that are held at once."""
NOISE_SAMPLE = 10
"""Particles per series whose images give the noise power: a weight of the reconstruction, so a rough value does."""

LeaveOut = Literal["particle", "tilt", "series"]


@dataclass(frozen=True, slots=True)
class Partition:
    """Parts of the images of each half set; an image is predicted from all parts but its own."""

    count: int
    tilt_parts: tuple[NDArray[np.int64], ...] | None
    """for each series (F,) the part of its tilts; None where the fold of a particle is its part"""

    @classmethod
    def create(cls, optset: OptimisationSet, folds: NDArray[np.int64], count: int, leave_out: LeaveOut) -> Partition:
        """Into `count` parts at most, by the folds (P,) of particles, by tilts, or by series.

        Tilts next to each other are in different parts, so that no gap is left in a reference.  Where there is nothing
        to divide (one series of one tilt), the folds of particles are parts.
        """
        if leave_out == "particle" or sum(one.n_tilts for one in optset.series) < 2:
            return cls(1 + int(folds.max(initial=0)), None)
        if leave_out == "series":
            parts = tuple(np.full(one.n_tilts, n % count) for n, one in enumerate(optset.series))
        else:
            parts = tuple((_rank(one.nominal_tilt_deg) + n) % count for n, one in enumerate(optset.series))
        return cls(1 + max(int(part.max(initial=0)) for part in parts), parts)

    def tilts(self, part: int, series: int, count: int) -> NDArray[np.bool_]:
        """(F,) tilts of a series, which has `count`, that have images in a part."""
        return np.ones(count, bool) if self.tilt_parts is None else self.tilt_parts[series] == part

    def split(self, fold: int, series: int, tilts: NDArray[np.intp]) -> list[tuple[int, NDArray[np.bool_]]]:
        """Parts of the images of particles of a fold in one series, each with those of `tilts` (n,) it has."""
        if self.tilt_parts is None:
            return [(fold, np.ones(len(tilts), bool))]
        own = self.tilt_parts[series][tilts]
        return [(int(part), own == part) for part in np.unique(own)]


def _rank(values: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.argsort(values, kind="stable")
    result = np.empty(len(values), np.int64)
    result[order] = np.arange(len(values))
    return result


def fit_poses(
    source: ParticleSource,
    poses: Poses,
    halves: NDArray[np.int64],
    folds: NDArray[np.int64],
    partition: Partition,
    mask: NDArray[np.float32],
    symmetry: NDArray[np.float64],
    backend: Backend,
    threads: int,
    advance: Callable[[int], None],
) -> CrossFit:
    """Sums of every half set and part of it, from the images at the poses; particles that no tilt shows are left out.

    `advance(n)` is called after every n particles.

    Raises
    ------
    DataError
        if the half maps do not agree.
    """
    visible = source.visible(poses.displacement_angstrom)
    fit = CrossFit(source.box, mask, backend, threads, symmetry, partition.count)

    def load(asked: tuple[int, NDArray[np.bool_] | None]) -> ParticleImages:
        particle, tilts = asked
        return source.cut(particle, poses.displacement_angstrom[particle], tilts)

    noise = initial_noise_power(
        source, lambda i: load((i, None)), threads, lambda count: None, NOISE_SAMPLE, sample(source, visible)
    )
    batches: list[tuple[tuple[int, int], int, list[int], NDArray[np.bool_]]] = []
    for half, part in fit.keys:
        for number, series in enumerate(source.optset.series):
            tilts = partition.tilts(part, number, series.n_tilts)
            mine = (source.series_of == number) & (halves == half) & visible
            members = np.flatnonzero(mine if partition.tilt_parts is not None else mine & (folds == part))
            size = max(1, CHUNK_IMAGES // max(int(tilts.sum()), 1))
            for start in range(0, len(members) if tilts.any() else 0, size):
                batches.append(((half, part), number, [int(i) for i in members[start : start + size]], tilts))
    asked = ([(particle, tilts) for particle in chunk] for _, _, chunk, tilts in batches)
    loaded, told = 1e-6, 0  # particles
    for (key, number, chunk, tilts), images in zip(batches, map_ahead(load, asked, threads), strict=True):
        fit.add(*key, source.optset.series[number], images, poses.rotation[chunk], noise[number], source.disc)
        loaded += len(chunk) * float(tilts.mean())
        advance(int(loaded) - told)
        told = int(loaded)
    fit.finish()
    return fit


def sample(source: ParticleSource, visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(P,) some of the visible particles of every series, the same ones whatever their order in the file."""
    chosen = np.zeros(len(visible), bool)
    order = np.argsort(source.optset.particles.name, kind="stable")
    for number in range(len(source.optset.series)):
        own = order[(source.series_of[order] == number) & visible[order]]
        chosen[own[:NOISE_SAMPLE]] = True
    return chosen
