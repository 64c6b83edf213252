"""Peaks of coarse posteriors climbed to their modes, and posteriors as Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate, of_modes
from tiltwise.em.laplace import Climber, Modes, gaussian_poses
from tiltwise.em.likelihood import Scorer
from tiltwise.em.maximisation import PosteriorPoses
from tiltwise.em.moments import match_moments
from tiltwise.em.peaks import Peaks
from tiltwise.em.settings import Group, Settings
from tiltwise.maps.whitening import WhitenedImages
from tiltwise.spectral.components import FourierComponents

LARGEST_DEFECT = 0.7
"""Nats by which a posterior may depart from the Gaussian of its mode two sigma off it."""
WORST_DEFECT = 4.0
"""Nats beyond which not even the region around the mode is known; between the two, moments are measured."""
LARGEST_WIDTH = 1.0
"""Shells x radians: wider Gaussians smear the rim over more voxels than a few points stand for."""
SAME_MODE = 4.0
"""Squared distance in standard deviations within which two climbs have reached the same mode."""
APART = 25.0
"""The same for modes around which moments are measured: their regions must not overlap."""
TOGETHER = 24
"""Particles that climb together: few enough for the caches."""


@dataclass(slots=True)
class Climbs:
    """Climbs from peaks and describes what is found."""

    scorer: Scorer
    disc: FourierComponents
    settings: Settings

    def run(
        self,
        group: Group,
        batch: list[int],
        whitened: list[WhitenedImages],
        peaks: Sequence[Peaks | None],
        radii: Sequence[float],
    ) -> list[tuple[PosteriorPoses, PoseEstimate] | None]:
        """Posterior of every particle as Gaussians; None where there are no peaks, or that does not describe them."""
        result: list[tuple[PosteriorPoses, PoseEstimate] | None] = []
        for start in range(0, len(batch), TOGETHER):
            part = slice(start, start + TOGETHER)
            result += self._together(group, batch[part], whitened[part], peaks[part], radii)
        return result

    def _together(
        self,
        group: Group,
        batch: list[int],
        whitened: list[WhitenedImages],
        peaks: Sequence[Peaks | None],
        radii: Sequence[float],
    ) -> list[tuple[PosteriorPoses, PoseEstimate] | None]:
        result: list[tuple[PosteriorPoses, PoseEstimate] | None] = [None] * len(batch)
        chosen = [i for i, found in enumerate(peaks) if found is not None]
        if not chosen:
            return result
        settings = self.settings
        starts = [found for found in peaks if found is not None]
        owner = np.repeat(np.arange(len(chosen)), [len(rotation) for rotation, _ in starts])
        members = np.array([batch[i] for i in chosen])
        prior = settings.pose_prior(group, members)
        climber = Climber(
            self.scorer,
            group.series,
            self.disc,
            settings.pixel_size,
            [whitened[i] for i in chosen],
            owner,
            prior,
        )
        rotation, shift = (np.concatenate(part) for part in zip(*starts, strict=True))
        modes = climber.climb(rotation, shift, radii)
        defect = climber.defect(modes, settings.fine_radius)
        for number, i in enumerate(chosen):
            own = np.flatnonzero(owner == number)
            kept = distinct(modes, own, SAME_MODE, settings.symmetry)
            mass = modes.log_mass[kept]
            share = np.exp(mass - mass.max())
            kept, share = kept[share > 1e-3 * share.sum()], share[share > 1e-3 * share.sum()]
            if not (share.sum() > 0 and np.all(defect[kept] <= WORST_DEFECT)):  # NaN: to the grid as well
                continue
            own_modes = modes.take(kept)
            if np.any(defect[kept] > LARGEST_DEFECT):
                apart = distinct(own_modes, np.arange(len(kept)), APART, settings.symmetry)
                own_modes = match_moments(climber, own_modes.take(apart), kept[apart], settings.fine_radius)
                if not np.isfinite(own_modes.log_mass).all():
                    continue
                share = np.exp(own_modes.log_mass - own_modes.log_mass.max())
            if not np.all(own_modes.angular_width * settings.fine_radius <= LARGEST_WIDTH):
                continue
            share = share / share.sum()
            displacement = group.displacements_angstrom[batch[i]]
            estimate = of_modes(own_modes, share, displacement)
            result[i] = gaussian_poses(own_modes, share, settings.map_radius, self.scorer.scale), estimate
        return result


def distinct(
    modes: Modes, chosen: NDArray[np.intp], apart: float, symmetry: NDArray[np.float64] | None
) -> NDArray[np.intp]:
    """Of the modes `chosen`, those that are not reached twice, nor as mates in a point group (G, 3, 3), best first."""
    kept: list[int] = []
    chosen = chosen[np.isfinite(modes.log_posterior[chosen])]
    for i in chosen[np.argsort(-modes.log_posterior[chosen], kind="stable")]:
        if all(modes.square_distance(int(i), j, symmetry) > apart for j in kept):
            kept.append(int(i))
    return np.array(kept, dtype=np.intp)
