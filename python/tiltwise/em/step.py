"""One E-step: what all its units have in common, and how one unit is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.data_model import DataModel
from tiltwise.em.expectation import Expectation
from tiltwise.em.likelihood import Scorer
from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.orientation_prior import OrientationPrior
from tiltwise.em.settings import Group, Settings
from tiltwise.em.units import Key, Unit, UnitSums
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.kernels.api import Backend
from tiltwise.maps.volumes import Accumulator, reference_volume

PADDING = 2


@dataclass(frozen=True, slots=True)
class Step:
    """What the units of one E-step have in common: arrays and numbers, no images."""

    settings: Settings
    poses: Poses
    noise: list[NDArray[np.float64]]
    """sigma^2 (F, S) of every series"""
    references: Mapping[Key, NDArray[np.float32]]
    """map that the particles of a half set and fold are compared with"""
    contrast: NDArray[np.float64]
    """(n,) factor on the CTF of every series"""


@dataclass(slots=True)
class UnitRunner:
    """Computes units from images that are at hand."""

    images: DataModel
    backend: Backend
    threads: int
    orientation: OrientationPrior | None = None
    """what the particle file says of the orientations of all particles"""
    before_load: Callable[[], None] = lambda: None
    """called before the images of every particle are read; may raise"""
    _last: tuple[Step, NDArray[np.float32], Expectation] | None = field(init=False, default=None)

    def scorer(self, density: NDArray[np.float32]) -> Scorer:
        """Scores against a map (N, N, N)."""
        return Scorer(self.backend, reference_volume(density, PADDING), float(PADDING), self.threads)

    def expectation(self, step: Step, key: Key) -> Expectation:
        """The E-step of one half set and fold; that of the last unit is kept, for those with the same reference."""
        density = step.references[key]
        if self._last is None or self._last[0] is not step or self._last[1] is not density:
            self._last = None  # one reference volume at a time
            settings = replace(step.settings, threads=self.threads)
            self._last = step, density, Expectation(self.scorer(density), self.images.disc, settings)
        return self._last[2]

    def group(
        self,
        series: int,
        members: NDArray[np.intp],
        poses: Poses,
        noise: NDArray[np.float64],
        contrast: float,
        count: int,
        audited: int = 0,
    ) -> Group:
        """Particles `members` of one series at their present poses, with the first `count` pixels of every tilt."""
        displaced = poses.displacement_angstrom

        def load(local: int) -> ParticleImages:
            self.before_load()
            particle = int(members[local])
            return self.images.load(particle, displaced[particle], count).with_contrast(contrast)

        group = Group(
            self.images.views[series],
            noise,
            members,
            poses.rotation[members],
            displaced[members],
            load,
            None if self.orientation is None else self.orientation.take(members),
            audited,
        )
        return group if self.images.frames is None else group.within(self.images.frames[members])

    def run(self, step: Step, unit: Unit, advance: Callable[[int], None]) -> UnitSums:
        """Sums and estimates of a unit; `advance(n)` is called after every n particles."""
        expectation = self.expectation(step, unit.key)
        sums = UnitSums(Accumulator.empty(self.images.disc.box, PADDING), {}, [], [])
        expectation.missed.clear()
        audited = unit.audited
        for series, members in unit.parts:
            power, contrast = step.noise[series], float(step.contrast[series])
            group = self.group(series, members, step.poses, power, contrast, expectation.map_count, audited)
            noise = sums.noise[series] = NoiseSums.empty(*power.shape)
            sums.estimates += expectation.run(group, sums.accumulator, noise, advance)
            audited = 0
        sums.missed += expectation.missed
        return sums

    def forget(self) -> None:
        """Frees the reference volume."""
        self._last = None
