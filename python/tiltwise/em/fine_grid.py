"""Second pass over the children of the significant cells, where posteriors are not a few peaks.

Cells of a flat posterior are many and, halved often, have more children than memory holds.  There finer steps would
tell nothing, so they are halved fewer times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate, of_grid
from tiltwise.em.grid import PoseGrid
from tiltwise.em.likelihood import PhaseTiles, Scorer, shift_phases
from tiltwise.em.maximisation import PosteriorPoses
from tiltwise.em.peaks import CoarsePosterior
from tiltwise.em.settings import Group, Settings
from tiltwise.kernels.api import C64, F32
from tiltwise.maps.whitening import WhitenedImages
from tiltwise.spectral.components import FourierComponents

MOST_POSES = 1 << 24
"""Poses of one particle at most: 470 MB with their posterior, and minutes to score."""


@dataclass(slots=True)
class FineGrid:
    """Scores the children of coarse cells."""

    scorer: Scorer
    disc: FourierComponents
    settings: Settings

    def search(
        self, group: Group, local: int, image: WhitenedImages, coarse: CoarsePosterior
    ) -> tuple[PosteriorPoses, PoseEstimate]:
        """Second pass over the children of the significant cells."""
        settings, backend = self.settings, self.scorer.backend
        grid = self._grid_for(coarse.significant.size)
        centre, displacement = group.rotations[local], group.displacements_angstrom[local]
        rotations, shifts = grid.children(coarse.angles), grid.fine_shifts(coarse.shifts)
        weights, summary = backend.posterior(
            self._likelihood(group, image, coarse, rotations, shifts),
            group.rotation_prior(grid, local, rotations),
            settings.shift_prior(displacement, shifts),
            settings.fraction,
        )
        rows, columns = np.flatnonzero(weights.sum(axis=1) > 0), np.flatnonzero(weights.sum(axis=0) > 0)
        rotations, shifts = rotations[rows], shifts[columns]
        kept = np.ascontiguousarray(weights[np.ix_(rows, columns)])
        poses = PosteriorPoses(rotations, kept, shifts)
        if not kept.size:
            square = float(displacement @ displacement)
            return poses, PoseEstimate(centre, np.zeros(3), -np.inf, 0.0, 0, 0.0, np.nan, np.nan, square, False)
        estimate = of_grid(grid, rotations, shifts, kept, displacement, summary)
        estimate.log_evidence += settings.log_prior_of_no_shift(displacement)
        return poses, estimate

    def _grid_for(self, n_cells: int) -> PoseGrid:
        """Grid with as many halvings of the steps as so many cells allow, up to those asked for."""
        grid = self.settings.grid
        halvings = grid.oversampling
        while halvings > 0 and n_cells * 64**halvings > MOST_POSES:
            halvings -= 1
        return replace(grid, oversampling=halvings)

    def _likelihood(
        self,
        group: Group,
        image: WhitenedImages,
        coarse: CoarsePosterior,
        rotations: NDArray[np.float64],
        shifts: NDArray[np.float64],
    ) -> F32:
        """Log likelihood (R, T) of the children of significant cells; -inf for those of others."""
        count = self.disc.count(self.settings.fine_radius)
        low, frequencies = image.prefix(count), self.disc.frequencies3d(count)
        of_rotation, of_shift = len(rotations) // len(coarse.angles), len(shifts) // len(coarse.shifts)
        result = np.full((len(rotations), len(shifts)), -np.inf, np.float32)

        def phases_of(part: slice) -> C64:
            return shift_phases(group.series, image.tilts, shifts[part], self.disc, self.settings.pixel_size, count)

        tiled_phases = PhaseTiles(self.scorer.tiles(len(shifts), len(low.score_image)), phases_of)
        for tile in self.scorer.tiles(len(rotations), len(low.score_image)):
            slices = self.scorer.slices(group.series, image.tilts, rotations[tile], frequencies)
            cells = np.arange(tile.start, tile.stop) // of_rotation
            for part, phases in tiled_phases:
                significant = coarse.significant[:, np.arange(part.start, part.stop) // of_shift]
                # rotations with the same shifts are scored together
                patterns: dict[bytes, list[int]] = {}
                for row, cell in enumerate(cells):
                    patterns.setdefault(significant[cell].tobytes(), []).append(row)
                for rows in patterns.values():
                    columns = np.flatnonzero(significant[cells[rows[0]]])
                    if not len(columns):
                        continue
                    cross, quadratic = self.scorer.backend.score(
                        slices,
                        low.score_image,
                        low.score_power,
                        phases,
                        np.array(rows, np.int32),
                        columns.astype(np.int32),
                        threads=self.settings.threads,
                    )
                    found = 2.0 * cross - quadratic[:, None]
                    result[np.ix_(tile.start + np.array(rows), part.start + columns)] = found
        return result
