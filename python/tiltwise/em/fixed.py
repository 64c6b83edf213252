"""E-step of particles whose poses are given: likelihood and errors there, no search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.laplace import Climber
from tiltwise.em.likelihood import Scorer
from tiltwise.em.maximisation import PosteriorPoses
from tiltwise.em.priors import PosePrior
from tiltwise.em.settings import Group, Settings
from tiltwise.maps.whitening import WhitenedImages
from tiltwise.spectral.components import FourierComponents

TOGETHER = 24
"""Particles that are looked at together: few enough for the caches."""


@dataclass(slots=True)
class FixedPoses:
    """Posteriors that are one pose each."""

    scorer: Scorer
    disc: FourierComponents
    settings: Settings

    def run(
        self, group: Group, batch: list[int], whitened: list[WhitenedImages]
    ) -> Iterator[tuple[PosteriorPoses, PoseEstimate]]:
        """The last pose of every member: its log likelihood, and errors from the Fisher information."""
        count = self.disc.count(self.settings.fine_radius)
        for start in range(0, len(batch), TOGETHER):
            part = np.array(batch[start : start + TOGETHER])
            images = whitened[start : start + TOGETHER]
            rotations, displacements = group.rotations[part], group.displacements_angstrom[part]
            prior = PosePrior(rotations, displacements, None, self.settings.offset_sigma_angstrom)
            every, still = np.arange(len(part)), np.zeros((len(part), 3))
            climber = Climber(self.scorer, group.series, self.disc, self.settings.pixel_size, images, every, prior)
            value, _, information = climber.evaluate(rotations, still, every, count)
            value = value - prior.of_rotations(rotations) - prior.of_shifts(still)
            covariance = np.linalg.inv(information)
            for i in range(len(part)):
                yield self._pose(rotations[i], displacements[i], float(value[i]), covariance[i])

    def _pose(
        self,
        rotation: NDArray[np.float64],
        displacement: NDArray[np.float64],
        log_likelihood: float,
        covariance: NDArray[np.float64],
    ) -> tuple[PosteriorPoses, PoseEstimate]:
        poses = PosteriorPoses(rotation[None], np.ones((1, 1), np.float32), np.zeros((1, 3)))
        estimate = PoseEstimate(
            rotation=rotation,
            shift_angstrom=np.zeros(3),
            log_evidence=log_likelihood,
            max_probability=1.0,
            n_significant=1,
            n_effective=1.0,
            std_deg=float(np.degrees(np.sqrt(np.trace(covariance[:3, :3]) / 3))),
            std_angstrom=float(np.sqrt(np.trace(covariance[3:, 3:]) / 3)),
            square_offset=float(displacement @ displacement),
            sharp=True,
        )
        return poses, estimate
