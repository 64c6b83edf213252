"""What a refinement sees of its data: images of particles in views, whatever they were made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.extract.cache import ParticleCache
from tiltwise.extract.images import EDGE_PX, ParticleImages
from tiltwise.extract.source import ImageSource
from tiltwise.spectral.masks import distances, soft_edge


class DataModel(ImageSource, Protocol):
    """Loads the images of any particle at any position: tilt images or pseudo-subtomograms."""

    frames: NDArray[np.float64] | None
    """(P, 3, 3) rotations from the frames that the views show into the tomogram; None if they are the same"""

    def visible(self, displacement_angstrom: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(P,) particles, displaced (P, 3) from their stored coordinates, that have any image."""
        ...

    def load(
        self, particle: int, displacement_angstrom: NDArray[np.float64], count: int | None = None
    ) -> ParticleImages:
        """Images of a particle displaced (3,) from its stored coordinate, centred on its position.

        `count` asks for the first components alone; more may be given.
        """
        ...


def in_views(images: DataModel, rotation: NDArray[np.float64], members: NDArray[np.intp]) -> NDArray[np.float64]:
    """(n, 3, 3) rotations of the particles `members` (n,), of all (P, 3, 3), from the map into what the views show."""
    own = rotation[members]
    return own if images.frames is None else np.swapaxes(images.frames[members], 1, 2) @ own


class StackModel:
    """Tilt images as they are, by Eq. 4."""

    def __init__(self, cache: ParticleCache) -> None:
        source = cache.source
        self.cache, self.series_of, self.views = cache, source.series_of, source.views
        self.frames: NDArray[np.float64] | None = None
        self.disc, self.box, self.pixel_size = source.disc, source.box, source.pixel_size
        self.area_ratio, self.pooled = source.area_ratio, False
        self.visible = source.visible

    def load(
        self, particle: int, displacement_angstrom: NDArray[np.float64], count: int | None = None
    ) -> ParticleImages:
        """See `DataModel.load`."""
        return self.cache.load(particle, displacement_angstrom, count)


class RelionStackModel(StackModel):
    """Tilt images by RELION's likelihood, `|C X - C^2 V|^2 / sigma^2` with one sigma^2 of C X for all tilts."""

    def __init__(self, cache: ParticleCache) -> None:
        super().__init__(cache)
        # images end at a soft circle
        circle = soft_edge(distances(self.box, 2), self.box / 2, min(EDGE_PX, self.box / 4))
        self.area_ratio, self.pooled = 1.0 / float((circle**2).mean()), True

    def load(
        self, particle: int, displacement_angstrom: NDArray[np.float64], count: int | None = None
    ) -> ParticleImages:
        """See `DataModel.load`."""
        images = self.cache.load(particle, displacement_angstrom)  # all components, for the power
        power = self.disc.shell_means((images.data.real**2 + images.data.imag**2).astype(np.float64))
        ones = np.ones_like(images.ctf2)
        return replace(images, power=power * self.area_ratio, premultiplied=True, samples=ones)
