"""Images of one particle in all its tilts, in the form the likelihood needs (the stack data model, Eq. 4).

`ImageExtractor` follows RELION's extraction step by step (sign, scale, masks), so that the same code
serves refinement and RELION-compatible export.  Images are multiplied by their CTF *before* they are
masked in real space: signal that the CTF spreads over the box is then refocused inside the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.extract.boxes import SectionReader, centred_transforms, cut_boxes, cut_size
from tiltwise.extract.ctf_plan import CtfPlan
from tiltwise.geometry.projection import depth_offset_px, is_visible
from tiltwise.model import OpticsGroup, TiltSeries
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import rfft2
from tiltwise.spectral.masks import CircleCrop, distances, soft_edge

EDGE_PX = 5.0
"""Width of the soft edge of circular masks in pixels, as in RELION."""

SHOWN = 5
"""How many of many bad particles or tilts a message names."""

BATCH_PIXELS = 2**18
"""Pixels of large boxes that are worked on at a time: small enough for the caches, and for allocations that reuse
memory instead of asking the system for fresh pages, which would cost a third of the time."""


Prediction = Callable[[NDArray[np.intp], NDArray[np.float64]], NDArray[np.complex64]]
"""What else is in the images of a particle: rows of n tilts and the points (n, 2) in unbinned pixels that boxes are
centred on -> transforms (n, b, b // 2 + 1) as `ImageExtractor.transforms` gives them, CTF included."""


@dataclass(frozen=True, slots=True)
class ParticleImages:
    """CTF-premultiplied transforms of one particle, at the pixels of a `FourierDisc`; unitary.

    `tilts` lists the F visible tilts (row indices of the series).
    """

    tilts: NDArray[np.intp]
    data: NDArray[np.complex64]
    """(F, K) C X, for the reconstruction"""
    masked: NDArray[np.complex64]
    """(F, K) C X inside the particle diameter, for scores; the same array as `data` without a diameter"""
    ctf2: NDArray[np.float32]
    """(F, K) C^2"""
    power: NDArray[np.float64]
    """(F, S) mean |X|^2 of one component of the un-multiplied image in every shell, over the large box; of
    images that came premultiplied mean |C X|^2, over the circle they were cropped to"""
    premultiplied: bool = False
    """whether `power` is that of C X"""
    samples: NDArray[np.float32] | None = None
    """(F, K) M, pixels in every component, for RELION's likelihood; None for the exact one"""

    def with_contrast(self, factor: float) -> ParticleImages:
        """The same images with a CTF of `factor` C: what a series of that contrast is compared with."""
        if factor == 1.0:
            return self
        single, square = np.float32(factor), np.float32(factor * factor)
        power = self.power * factor**2 if self.premultiplied else self.power
        return replace(self, data=self.data * single, masked=self.masked * single, ctf2=self.ctf2 * square, power=power)

    def of_tilts(self, chosen: NDArray[np.bool_]) -> ParticleImages:
        """Those images whose row of `chosen` (F,) is true."""
        if chosen.all():
            return self
        data = self.data[chosen]
        return ParticleImages(
            self.tilts[chosen],
            data,
            data if self.masked is self.data else self.masked[chosen],
            self.ctf2[chosen],
            self.power[chosen],
            self.premultiplied,
            None if self.samples is None else self.samples[chosen],
        )


def outside_every_tilt(where: Sequence[str], positions_px: NDArray[np.float64], width: float) -> DataError:
    """Error for particles at `positions_px` (n, 3) without visible tilts; `width` of their images in Å."""
    count = len(where)
    shown = [", ".join(f"{x:.1f}" for x in position) for position in positions_px[:SHOWN]]
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return DataError(
        "a particle lies outside every tilt image" if count == 1 else f"{count} particles lie outside every tilt image",
        where=", ".join(where[:SHOWN]) + more,
        expected=f"boxes of {width:.0f} Å inside the images in at least one tilt",
        found=("position " if count == 1 else "positions ") + "; ".join(shown) + f" px{more}",
        fix="check units, binning and origin of the coordinates, remove these particles, or use a smaller box",
    )


def refuse_unless_visible(tilts: NDArray[np.intp], position_px: NDArray[np.float64], width: float, where: str) -> None:
    """Raises DataError for a particle at `position_px` without visible tilts; `width` of its images in Å."""
    if len(tilts) == 0:
        raise outside_every_tilt([where], position_px[None], width)


class Window:
    """Real-space cropping of a `box` to its central `crop` pixels, in wrapped layout (origin at index 0)."""

    def __init__(self, box: int, crop: int, diameter_px: float | None) -> None:
        if not (4 <= crop <= box and crop % 2 == 0):
            raise ConfigError(
                "crop does not fit the box",
                where="--crop",
                expected=f"an even number of at most --b {box}",
                found=str(crop),
                fix="choose an even --crop that is not larger than --b",
            )
        self.box, self.crop = box, crop
        self.index = np.r_[0 : crop // 2, box - crop // 2 : box]
        radius = np.fft.ifftshift(distances(box, 2))
        self.circle_crop = CircleCrop(radius, crop / 2, EDGE_PX, self.index)
        self.mask: NDArray[np.float32] | None = None
        """(crop, crop) of the particle: 1 inside the diameter, falling to 0 over the edge outside it"""
        if diameter_px is not None:
            distance = radius[np.ix_(self.index, self.index)]
            self.mask = soft_edge(distance, diameter_px / 2 + EDGE_PX, EDGE_PX).astype(np.float32)


class ImageExtractor:
    """Cuts, CTF-multiplies and transforms the images of the particles of one tilt series.

    Parameters
    ----------
    box_px, crop_px
        sizes of the extraction box and of the final images in binned pixels (RELION's --b, --crop).
    diameter_angstrom
        particle diameter for the mask of the `masked` copy; None masks with the inscribed circle only.
    max_dose
        tilts with a larger pre-exposure (e/Å^2) are left out.
    """

    def __init__(
        self,
        series: TiltSeries,
        optics: OpticsGroup,
        reader: SectionReader,
        *,
        box_px: int,
        crop_px: int,
        binning: float,
        disc: FourierDisc,
        diameter_angstrom: float | None = None,
        max_dose: float | None = None,
    ) -> None:
        self.series, self.reader, self.disc, self.binning = series, reader, disc, binning
        self.cut_px = cut_size(box_px, binning)
        self.pixel_size = series.pixel_size_angstrom * binning
        diameter = None if diameter_angstrom is None else diameter_angstrom / self.pixel_size
        self.window = Window(box_px, crop_px, diameter)
        half = np.fft.rfftfreq(box_px, self.pixel_size), np.fft.fftfreq(box_px, self.pixel_size)
        kx, ky = np.meshgrid(*half)
        self.box_plan = CtfPlan.create(series, optics, kx, ky)
        step = 1.0 / (crop_px * self.pixel_size)
        self.disc_plan = CtfPlan.create(series, optics, *(disc.frequencies * step).T)
        self._batch = max(1, BATCH_PIXELS // box_px**2)
        self.dose_allowed = np.ones(series.n_tilts, bool) if max_dose is None else series.pre_exposure <= max_dose
        self._circle = CircleCrop(distances(self.cut_px, 2), self.cut_px / 2, EDGE_PX)
        self._prepare_power()

    def _prepare_power(self) -> None:
        """Shell of the cropped box for every pixel of the large box, each independent component once."""
        box = self.window.box
        # Whole numbers: radii half-way between shells must not depend on rounding.
        kx, ky = np.meshgrid(np.arange(box // 2 + 1), np.rint(np.fft.fftfreq(box, 1.0 / box)))
        shells = np.rint(np.hypot(kx, ky) * self.window.crop / box).astype(np.int64)
        redundant = (kx == 0) & (ky < 0)
        shells[redundant | (shells >= self.disc.n_shells)] = self.disc.n_shells
        order = np.argsort(shells.ravel(), kind="stable")
        # Shells next to Nyquist of the large box are fed by its own pixels only.
        self._power_counts = np.bincount(shells.ravel())[: self.disc.n_shells]
        self._power_starts = np.concatenate([[0], np.cumsum(self._power_counts)[:-1]])
        self._power_index = order[: self._power_counts.sum()]

    def project(self, position_px: NDArray[np.float64], motion_px: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """(F, 3) image position (unbinned pixels) and depth of a particle, moved (F, 3) and deformed."""
        point = position_px if motion_px is None else position_px + motion_px
        return np.asarray(self.series.project(point[None])[0])

    @property
    def visibility_radius_px(self) -> float:
        """How far inside an image (unbinned pixels) a particle must lie: half the size of the final images."""
        return self.binning * self.window.crop / 2

    def visible(self, points: NDArray[np.float64], radius_px: float) -> NDArray[np.bool_]:
        """(..., F): do `points` (..., F, 2+) lie at least `radius_px` unbinned pixels inside the images in use."""
        return np.asarray(is_visible(points[..., :2], self.series.image_size, radius_px) & self.dose_allowed)

    def visible_tilts(self, points: NDArray[np.float64], radius_px: float) -> NDArray[np.intp]:
        """Rows of the tilts in which `points` (F, 2+) lie at least `radius_px` unbinned pixels inside the image."""
        return np.flatnonzero(self.visible(points, radius_px))

    def depth_defocus(self, position_px: NDArray[np.float64], tilts: NDArray[np.intp]) -> NDArray[np.float64]:
        """(len(tilts),) defocus in Å that the depth of a particle adds; its motion does not enter."""
        series = self.series
        depth = depth_offset_px(series.projection, position_px[None], series.tomogram_size)[0]
        return np.asarray(series.hand * series.defocus_slope * series.pixel_size_angstrom * depth[tilts])

    def transforms(
        self,
        position_px: NDArray[np.float64],
        motion_px: NDArray[np.float64] | None,
        radius_px: float | None = None,
        remove: Prediction | None = None,
    ) -> tuple[NDArray[np.intp], NDArray[np.complex64], NDArray[np.float32]]:
        """Visible tilts, contrast-inverted transforms (F, b, b // 2 + 1), and CTF x damage on the same grid.

        Odd aberrations are corrected, and what `remove` predicts is subtracted.  `radius_px` is the visibility radius
        in unbinned pixels, half the size of the final images by default.

        Raises
        ------
        DataError
            if a pixel is NaN or infinite.
        """
        if radius_px is None:
            radius_px = self.visibility_radius_px
        points = self.project(position_px, motion_px)
        tilts = self.visible_tilts(points, radius_px)
        ctf = self.box_plan.evaluate(self.depth_defocus(position_px, tilts), tilts)
        return tilts, self._spectra(points, tilts, remove=remove), ctf

    def observed(
        self, position_px: NDArray[np.float64], motion_px: NDArray[np.float64] | None, disc: FourierDisc
    ) -> tuple[NDArray[np.intp], NDArray[np.complex64]]:
        """Visible tilts and un-multiplied transforms (F, K) of the large box at the pixels of `disc`, unitary.

        Boxes are cut to their inscribed soft circle and freed of the mean outside it, so that gradients of the
        background do not leak over the edges; `observed_area` tells what that leaves of the noise power.  Contrast
        is inverted and odd aberrations are corrected.

        Raises
        ------
        DataError
            if a pixel is NaN or infinite.
        """
        points = self.project(position_px, motion_px)
        tilts = self.visible_tilts(points, self.visibility_radius_px)
        observed = np.empty((len(tilts), len(disc)), np.complex64)
        for start in range(0, len(tilts), self._batch):
            batch = slice(start, start + self._batch)
            observed[batch] = disc.take(self._spectra(points, tilts[batch], self._circle))
        return tilts, observed

    @property
    def observed_area(self) -> float:
        """Noise power of `observed` over that of the whole box: the mean square of its soft circle."""
        return float(np.mean(soft_edge(distances(self.cut_px, 2), self.cut_px / 2, EDGE_PX) ** 2))

    def _spectra(
        self,
        points: NDArray[np.float64],
        tilts: NDArray[np.intp],
        circle: CircleCrop | None = None,
        remove: Prediction | None = None,
    ) -> NDArray[np.complex64]:
        """Contrast-inverted transforms (len(tilts), b, b // 2 + 1) centred on `points` (F, 2+), odd aberrations out."""
        boxes, offsets = cut_boxes(self.reader, self.series.image_size, tilts, points[tilts, :2], self.cut_px)
        if circle is not None:
            boxes = circle(boxes)
        try:
            spectra = centred_transforms(boxes, offsets, self.window.box, self.binning, -1.0)
        except DataError as error:
            raise self._bad_pixels() from error
        if self.box_plan.odd is not None:
            spectra *= self.box_plan.odd
        if remove is not None:
            spectra -= remove(tilts, points[tilts, :2])
        return spectra

    def _bad_pixels(self) -> DataError:
        """Error that names every tilt of the series with NaN or infinite pixels."""
        series = self.series
        width, height = series.image_size
        counts = {}
        for tilt in range(series.n_tilts):
            image = self.reader.window(tilt, slice(0, height), slice(0, width))
            counts[tilt] = int((~np.isfinite(image)).sum())
        bad = [tilt for tilt, count in counts.items() if count]
        files = list(dict.fromkeys(series.image_files[tilt] for tilt in bad)) if series.image_files else []
        more = f" and {len(bad) - SHOWN} more tilts" if len(bad) > SHOWN else ""
        return DataError(
            "tilt images contain NaN or infinite pixels",
            where=": ".join([series.name, *([", ".join(files[:SHOWN])] if files else [])]),
            expected="finite pixels",
            found=", ".join(f"{counts[tilt]} in row {tilt + 1}" for tilt in bad[:SHOWN]) + more,
            fix="repeat the job that wrote the images, or leave these tilts out of the tilt series",
        )

    def stack(
        self,
        position_px: NDArray[np.float64],
        motion_px: NDArray[np.float64] | None = None,
        *,
        premultiplied: bool = True,
        remove: Prediction | None = None,
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """RELION's 2D stack: visible tilts and CTF-premultiplied real images (F, crop, crop), centre at crop // 2.

        Divided by the binning, as RELION-5 does.  Not `premultiplied`, images lack the CTF and radiation damage, as
        they do with RELION's --no_ctf.  What `remove` predicts is subtracted.
        """
        tilts, spectra, ctf = self.transforms(position_px, motion_px, remove=remove)
        images = self.premultiplied(spectra, ctf if premultiplied else np.ones_like(ctf))
        return tilts, np.fft.fftshift(images, axes=(1, 2)) / np.float32(self.binning)

    def premultiplied(self, spectra: NDArray[np.complex64], ctf: NDArray[np.float32]) -> NDArray[np.float32]:
        """CTF-premultiplied, circle-cropped images (F, crop, crop) in wrapped layout; overwrites `spectra`."""
        spectra *= ctf
        return self.window.circle_crop.inverse(spectra)

    def load(
        self,
        position_px: NDArray[np.float64],
        motion_px: NDArray[np.float64] | None = None,
        among: NDArray[np.bool_] | None = None,
        remove: Prediction | None = None,
    ) -> ParticleImages:
        """Images of one particle for the likelihood; unmultiplied power over the large box included.

        In the tilts `among` (F,) alone, all by default; without what `remove` predicts.
        """
        points = self.project(position_px, motion_px)
        tilts = self.visible_tilts(points, self.visibility_radius_px)
        if among is not None:
            tilts = tilts[among[tilts]]
        defocus = self.depth_defocus(position_px, tilts)
        data = np.empty((len(tilts), len(self.disc)), np.complex64)
        mask = self.window.mask
        masked = data if mask is None else np.empty_like(data)
        power = np.empty((len(tilts), self.disc.n_shells))
        for start in range(0, len(tilts), self._batch):
            batch = slice(start, start + self._batch)
            spectra = self._spectra(points, tilts[batch], remove=remove)
            power[batch] = self._power(spectra)
            images = self.premultiplied(spectra, self.box_plan.evaluate(defocus[batch], tilts[batch]))
            data[batch] = self.disc.take(rfft2(images))
            if mask is not None:
                images *= mask
                masked[batch] = self.disc.take(rfft2(images))
        ctf2 = self.ctf2(position_px, tilts)
        return ParticleImages(tilts=tilts, data=data, masked=masked, ctf2=ctf2, power=power)

    def ctf2(
        self, position_px: NDArray[np.float64], tilts: NDArray[np.intp], count: int | None = None
    ) -> NDArray[np.float32]:
        """(len(tilts), K) C^2 of a particle at the components of the disc, or the first `count` of them."""
        return self.disc_plan.evaluate(self.depth_defocus(position_px, tilts), tilts, count) ** 2

    def _power(self, spectra: NDArray[np.complex64]) -> NDArray[np.float64]:
        """(n, S) mean |X|^2 in every shell."""
        square = (spectra.real**2 + spectra.imag**2).reshape(len(spectra), -1)
        in_order = square.take(self._power_index, axis=1).astype(np.float64)
        return np.asarray(np.add.reduceat(in_order, self._power_starts, axis=1) / self._power_counts)
