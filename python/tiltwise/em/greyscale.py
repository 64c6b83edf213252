"""Absolute grey scale of a starting map: the factor that fits it to the images.

The exact likelihood needs a map in units of the images.  Over poses, `2 a cross - a^2 quadratic` is largest at
`a = cross / quadratic` with the value `cross^2 / quadratic`.  The best cells by that measure are found on a grid that
is as coarse as the resolution of the map allows, and give a first factor; the map of that scale is climbed to the modes
of its posteriors, as in the E-step, and one factor is fitted to all particles there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.expectation import Expectation
from tiltwise.em.laplace import Climber, climbing_radii
from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.em.octree import FIRST_ORDER
from tiltwise.em.peaks import CoarseTerms, Peaks
from tiltwise.em.settings import Group, Settings
from tiltwise.kernels.api import C64
from tiltwise.maps.whitening import WhitenedImages, whiten
from tiltwise.spectral.components import FourierComponents

SAMPLE = 60
"""Particles, of all groups together, that are enough to fit one number; at least two of each."""
STARTS = 6
"""Orientations from which a particle is climbed."""


@dataclass(slots=True)
class _Fit:
    """Sums over particles, and what is needed to climb from their best cells."""

    cross: float = 0.0
    quadratic: float = 0.0
    images: list[list[WhitenedImages]] = field(default_factory=list)
    """of every group"""
    starts: list[list[Peaks]] = field(default_factory=list)

    @property
    def factor(self) -> float | None:
        """None if the images tell nothing."""
        return self.cross / self.quadratic if self.cross > 0 and self.quadratic > 0 else None


def coarse_settings(settings: Settings, radius: float) -> Settings:
    """Grid and shells for a map that has nothing beyond a radius; searches near the last poses keep their grid."""
    grid = settings.grid
    if grid.local_sigma_deg is None and grid.order > FIRST_ORDER and not settings.fixed:
        grid = grid.at_order(FIRST_ORDER, 2.0 ** (grid.order - FIRST_ORDER))
    radius = min(radius, settings.fine_radius)
    return replace(settings, grid=grid, coarse_radius=radius, fine_radius=radius, map_radius=radius)


def fit_greyscale(expectation: Expectation, groups: Sequence[Group], radius: float) -> float:
    """Factor for the reference of `expectation`, which has nothing beyond a radius, from particles of every group."""
    scorer, disc = expectation.scorer, expectation.disc
    coarse = Expectation(scorer, disc, coarse_settings(expectation.settings, radius))
    first = _at_best_cells(coarse, groups)
    if first.factor is None:
        return 1.0
    if coarse.settings.fixed:
        return first.factor
    scaled = replace(scorer, volume=np.asarray(scorer.volume * np.float32(first.factor), np.complex64))
    second = _at_modes(scaled, disc, coarse.settings, groups, first)
    return first.factor * (second.factor or 1.0)


def _at_best_cells(expectation: Expectation, groups: Sequence[Group]) -> _Fit:
    fit = _Fit()
    for group in groups:
        fit.images.append([])
        fit.starts.append([])
        for sample in expectation.batches(group, max(2, SAMPLE // len(groups))):
            images = [
                whiten(group.load(i), expectation.disc, group.noise_power, expectation.coarse_count) for i in sample
            ]
            fit.images[-1] += images
            for terms in expectation.coarse_terms(group, sample, images, prune=False):
                rows, columns = _best(terms)
                fit.cross += float(terms.cross[rows[0], columns[0]])
                fit.quadratic += float(terms.quadratic[rows[0]])
                fit.starts[-1].append((terms.rotations[rows], terms.shifts[columns]))
    return fit


def _best(terms: CoarseTerms) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The best orientations, best first, each with its best shift."""
    gain = np.maximum(terms.cross, 0.0) ** 2 / np.maximum(terms.quadratic, 1e-20)[:, None]
    columns = gain.argmax(axis=1)
    rows = np.argsort(-gain.max(axis=1), kind="stable")[:STARTS]
    return rows, columns[rows]


def _at_modes(
    scorer: Scorer, disc: FourierComponents, settings: Settings, groups: Sequence[Group], cells: _Fit
) -> _Fit:
    fit, radius = _Fit(), settings.coarse_radius
    count = disc.count(radius)
    for group, images, starts in zip(groups, cells.images, cells.starts, strict=True):
        owner = np.repeat(np.arange(len(images)), [len(rotations) for rotations, _ in starts])
        prior = settings.pose_prior(group, np.arange(len(images)))
        climber = Climber(scorer, group.series, disc, settings.pixel_size, images, owner, prior)
        rotations, shifts = (np.concatenate(part) for part in zip(*starts, strict=True))
        modes = climber.climb(rotations, shifts, climbing_radii(settings.grid.coarse_step_deg, radius))
        for number, image in enumerate(images):
            own = np.flatnonzero(owner == number)
            best = own[int(np.argmax(modes.log_posterior[own]))]
            phases: C64 = shift_phases(
                group.series, image.tilts, modes.shift[best][None], disc, settings.pixel_size, count
            )
            cross, quadratic = scorer.terms(
                group.series, image, modes.rotation[best][None], phases, disc.frequencies3d(count)
            )
            fit.cross += float(cross[0, 0])
            fit.quadratic += float(quadratic[0])
    return fit
