"""Shifts of any size: whole tilt images are predicted from all particles and correlated with what was recorded.

`CC(d) = sum over Fourier pixels of Re[X conj(P) exp(2 pi i k.d)] / sigma^2`, the gain of log-likelihood if the whole
image is shifted by d, P being the sum of all particles, each from a reference without it.  Images are coarsened to the
resolution of the references and padded, so that nothing wraps around; pixels that stand out further than any particle
could (beads) and the rim are faded out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.stats import norm

from tiltwise.exec.threads import ordered_map
from tiltwise.extract.ctf_plan import CtfPlan
from tiltwise.extract.source import ParticleSource
from tiltwise.geometry.projection import depth_offset_px
from tiltwise.io.tilt_images import TiltImages
from tiltwise.kernels.api import Backend
from tiltwise.maps.cross_fit import HALVES
from tiltwise.maps.whitening import slice_matrices
from tiltwise.model import TiltSeries
from tiltwise.motion.series import SeriesData
from tiltwise.motion.verdict import FAMILIES, LEVEL, Verdict
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import fast_length, irfft2, rfft2
from tiltwise.spectral.phases import phase_ramps

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]

FAMILY = FAMILIES[0]
OVERSAMPLING = 1.3
"""Of the coarsened images, over the resolution of the references: parabolas through three points are then enough."""
STANDS_OUT = 2.0
"""Standard deviations of noise by which a maximum exceeds the largest one that noise would give."""
IMPLAUSIBLE = 5.0
"""Standard deviations of noise above the brightest predicted pixel from which a pixel is no particle."""
RIM = 0.25
"""Width of faded edges over the box of a particle."""
MAD = 0.6745
"""Median of |x| over the standard deviation of x, of Gaussian noise."""


@dataclass(frozen=True, slots=True)
class WholeShifts:
    """What whole images say of the shifts of one series, rows as in the series."""

    shift_px: F64
    """(F, 2) unbinned; zero where nothing stands out"""
    found: NDArray[np.bool_]
    """(F,) whether the maximum stands out of noise"""
    verdict: Verdict
    """shifts found with one half set, judged by the prediction of the other"""

    def accepted(self, force: bool) -> WholeShifts:
        """Without shifts if held-out data do not support them."""
        return self if self.verdict.improved or force else replace(self, shift_px=np.zeros_like(self.shift_px))

    def as_array(self) -> F64:
        """(F + 1, 3) for a checkpoint."""
        rows = np.column_stack([self.shift_px, self.found])
        return np.vstack([rows, [self.verdict.gain, self.verdict.limit, self.verdict.blocks]])

    @classmethod
    def from_array(cls, array: F64) -> WholeShifts:
        """Inverse of `as_array`."""
        gain, limit, blocks = array[-1]
        return cls(array[:-1, :2], array[:-1, 2] > 0, Verdict(FAMILY, float(gain), float(limit), int(blocks)))


def shifted(series: TiltSeries, shift_px: F64) -> TiltSeries:
    """A series whose images are shifted by (F, 2) unbinned pixels."""
    projection = series.projection.copy()
    projection[:, :2, 3] += shift_px
    return replace(series, projection=projection)


def search_is_useful(data: list[SeriesData], size_angstrom: float) -> bool:
    """Whether particles lie so far apart that predicted whole images have one clear match.

    By the distances in the projection of the first tilt: in a crowd or a lattice many shifts match nearly as well.
    """
    crowded = total = 0
    for one in data:
        first = int(one.order[0])
        points = one.series.project(one.position_px, first)[:, 0, :2]
        apart = np.linalg.norm(points[:, None] - points, axis=2)
        np.fill_diagonal(apart, np.inf)
        near = apart.min(axis=1, initial=np.inf) * one.series.pixel_size_angstrom < size_angstrom
        crowded, total = crowded + int(near.sum()), total + len(near)
    return 2 * crowded <= total


@dataclass(frozen=True, slots=True)
class Grid:
    """Coarsened and padded tilt images, and the boxes in which particles are predicted."""

    coarse: int
    """unbinned pixels along each side of a pixel"""
    inner: tuple[int, int]
    """(rows, columns) of coarsened images"""
    padded: tuple[int, int]
    box: int
    step: float
    """1/Å per cycle per box"""
    frequency: F64
    """1/Å of the components of a padded image, (rows, columns // 2 + 1)"""

    @classmethod
    def create(cls, image_size: tuple[int, int], pixel_size: float, box_px: float, highest: float) -> Grid:
        """For images (width, height) of `pixel_size` Å, boxes of `box_px` pixels, components to `highest` 1/Å."""
        coarse = max(1, int(0.5 / (OVERSAMPLING * pixel_size * highest)))
        width, height = image_size
        inner = height // coarse, width // coarse
        # shifts of half an image bring in particles that lie half an image outside
        padded = fast_length(2 * inner[0]), fast_length(2 * inner[1])
        box = 2 * int(np.ceil(0.5 * box_px / coarse))
        pixel = coarse * pixel_size
        fy, fx = np.fft.fftfreq(padded[0], pixel), np.fft.rfftfreq(padded[1], pixel)
        return cls(coarse, inner, padded, box, 1.0 / (box * pixel), np.hypot(fy[:, None], fx))

    def coarsened(self, image: F32) -> F32:
        """(rows, columns) of an image, without its mean."""
        rows, columns = (n * self.coarse for n in self.inner)
        part = image[:rows, :columns] - image.mean(dtype=np.float64)
        if self.coarse == 1:
            return np.asarray(part, np.float32)
        spectrum = rfft2(part.astype(np.float32), norm="forward")
        low, high = (self.inner[0] + 1) // 2, self.inner[0] // 2
        kept = np.concatenate([spectrum[:low], spectrum[rows - high :]])[:, : self.inner[1] // 2 + 1]
        return np.asarray(irfft2(kept, self.inner, norm="forward"), np.float32)

    def pad(self, image: F32) -> C64:
        """Transform, not normalised, of an image with zeros around it."""
        whole = np.zeros(self.padded, np.float32)
        whole[: image.shape[0], : image.shape[1]] = image
        return np.asarray(rfft2(whole, norm="backward"))


@dataclass(frozen=True, slots=True)
class ImageSearch:
    """Predicts and correlates the images of one series."""

    source: ParticleSource
    data: SeriesData
    halves: NDArray[np.int64]
    """(P,) of the members"""
    folds: NDArray[np.int64]
    """(P,)"""
    volumes: Mapping[tuple[int, int], C64]
    noise_power: F64
    """(F, S)"""
    backend: Backend
    shell: int
    """last one of the references"""
    grid: Grid

    @classmethod
    def create(
        cls,
        source: ParticleSource,
        data: SeriesData,
        halves: NDArray[np.int64],
        folds: NDArray[np.int64],
        volumes: Mapping[tuple[int, int], C64],
        noise_power: F64,
        backend: Backend,
        shell: int,
        box_px: float,
    ) -> ImageSearch:
        """`box_px` is the unbinned size of the boxes that hold a particle with the fringes of its CTF."""
        series = data.series
        highest = shell / (source.box * source.pixel_size)
        grid = Grid.create(series.image_size, series.pixel_size_angstrom, box_px, highest)
        return cls(source, data, halves, folds, volumes, noise_power, backend, shell, grid)

    def _weight(self, tilt: int) -> F64:
        """1 / sigma^2 of components of the coarsened image as unitary transforms have it; 0 outside the references."""
        place = self.grid.frequency * (self.source.box * self.source.pixel_size)
        sigma2 = np.interp(place, np.arange(self.noise_power.shape[1]), self.noise_power[tilt])
        binning = self.source.pixel_size / self.data.series.pixel_size_angstrom
        kept = (place > 0.5) & (place < self.shell + 0.5)
        return np.where(kept, (self.grid.coarse / binning) ** 2 / sigma2, 0.0)

    def _predicted(self, tilt: int, half: int) -> C64:
        """Transform of the image of all particles of a half set, on the padded grid."""
        grid, series, data = self.grid, self.data.series, self.data
        pixel = series.pixel_size_angstrom
        highest = self.shell / (self.source.box * self.source.pixel_size)
        disc = FourierDisc.create(grid.box, min(grid.box / 2, highest / grid.step + 1.0))
        members = np.flatnonzero(self.halves == half)
        moved = data.position_px[members] + data.motion_px[members, int(data.rank[tilt])]
        points = series.project(moved, tilt)[:, 0, :2]
        depth = depth_offset_px(series.projection[[tilt]], data.position_px[members], series.tomogram_size)[:, 0]
        defocus = series.hand * series.defocus_slope * pixel * depth
        whole = np.zeros(grid.padded, np.float32)
        places = points / grid.coarse
        corners = np.floor(places).astype(np.intp) - grid.box // 2
        size = np.array(grid.inner)[::-1]
        near = ((places > -0.5 * size) & (places < 1.5 * size)).all(axis=1)
        scale = self.source.box / grid.box * (self.source.pixel_size / (grid.coarse * pixel)) ** 2
        groups = self.source.optset.particles.optics_index[data.members[members]]
        for group in np.unique(groups[near]):
            plan = CtfPlan.create(series, self.source.optset.optics[group], *(disc.frequencies * grid.step).T)
            for fold in np.unique(self.folds[members]):
                chosen = np.flatnonzero(near & (groups == group) & (self.folds[members] == fold))
                if not len(chosen):
                    continue
                volume = self.volumes[half, int(fold)]
                matrices = slice_matrices(
                    series,
                    np.array([tilt]),
                    data.rotations[members[chosen]],
                    volume.shape[0] * self.source.pixel_size * grid.step,
                )
                slices = self.backend.project(volume, matrices, disc.frequencies3d(), volume.shape[0] // 2, threads=1)
                slices *= plan.evaluate(defocus[chosen], np.full(len(chosen), tilt)) * np.float32(scale)
                if plan.odd is not None:
                    slices *= plan.odd.conj()
                slices *= phase_ramps(disc.frequencies, (corners - places)[chosen] * (2.0 * np.pi / grid.box))
                for row, model in zip(chosen, slices, strict=True):
                    spectrum = np.zeros((grid.box, grid.box // 2 + 1), np.complex64)
                    spectrum[disc.rows, disc.columns] = model
                    column = spectrum[:, 0]  # its second half is redundant, and not in the disc
                    column[grid.box // 2 + 1 :] = column[1 : grid.box // 2][::-1].conj()
                    rows, columns = (np.arange(corners[row, axis], corners[row, axis] + grid.box) for axis in (1, 0))
                    # the padding at the far end takes what lies before the first row and column
                    whole[np.ix_(rows % grid.padded[0], columns % grid.padded[1])] += irfft2(spectrum, grid.box)
        return np.asarray(rfft2(whole, norm="backward"))

    def _recorded(self, image: F32, weight: F64, predicted: F64) -> C64:
        """Transform of an image of inverted contrast without what cannot be particles, on the padded grid.

        `predicted` is the whitened prediction.
        """
        grid = self.grid
        raw = -grid.coarsened(image)
        rows, columns = raw.shape
        width = max(1.0, RIM * grid.box)
        ramps = [
            np.clip((np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / width, 0.0, 1.0) for n in (rows, columns)
        ]
        rim = np.outer(*(0.5 - 0.5 * np.cos(np.pi * ramp) for ramp in ramps)).astype(np.float32)
        root, kept = np.sqrt(weight), np.ones_like(raw)
        particle = np.abs(predicted) > 0.1 * np.abs(predicted).max(initial=1e-30)
        typical = float(np.sqrt(np.mean(np.square(predicted[particle])))) if particle.any() else 1.0
        for _ in range(2):  # bright pixels spread over the whitened image; once more without them
            faded = kept * rim
            mean = gaussian_filter(raw * kept, grid.box / 2) / np.maximum(gaussian_filter(kept, grid.box / 2), 1e-3)
            clean = (raw - mean) * faded
            white = irfft2(grid.pad(clean) * root, grid.padded, norm="backward")[:rows, :columns]
            sigma = max(float(np.median(np.abs(white[rim > 0.5])) / MAD), 1e-30)
            brightest = np.abs(predicted).max(initial=0.0) * min(1.0, sigma / max(typical, 1e-30))
            strange = np.abs(white) > IMPLAUSIBLE * sigma + 2.0 * brightest
            if not strange.any():
                break
            reach = 2 * max(1, grid.box // 16) + 1
            kept = np.minimum(kept, 1.0 - gaussian_filter(maximum_filter(strange, reach).astype(np.float32), reach / 4))
        return grid.pad(clean)

    def correlations(self, tilt: int, image: F32) -> dict[int, F64]:
        """CC(d) for every half set; (rows, columns) of d in coarsened pixels, d = 0 at index 0."""
        weight = self._weight(tilt)
        models = {half: self._predicted(tilt, half) for half in HALVES}
        both = irfft2((models[1] + models[2]) * np.sqrt(weight), self.grid.padded, norm="backward")
        recorded = self._recorded(image, weight, both)
        return {
            half: np.asarray(irfft2(model.conj() * recorded * weight, self.grid.padded, norm="backward"), np.float64)
            for half, model in models.items()
        }

    def run(self, threads: int) -> WholeShifts:
        """Shifts of all tilts."""
        images = TiltImages(self.data.series)

        def of(tilt: int) -> tuple[F64, bool, float, float]:
            tables = self.correlations(tilt, images.image(tilt))
            peak = self.peak(tables[1] + tables[2])
            gain = variance = 0.0
            for half in HALVES:
                own = self.peak(tables[half])
                if own is not None:
                    other = tables[3 - half]
                    place = np.rint(own / self.grid.coarse).astype(int)
                    gain += float(other[place[1], place[0]] - other[0, 0])
                    variance += 2.0 * self.noise(other) ** 2
            return np.zeros(2) if peak is None else peak, peak is not None, gain, variance

        columns = list(zip(*ordered_map(of, range(self.data.series.n_tilts), threads), strict=True))
        gain, sigma = sum(columns[2]), float(np.sqrt(sum(columns[3])))
        limit = gain - float(norm.ppf(1.0 - LEVEL)) * sigma if sigma > 0 else -np.inf
        found = np.array(columns[1])
        return WholeShifts(np.array(columns[0]), found, Verdict(FAMILY, gain, limit, int(found.sum())))

    def _looked_at(self, table: F64) -> NDArray[np.bool_]:
        """Shifts of up to half an image."""
        parts = [
            np.abs(np.fft.fftfreq(n, 1.0 / n)) <= m // 2 for n, m in zip(table.shape, self.grid.inner, strict=True)
        ]
        return np.logical_and.outer(*parts)

    def noise(self, table: F64) -> float:
        """Standard deviation of correlations without a match."""
        values = table[self._looked_at(table)]
        return float(np.median(np.abs(values - np.median(values))) / MAD)

    def peak(self, table: F64) -> F64 | None:
        """(2,) x and y of the best shift in unbinned pixels; None if it does not stand out of noise."""
        allowed = self._looked_at(table)
        best = np.unravel_index(int(np.argmax(np.where(allowed, table, -np.inf))), table.shape)
        sigma = self.noise(table)
        least = (np.sqrt(2.0 * np.log(max(allowed.sum(), 2))) + STANDS_OUT) * sigma
        if not table[best] > least:
            return None
        shift = np.zeros(2)
        for axis in (0, 1):
            around = [
                tuple((i + step * (a == axis)) % table.shape[a] for a, i in enumerate(best)) for step in (-1, 0, 1)
            ]
            low, here, high = (table[place] for place in around)
            curve = low - 2.0 * here + high
            index = int(best[axis])
            whole = index - table.shape[axis] if 2 * index > table.shape[axis] else index
            shift[1 - axis] = whole + (0.5 * (low - high) / curve if curve < 0 else 0.0)
        return shift * self.grid.coarse
