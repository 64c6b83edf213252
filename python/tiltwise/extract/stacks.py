"""Images of particles that another program has already extracted as 2D stacks.

Stacks hold one image per tilt, CTF-premultiplied or not.  They are centred on the stored coordinate, so a
particle that has moved since is followed with a phase ramp instead of a new cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.extract.ctf_plan import CtfPlan
from tiltwise.extract.images import EDGE_PX, ParticleImages, Window
from tiltwise.geometry.projection import depth_offset_px
from tiltwise.model import OpticsGroup, TiltSeries
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import rfft2
from tiltwise.spectral.masks import distances, soft_edge
from tiltwise.spectral.phases import shift_ramps

StackReader = Callable[[int], tuple[NDArray[np.intp], NDArray[np.float32]]]
"""particle index -> visible tilts (F,) and their images (F, N, N), centre at N // 2"""


class StackLoader:
    """Images of the particles of one tilt series from their stacks (see `ImageExtractor` for the same job)."""

    def __init__(
        self,
        series: TiltSeries,
        optics: OpticsGroup,
        read: StackReader,
        *,
        disc: FourierDisc,
        pixel_size: float,
        premultiplied: bool,
        diameter_angstrom: float | None = None,
    ) -> None:
        self.series, self.disc, self.read, self.pixel_size = series, disc, read, pixel_size
        self.premultiplied = premultiplied
        diameter = None if diameter_angstrom is None else diameter_angstrom / pixel_size
        self.window = Window(disc.box, disc.box, diameter)
        # Stacks may be cropped to a circle that ends at the edge of the box: power is measured inside it.
        distance = np.fft.ifftshift(distances(disc.box, 2))
        inner = disc.box / 2 - EDGE_PX
        self.power_mask = soft_edge(distance, inner, min(EDGE_PX, inner)).astype(np.float32)
        self.power_area = float((self.power_mask.astype(np.float64) ** 2).mean())
        """share of the box in which power is measured"""
        step = 1.0 / (disc.box * pixel_size)
        self.plan = CtfPlan.create(series, optics, *(disc.frequencies * step).T)

    def load(self, particle: int, stored_px: NDArray[np.float64], position_px: NDArray[np.float64]) -> ParticleImages:
        """Images of one particle; `stored_px` is where the stack is centred, `position_px` where the particle is now.

        Raises
        ------
        DataError
            if a pixel is NaN or infinite, or the images are not `disc.box` pixels wide.
        """
        tilts, images = self.read(particle)
        series = self.series
        if images.shape[1:] != (self.disc.box, self.disc.box):
            raise DataError(
                "extracted images have the wrong size",
                where=f"row {particle + 1}",
                expected=f"{self.disc.box} px",
                found=f"{images.shape[1:]}",
                fix="take the particles.star that was written with the stacks, or extract again",
            )
        if not np.isfinite(images).all():
            raise DataError(
                "extracted images contain NaN or infinite pixels",
                where=f"row {particle + 1}",
                fix="leave the particle out, or extract it again",
            )
        moved = (position_px - stored_px) * series.pixel_size_angstrom
        box = self.disc.box * self.pixel_size
        ramp = shift_ramps(series.image_axes(stored_px)[tilts], moved[None], self.disc.frequencies, box)[0]
        ctf = self._ctf(stored_px, tilts, None)
        factor = 1.0 if self.premultiplied else ctf
        wrapped = np.fft.ifftshift(images, axes=(1, 2))
        data = (self.disc.take(rfft2(wrapped)) * ramp * factor).astype(np.complex64)
        # The mask stays on the stored centre: a particle moves by much less than the mask is wide.
        mask = self.window.mask
        masked = data if mask is None else (self.disc.take(rfft2(wrapped * mask)) * ramp * factor).astype(np.complex64)
        spectra = self.disc.take(rfft2(wrapped * self.power_mask)).astype(np.complex128)
        power = self.disc.shell_means(np.abs(spectra) ** 2) / self.power_area
        return ParticleImages(
            tilts=tilts,
            data=data,
            masked=masked,
            ctf2=(ctf**2).astype(np.float32),
            power=power,
            premultiplied=self.premultiplied,
        )

    def _ctf(self, stored_px: NDArray[np.float64], tilts: NDArray[np.intp], count: int | None) -> NDArray[np.float32]:
        """CTF where the stack is centred."""
        series = self.series
        depth = depth_offset_px(series.projection, stored_px[None], series.tomogram_size)[0, tilts]
        defocus = series.hand * series.defocus_slope * series.pixel_size_angstrom * depth
        return self.plan.evaluate(defocus, tilts, count)

    def ctf2(
        self, stored_px: NDArray[np.float64], tilts: NDArray[np.intp], count: int | None = None
    ) -> NDArray[np.float32]:
        """(len(tilts), K) C^2 of a particle at the components of the disc, or the first `count` of them."""
        return self._ctf(stored_px, tilts, count) ** 2
