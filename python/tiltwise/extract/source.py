"""Where particle images come from: tilt series (default) or stacks that are already extracted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.extract.images import (
    ImageExtractor,
    ParticleImages,
    Prediction,
    outside_every_tilt,
    refuse_unless_visible,
)
from tiltwise.extract.stacks import StackLoader
from tiltwise.io.stacks import read_stack
from tiltwise.io.tilt_images import TiltImages
from tiltwise.model import OptimisationSet, TiltSeries, Views
from tiltwise.model.poses import pixel_sizes, poses_of, series_index
from tiltwise.spectral.components import FourierComponents
from tiltwise.spectral.disc import FourierDisc

MOST_LOST = 0.1
"""Share of the particles that may lie outside all images: a box reaches over the edge there.  More is a mistake."""


@dataclass(slots=True)
class Poses:
    """Where particles are and how they are oriented, in the tomogram frame."""

    stored_px: NDArray[np.float64]
    """(P, 3) coordinates as stored, unbinned pixels"""
    displacement_angstrom: NDArray[np.float64]
    """(P, 3) present position minus stored coordinate along tomogram axes"""
    rotation: NDArray[np.float64]
    """(P, 3, 3) A_sub A_part: reference to tomogram"""

    @classmethod
    def of(cls, optset: OptimisationSet) -> Poses:
        """Poses as the particle file gives them."""
        rotation, position = poses_of(optset)
        stored = optset.particles.coordinate_px
        return cls(stored.copy(), position - stored * pixel_sizes(optset)[:, None], rotation)


class Rest(Protocol):
    """What else tilt images show of and beside the particles: it is subtracted wherever images are loaded."""

    def of(self, particle: int) -> Prediction:
        """What to subtract from the images of one particle."""
        ...


class ImageSource(Protocol):
    """Images of all particles of a set, tilt images or pseudo-subtomograms: what they are like."""

    series_of: NDArray[np.intp]
    """(P,) number of the tilt series"""
    views: Sequence[Views]
    """of every tilt series"""
    box: int
    pixel_size: float
    area_ratio: float
    """size of the box over that of the region in which the power of images is measured"""
    pooled: bool
    """whether noise power is the same in all views of a series"""

    @property
    def disc(self) -> FourierComponents:
        """Fourier components of the images."""
        ...


class ParticleSource:
    """Loads the images of any particle at any position; knows box, pixel size and Fourier pixels.

    Images are cut from the tilt series; where the tilt images are not at hand and 2D stacks are, the
    stacks are used instead.

    Parameters
    ----------
    box_px, crop_px, binning
        RELION's --b, --crop and --bin; ignored for stacks, which have their own.
    diameter_angstrom
        particle diameter for the masked copy used in scores; None does not mask.
    max_dose
        tilts with a larger pre-exposure (e/Å^2) are left out; of no effect on stacks.

    The attribute `rest`, None at first, names what is subtracted from images that are cut from tilt series.

    Raises
    ------
    ConfigError
        if box, crop and binning do not fit together or to the images, or series differ in pixel size.
    DataError
        if there is nothing to load from.
    """

    def __init__(
        self,
        optset: OptimisationSet,
        *,
        box_px: int,
        crop_px: int,
        binning: float,
        diameter_angstrom: float | None,
        max_dose: float | None = None,
    ) -> None:
        self.optset, self.masks = optset, diameter_angstrom is not None
        self.rest: Rest | None = None
        self.series_of = series_index(optset)
        pixel = {round(series.pixel_size_angstrom, 4) for series in optset.series}
        if len(pixel) > 1:
            raise ConfigError(
                "tilt series differ in pixel size",
                where="--t",
                expected="one pixel size",
                found=", ".join(f"{p:g}" for p in sorted(pixel)) + " Å",
                fix="work on the series of one pixel size at a time: --t with those, --p with their particles",
            )
        self.from_stacks = not all(series.image_files for series in optset.series)
        if self.from_stacks and not (optset.stacks_are_2d and optset.particles.image_files):
            missing = [series.name for series in optset.series if not series.image_files]
            raise DataError(
                "there are no images: neither tilt series nor 2D stacks can be read",
                where=", ".join(missing[:5]),
                fix="give tilt series whose images exist, or particles with rlnImageName of 2D stacks; "
                "pseudo-subtomograms are for refine and classify with --data-model pseudo3d",
            )
        unbinned = optset.series[0].pixel_size_angstrom
        if self.from_stacks:
            self._stack_geometry()
        else:
            self._check_box(box_px, binning)
            self.box, self.pixel_size, self.area_ratio = crop_px, unbinned * binning, (crop_px / box_px) ** 2
        self.pooled = False
        self.views: Sequence[Views] = optset.series
        self.disc: FourierDisc = FourierDisc.create(self.box)
        self._loaders: dict[tuple[int, int], ImageExtractor | StackLoader] = {}
        for number, group in dict.fromkeys(zip(self.series_of, optset.particles.optics_index, strict=True)):
            series, optics = optset.series[number], optset.optics[group]
            loader: ImageExtractor | StackLoader
            if self.from_stacks:
                loader = StackLoader(
                    series,
                    optics,
                    lambda i: read_stack(optset, i),
                    disc=self.disc,
                    pixel_size=self.pixel_size,
                    premultiplied=bool(optics.ctf_premultiplied),
                    diameter_angstrom=diameter_angstrom,
                )
                self.area_ratio = 1.0 / loader.power_area
            else:
                loader = ImageExtractor(
                    series,
                    optics,
                    TiltImages(series),
                    box_px=box_px,
                    crop_px=crop_px,
                    binning=binning,
                    disc=self.disc,
                    diameter_angstrom=diameter_angstrom,
                    max_dose=max_dose,
                )
            self._loaders[int(number), int(group)] = loader

    def _check_box(self, box_px: int, binning: float) -> None:
        """Raises ConfigError for boxes larger than the tilt images: before memory for them is asked for."""
        series = min(self.optset.series, key=lambda series: min(series.image_size))
        width, height = series.image_size
        if box_px * binning > min(width, height):
            raise ConfigError(
                "the box is larger than the tilt images",
                where="--b, --bin",
                expected=f"--b x --bin of at most {min(width, height)} px ({series.name}: {width} x {height} px)",
                found=f"--b {box_px} x --bin {binning:g} = {box_px * binning:g} px",
                fix="use a smaller --b",
            )

    def _positions_px(self, displacement_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
        stored = self.optset.particles.coordinate_px
        return np.asarray(stored + displacement_angstrom / pixel_sizes(self.optset)[:, None])

    def visible(self, displacement_angstrom: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(P,) particles, displaced (P, 3) from their stored coordinates, that at least one tilt shows."""
        particles, positions = self.optset.particles, self._positions_px(displacement_angstrom)
        seen = np.ones(len(particles), bool)
        for (number, group), loader in self._loaders.items():
            series = self.optset.series[number]
            members = np.flatnonzero((self.series_of == number) & (particles.optics_index == group))
            if isinstance(loader, StackLoader):
                if particles.visible:
                    seen[members] = [particles.visible[m].any() for m in members]
                continue
            points = series.project(positions[members])
            for row, member in enumerate(members):
                motion = self.optset.trajectories.get(particles.name[member])
                if motion is not None:
                    points[row] = loader.project(positions[member], motion / series.pixel_size_angstrom)
            seen[members] = loader.visible(points, loader.visibility_radius_px).any(axis=-1)
        return seen

    def check_visibility(self, displacement_angstrom: NDArray[np.float64]) -> None:
        """Refuses particles, displaced (P, 3) from their stored coordinates, that no tilt shows.

        Raises
        ------
        DataError
            that tells how many there are and names the first.
        """
        particles, positions = self.optset.particles, self._positions_px(displacement_angstrom)
        lost = np.flatnonzero(~self.visible(displacement_angstrom))
        if len(lost):
            where = [f"{particles.name[i]} of {particles.tomogram[i]}" for i in lost]
            raise outside_every_tilt(where, positions[lost], self.box * self.pixel_size)

    def leave_out_unseen(self, displacement_angstrom: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str | None]:
        """Which particles (P,) any tilt shows, and a sentence about the others if there are some.

        Raises
        ------
        DataError
            if so many are lost that their coordinates must be wrong.
        """
        seen = self.visible(displacement_angstrom)
        lost = np.flatnonzero(~seen)
        if not len(lost):
            return seen, None
        if len(lost) > MOST_LOST * len(seen):
            self.check_visibility(displacement_angstrom)
        names = ", ".join(self.optset.particles.name[i] for i in lost[:5])
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        return seen, f"{len(lost)} particles lie outside every tilt image and are left out: {names}{more}"

    def _stack_geometry(self) -> None:
        """Box and pixel size of the stacks, which must be those of all optics groups in use."""
        used = [self.optset.optics[i] for i in np.unique(self.optset.particles.optics_index)]
        sizes = {(group.image_size, group.image_pixel_size_angstrom): group.name for group in used}
        if None in {value for size in sizes for value in size}:
            raise DataError(
                "the size of the extracted images is unknown",
                where="data_optics",
                expected="rlnImageSize, rlnImagePixelSize",
                fix="take the particles.star that was written with the stacks",
            )
        if len(sizes) > 1:
            raise DataError(
                "extracted images of optics groups differ in size",
                where="data_optics",
                expected="one rlnImageSize and one rlnImagePixelSize",
                found="; ".join(f"{name}: {box} px of {pixel:g} Å" for (box, pixel), name in sizes.items()),
                fix="extract all particles with the same box, crop and binning, or work on the optics groups one by "
                "one (relion_star_handler --select rlnOpticsGroup)",
            )
        box, pixel_size = next(iter(sizes))
        assert box is not None
        assert pixel_size is not None
        self.box, self.pixel_size = box, pixel_size

    def loader(self, particle: int) -> ImageExtractor | StackLoader:
        """What loads the images of a particle."""
        return self._loaders[int(self.series_of[particle]), int(self.optset.particles.optics_index[particle])]

    def load(self, particle: int, displacement_angstrom: NDArray[np.float64]) -> ParticleImages:
        """Images of a particle that is displaced from its stored coordinate, centred on its position.

        Raises
        ------
        DataError
            if no tilt shows the particle, or a pixel is NaN or infinite.
        """
        images = self.cut(particle, displacement_angstrom)
        if self.from_stacks:
            return images
        where = f"{self.optset.particles.name[particle]} of {self._series(particle).name}"
        position = self._position_px(particle, displacement_angstrom)
        refuse_unless_visible(images.tilts, position, self.box * self.pixel_size, where)
        return images

    def cut(
        self,
        particle: int,
        displacement_angstrom: NDArray[np.float64],
        among: NDArray[np.bool_] | None = None,
    ) -> ParticleImages:
        """The same, with no images where no tilt shows the particle; of the tilts `among` (F,) alone."""
        series, loader = self._series(particle), self.loader(particle)
        position = self._position_px(particle, displacement_angstrom)
        if isinstance(loader, StackLoader):
            images = loader.load(particle, self.optset.particles.coordinate_px[particle], position)
            return images if among is None else images.of_tilts(among[images.tilts])
        motion = self.optset.trajectories.get(self.optset.particles.name[particle])
        remove = None if self.rest is None else self.rest.of(particle)
        return loader.load(position, None if motion is None else motion / series.pixel_size_angstrom, among, remove)

    def ctf2(
        self, particle: int, displacement_angstrom: NDArray[np.float64], tilts: NDArray[np.intp], count: int
    ) -> NDArray[np.float32]:
        """(len(tilts), count) C^2 that `load` gives, at the first components of the disc."""
        loader = self.loader(particle)
        if isinstance(loader, StackLoader):
            return loader.ctf2(self.optset.particles.coordinate_px[particle], tilts, count)
        return loader.ctf2(self._position_px(particle, displacement_angstrom), tilts, count)

    def _series(self, particle: int) -> TiltSeries:
        return self.optset.series[int(self.series_of[particle])]

    def _position_px(self, particle: int, displacement_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
        stored = self.optset.particles.coordinate_px[particle]
        return np.asarray(stored + displacement_angstrom / self._series(particle).pixel_size_angstrom)
