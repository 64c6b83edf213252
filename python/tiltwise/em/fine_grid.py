"""Second pass over the children of the significant cells, where posteriors are not a few peaks.

A rough look at the shells of the coarse pass leaves out children that cannot matter, as in `tiltwise.em.octree`.

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
from tiltwise.em.octree import MARGIN, SLACK, WORTHWHILE, Alive, cell_loss, kept_cells
from tiltwise.em.peaks import CoarsePosterior
from tiltwise.em.settings import Group, Settings
from tiltwise.kernels.api import C64, F32, Bools
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
        priors = group.rotation_prior(grid, local, rotations), settings.shift_prior(displacement, shifts)
        of_rotation, of_shift = len(rotations) // len(coarse.angles), len(shifts) // len(coarse.shifts)
        wanted = coarse.significant.repeat(of_rotation, axis=0).repeat(of_shift, axis=1)
        if self.disc.count(settings.coarse_radius) <= WORTHWHILE * self.disc.count(settings.fine_radius):
            # most children can be told from the best ones at the shells of the coarse pass
            log = self._likelihood(group, image, rotations, shifts, wanted, settings.coarse_radius, rough=True)
            log += priors[0][:, None]
            log += priors[1]
            steps = grid.fine_step_deg, grid.fine_shift_step_angstrom
            near = self.scorer, group.series, self.disc, settings.pixel_size, rotations, steps, settings.coarse_radius
            alive = Alive.of(
                kept_cells(log, MARGIN + SLACK * float(cell_loss(*near, [image])[0])),
                np.arange(len(rotations)),
                np.arange(len(shifts)),
            )
            rotations, shifts = rotations[alive.rows], shifts[alive.columns]
            priors = priors[0][alive.rows], priors[1][alive.columns]
            wanted = np.ones(alive.shape, bool) if alive.wanted is None else alive.wanted
        weights, summary = backend.posterior(
            self._likelihood(group, image, rotations, shifts, wanted, settings.fine_radius),
            *priors,
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
        rotations: NDArray[np.float64],
        shifts: NDArray[np.float64],
        wanted: Bools,
        radius: float,
        *,
        rough: bool = False,
    ) -> F32:
        """Log likelihood (R, T) below a radius where it is wanted; -inf elsewhere."""
        count = self.disc.count(radius)
        low, frequencies = image.prefix(count), self.disc.frequencies3d(count)
        result = np.full((len(rotations), len(shifts)), -np.inf, np.float32)

        def phases_of(part: slice) -> C64:
            return shift_phases(group.series, image.tilts, shifts[part], self.disc, self.settings.pixel_size, count)

        tiled_phases = PhaseTiles(self.scorer.tiles(len(shifts), len(low.score_image)), phases_of)
        for tile in self.scorer.tiles(len(rotations), len(low.score_image)):
            slices = self.scorer.slices(group.series, image.tilts, rotations[tile], frequencies)
            for part, phases in tiled_phases:
                cross, quadratic = self.scorer.backend.score(
                    slices,
                    low.score_image,
                    low.score_power,
                    phases,
                    wanted=np.ascontiguousarray(wanted[tile, part]),
                    rough=rough,
                    threads=self.settings.threads,
                )
                result[tile, part] = 2.0 * cross - quadratic[:, None]
        return result
