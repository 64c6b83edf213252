"""Likelihood of whitened images of one particle over rotations and shifts (Eq. 4, expanded).

`log L(R, t) = 2 cross - quadratic` per independent component, with Y = C X / sigma^2 and B = C^2 / sigma^2
(`tiltwise.kernels.api`).  DC carries the background, not the molecule: its weight is zero in scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.kernels.api import C64, F32, Backend
from tiltwise.maps.whitening import WhitenedImages, slice_matrices
from tiltwise.model import Views
from tiltwise.spectral.components import FourierComponents
from tiltwise.spectral.phases import shift_ramps


def shift_phases(
    series: Views,
    tilts: NDArray[np.intp],
    shifts_angstrom: NDArray[np.float64],
    disc: FourierComponents,
    pixel_size: float,
    count: int,
) -> C64:
    """(T, F K) phases exp(+2 pi i k.d / N) that undo displacements of (T, 3) Å along tomogram axes (Eq. 5)."""
    ramps = shift_ramps(series.projection[tilts], shifts_angstrom, disc.frequencies[:count], disc.box * pixel_size)
    return ramps.reshape(len(shifts_angstrom), -1)


MOST_KEPT = 4
"""Tiles of phases that are held at a time; more are made again whenever they are needed."""


@dataclass(slots=True)
class PhaseTiles:
    """Phases of many shifts, tile by tile, because all of them would fill the memory; a few tiles are made once."""

    tiles: list[slice]
    make: Callable[[slice], C64]
    """phases (t, F K) of the shifts of a tile"""
    _kept: dict[int, C64] = field(init=False, default_factory=dict)

    def __iter__(self) -> Iterator[tuple[slice, C64]]:
        for i, tile in enumerate(self.tiles):
            phases = self._kept.get(i)
            if phases is None:
                phases = self.make(tile)
                if len(self.tiles) <= MOST_KEPT:
                    self._kept[i] = phases
            yield tile, phases


@dataclass(slots=True)
class Scorer:
    """Cross and quadratic terms for many poses, in tiles of rotations that fit `tile_bytes`."""

    backend: Backend
    volume: C64
    scale: float
    threads: int = 0
    tile_bytes: int = 48 << 20

    def slices(
        self,
        series: Views,
        tilts: NDArray[np.intp],
        rotations: NDArray[np.float64],
        frequencies: F32,
    ) -> C64:
        """(R, F K) reference slices."""
        matrices = slice_matrices(series, tilts, rotations, self.scale)
        slices = self.backend.project(
            self.volume, matrices, frequencies, self.volume.shape[0] // 2, threads=self.threads
        )
        return slices.reshape(len(rotations), -1)

    def tiles(self, n: int, n_components: int) -> list[slice]:
        """Ranges of n rotations whose slices fit the tile, or of n shifts whose phases do."""
        size = max(1, self.tile_bytes // max(1, 8 * n_components))
        return [slice(i, min(i + size, n)) for i in range(0, n, size)]

    def terms(
        self,
        series: Views,
        image: WhitenedImages,
        rotations: NDArray[np.float64],
        phases: C64,
        frequencies: F32,
    ) -> tuple[F32, F32]:
        """Cross (R, T) and quadratic (R,) terms of one particle."""
        cross = np.empty((len(rotations), len(phases)), np.float32)
        quadratic = np.empty(len(rotations), np.float32)
        for tile in self.tiles(len(rotations), len(image.score_image)):
            slices = self.slices(series, image.tilts, rotations[tile], frequencies)
            cross[tile], quadratic[tile] = self.backend.score(
                slices, image.score_image, image.score_power, phases, threads=self.threads
            )
        return cross, quadratic
