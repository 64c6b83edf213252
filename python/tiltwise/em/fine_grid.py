"""Second pass over the children of the significant cells, where posteriors are not a few peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate, of_grid
from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.em.maximisation import PosteriorPoses
from tiltwise.em.peaks import CoarsePosterior
from tiltwise.em.settings import Group, Settings
from tiltwise.kernels.api import F32
from tiltwise.maps.whitening import WhitenedImages
from tiltwise.spectral.disc import FourierDisc


@dataclass(slots=True)
class FineGrid:
    """Scores the children of coarse cells."""

    scorer: Scorer
    disc: FourierDisc
    settings: Settings

    def search(
        self, group: Group, local: int, image: WhitenedImages, coarse: CoarsePosterior
    ) -> tuple[PosteriorPoses, PoseEstimate]:
        """Second pass over the children of the significant cells."""
        settings, grid, backend = self.settings, self.settings.grid, self.scorer.backend
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
        return poses, of_grid(grid, rotations, shifts, kept, displacement, summary)

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
        phases = shift_phases(group.series, image.tilts, shifts, self.disc, self.settings.pixel_size, count)
        of_rotation, of_shift = len(rotations) // len(coarse.angles), len(shifts) // len(coarse.shifts)
        result = np.full((len(rotations), len(shifts)), -np.inf, np.float32)
        for tile in self.scorer.tiles(len(coarse.angles), of_rotation * len(low.score_image)):
            children = slice(tile.start * of_rotation, tile.stop * of_rotation)
            slices = self.scorer.slices(group.series, image.tilts, rotations[children], frequencies)
            # cells with the same shifts are scored together
            patterns: dict[bytes, list[int]] = {}
            for row in range(tile.start, tile.stop):
                patterns.setdefault(coarse.significant[row].tobytes(), []).append(row)
            for same in patterns.values():
                own = np.concatenate([np.arange(row * of_rotation, (row + 1) * of_rotation) for row in same])
                chosen = np.flatnonzero(np.repeat(coarse.significant[same[0]], of_shift))
                cross, quadratic = self.scorer.backend.score(
                    slices,
                    low.score_image,
                    low.score_power,
                    phases,
                    (own - children.start).astype(np.int32),
                    chosen.astype(np.int32),
                    threads=self.settings.threads,
                )
                result[np.ix_(own, chosen)] = 2.0 * cross - quadratic[:, None]
        return result
