"""Gain of log-likelihood of a reference over nothing, for some particles of some series read in one way.

For images X, predictions P and noise power s^2, with one amplitude `a` per shell that is fitted to all images,

    gain = sum over the half plane of (2 a Re[X conj P] - a^2 |P|^2) / s^2   (nats)

Every particle may lie a little off its stated position: it is looked for within `reach` where all its tilts together
correlate best.  That favours no reading: all are given the same freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.check.convention.readings import Reading
from tiltwise.extract.ctf_plan import CtfPlan
from tiltwise.geometry.projection import depth_offset_px, is_visible
from tiltwise.io.tilt_images import TiltImages
from tiltwise.kernels.api import Backend
from tiltwise.maps.volumes import reference_volume
from tiltwise.model import OpticsGroup, TiltSeries
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import irfft2, rfft2
from tiltwise.spectral.masks import distances, soft_edge
from tiltwise.spectral.phases import phase_ramps

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]

PADDING = 2
EDGE_PX = 4.0
_NOISE_BOXES = 5
"""Boxes along each side of an image from which its noise power is measured."""
_STEPS = 2
"""Newton steps from the best point of the search to the peak."""
_BAND = 0.85
"""Highest frequency over Nyquist: tables are interpolated between their points."""


def binned(images: F32, factor: int) -> F32:
    """Images (F, H, W) cropped in Fourier space by a whole factor; pixel i stays at i / factor."""
    if factor == 1:
        return images
    height, width = (n // (2 * factor) * 2 for n in images.shape[1:])
    images = images[:, : height * factor, : width * factor]
    spectra = rfft2(images)
    half = height // 2
    kept = np.concatenate([spectra[:, :half], spectra[:, -half:]], axis=1)[:, :, : width // 2 + 1]
    return np.asarray(irfft2(kept, (height, width)) / factor, dtype=np.float32)


def read_binned(series: TiltSeries, factor: int) -> F32:
    """(F, H, W) all images of a series, their means removed."""
    images = TiltImages(series)
    stack = []
    for tilt in range(series.n_tilts):
        image = images.image(tilt)
        image = image - image[np.isfinite(image)].mean()
        stack.append(binned(np.nan_to_num(image)[None], factor)[0])
    return np.stack(stack)


@dataclass(frozen=True, slots=True)
class Scores:
    """What one reading of all series gives."""

    gain: F64
    """(P,) nats of every particle, that of the fitted amplitudes"""
    amplitude: F64
    """(S,) of every shell"""
    shift_angstrom: F64
    """(P, 3) where each particle was found, from its stated position"""

    @property
    def total(self) -> float:
        """Nats of all particles."""
        return float(self.gain.sum())


class Level:
    """Images and reference at one pixel size.

    Parameters
    ----------
    stacks
        (F, H, W) images of every series, binned by `factor`.
    density
        (N, N, N) reference on the pixels of the binned images.
    """

    def __init__(
        self,
        stacks: Sequence[F32],
        factor: int,
        density: F32,
        pixel_size: float,
        diameter_angstrom: float,
        reach_angstrom: float,
        optics: Sequence[OpticsGroup],
        backend: Backend,
    ) -> None:
        self.stacks, self.factor, self.pixel_size, self.optics = stacks, factor, pixel_size, optics
        self.backend = backend
        self.box = density.shape[0]
        self.radius_px = diameter_angstrom / 2 / pixel_size * factor
        self.disc = FourierDisc.create(self.box, _BAND * self.box / 2)
        self.volumes = [reference_volume(one, PADDING) for one in (density, _mirror(density))]
        step = 1.0 / (self.box * pixel_size)
        self.kx, self.ky = (self.disc.frequencies * step).T
        self.circle = soft_edge(distances(self.box, 2), self.box / 2, EDGE_PX).astype(np.float32)
        self.area = float(np.mean(self.circle**2))
        self.n_shells = int(self.disc.shells.max()) + 1
        self.weights = [self._weights(stack) for stack in stacks]
        self.grid = _sphere(reach_angstrom / pixel_size)
        self.margin = int(np.ceil(reach_angstrom / pixel_size)) + 2
        shifts = np.arange(-self.margin, self.margin + 1)
        limit = int(np.abs(self.disc.frequencies).max())
        phase = 2j * np.pi / self.box
        self._rows = np.exp(phase * np.outer(shifts, np.arange(-limit, limit + 1))).astype(np.complex64)
        self._columns = np.exp(phase * np.outer(np.arange(limit + 1), shifts)).astype(np.complex64)
        self._images: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._predictions: dict[int, tuple[Reading, C64]] = {}
        self._plans: dict[int, tuple[Any, CtfPlan]] = {}

    # ---- images ---------------------------------------------------------------------------------------

    def _cut(self, stack: F32, tilts: NDArray[np.intp], corners: NDArray[np.intp]) -> C64:
        """(m, K) transforms of boxes with their lowest pixels at `corners` (m, 2), inside a soft circle."""
        around = np.arange(self.box)
        columns = np.clip(corners[:, 0, None] + around, 0, stack.shape[2] - 1)
        rows = np.clip(corners[:, 1, None] + around, 0, stack.shape[1] - 1)
        boxes = stack[tilts[:, None, None], rows[:, :, None], columns[:, None, :]]
        boxes -= np.einsum("mij,ij->m", boxes, self.circle / self.circle.sum())[:, None, None]
        boxes *= self.circle
        return self.disc.take(rfft2(boxes))

    def _weights(self, stack: F32) -> F32:
        """(F, K) one over the noise power of every component; the whole image is taken for noise."""
        n, height, width = stack.shape
        places = np.stack(
            np.meshgrid(
                *(np.linspace(0, max(side - self.box, 0), _NOISE_BOXES).astype(np.intp) for side in (width, height))
            ),
            axis=-1,
        ).reshape(-1, 2)
        power = np.zeros((n, self.n_shells))
        shells = self.disc.shells
        counts = np.bincount(shells, minlength=self.n_shells)
        for tilt in range(n):
            spectra = self._cut(stack, np.full(len(places), tilt), places)
            square = (spectra.real**2 + spectra.imag**2).mean(axis=0)
            power[tilt] = np.bincount(shells, square, self.n_shells) / counts
        # Components of masked images are correlated: the circle holds `area` as many independent ones as the box.
        weight = self.area / np.maximum(power, 1e-12 * power.max())[:, shells]
        weight[:, shells == 0] = 0.0
        return np.asarray(weight, dtype=np.float32)

    def _observed(self, number: int, reading: Reading) -> tuple[Any, ...]:
        """Visible images: particle and tilt (m,) of each, transforms (m, K) centred on the stated positions."""
        series = reading.series
        key = (id(series.projection), id(reading.position_px))
        known = self._images.get(key)
        if known is None:
            points = series.project(reading.position_px)[..., :2]
            visible = is_visible(points, series.image_size, self.radius_px)
            particle, tilt = np.nonzero(visible)
            place = points[particle, tilt] / self.factor
            corners = np.rint(place).astype(np.intp) - self.box // 2
            spectra = self._cut(self.stacks[number], tilt, corners)
            ramps = phase_ramps(self.disc.frequencies, (place - corners) * (2 * np.pi / self.box))
            spectra *= -ramps  # particles are dark in the images
            if len(self._images) >= 2 * len(self.stacks):
                self._images.pop(next(iter(self._images)))
            known = self._images[key] = (particle, tilt, spectra, series.projection, reading.position_px)
        return known[:3]

    # ---- predictions ----------------------------------------------------------------------------------

    def _predicted(self, number: int, reading: Reading, particle: NDArray[np.intp], tilt: NDArray[np.intp]) -> C64:
        """(m, K) of unit amplitude."""
        known = self._predictions.get(id(reading))
        if known is not None:
            return known[1]
        series = reading.series
        turned = np.einsum("mij,mjk->mik", series.projection[tilt, :3, :3], reading.rotation[particle])
        matrices = np.ascontiguousarray(PADDING * np.swapaxes(turned, 1, 2), dtype=np.float32)
        volume = self.volumes[int(reading.mirrored)]
        slices = self.backend.project(
            volume, matrices, self.disc.frequencies3d(), self.box * PADDING // 2, threads=1
        ).astype(np.complex64)
        depth = depth_offset_px(series.projection, reading.position_px, series.tomogram_size)[particle, tilt]
        defocus = series.hand * series.defocus_slope * series.pixel_size_angstrom * depth
        slices *= self._plan(number, series).evaluate(defocus, tilt)
        if len(self._predictions) >= 2 * len(self.stacks):
            self._predictions.pop(next(iter(self._predictions)))
        self._predictions[id(reading)] = reading, slices
        return slices

    def _plan(self, number: int, series: TiltSeries) -> CtfPlan:
        key = id(series.pre_exposure)
        known = self._plans.get(key)
        if known is None:
            plan = CtfPlan.create(series, self.optics[number], self.kx, self.ky)
            if len(self._plans) >= 2 * len(self.stacks):
                self._plans.pop(next(iter(self._plans)))
            known = self._plans[key] = (series.pre_exposure, plan)
        return known[1]

    # ---- scores ---------------------------------------------------------------------------------------

    def score(self, readings: Sequence[Reading], shift_angstrom: F64 | None = None) -> Scores:
        """Gains of all particles, one reading for every series, in their order.

        Particles are looked for, or lie `shift_angstrom` (P, 3) off their stated positions.
        """
        shape = self.n_shells
        linear, quadratic, shifts = [], [], []
        for number, reading in enumerate(readings):
            n = len(reading.position_px)
            particle, tilt, observed = self._observed(number, reading)
            if not len(particle):
                linear.append(np.zeros((n, shape)))
                quadratic.append(np.zeros((n, shape)))
                shifts.append(np.zeros((n, 3)))
                continue
            predicted = self._predicted(number, reading, particle, tilt)
            weight = self.weights[number][tilt]
            product = observed * predicted.conj()
            product *= weight * np.float32(reading.contrast)
            if shift_angstrom is None:
                shift = self._find(reading, particle, tilt, product)
            else:
                shift = shift_angstrom[sum(map(len, linear)) :][:n] / self.pixel_size
            moved = np.einsum("mij,mj->mi", reading.series.projection[tilt, :2, :3], shift[particle])
            product *= phase_ramps(self.disc.frequencies, moved * (2 * np.pi / self.box))
            power = weight * (predicted.real**2 + predicted.imag**2)
            linear.append(self._shell_sums(particle, product.real, n))
            quadratic.append(self._shell_sums(particle, power, n))
            shifts.append(shift * self.pixel_size)
        n_all = np.concatenate(linear), np.concatenate(quadratic)
        total = n_all[1].sum(axis=0)
        amplitude = np.divide(n_all[0].sum(axis=0), total, out=np.zeros(shape), where=total > 1e-9 * total.max())
        amplitude = np.maximum(amplitude, 0.0)
        gain = n_all[0] @ (2 * amplitude) - n_all[1] @ amplitude**2
        return Scores(gain, amplitude, np.concatenate(shifts))

    def _shell_sums(self, particle: NDArray[np.intp], values: F32, n: int) -> F64:
        index = particle[:, None] * self.n_shells + self.disc.shells
        length = n * self.n_shells
        return np.asarray(np.bincount(index.ravel(), values.ravel(), length).reshape(n, self.n_shells))

    def _find(self, reading: Reading, particle: NDArray[np.intp], tilt: NDArray[np.intp], product: C64) -> F64:
        """(P, 3) displacement in pixels of this level where all tilts of a particle correlate best."""
        frequencies, limit = self.disc.frequencies, len(self._columns) - 1
        dense = np.zeros((len(product), 2 * limit + 1, limit + 1), np.complex64)
        dense[:, frequencies[:, 1] + limit, frequencies[:, 0]] = product
        tables = np.matmul(self._rows, np.matmul(dense, self._columns)).real
        place = np.einsum("mij,gj->mgi", reading.series.projection[tilt, :2, :3], self.grid) + self.margin
        low = np.floor(place).astype(np.intp)
        x, y = np.moveaxis(place - low, -1, 0)
        column, row = np.moveaxis(low, -1, 0)
        image = np.arange(len(product))[:, None]
        value = (1 - y) * ((1 - x) * tables[image, row, column] + x * tables[image, row, column + 1])
        value += y * ((1 - x) * tables[image, row + 1, column] + x * tables[image, row + 1, column + 1])
        # Images are in the order of their particles; those that no tilt shows stay where they are.
        seen, first = np.unique(particle, return_index=True)
        shift = np.zeros((len(reading.position_px), 3))
        shift[seen] = self.grid[np.add.reduceat(value, first, axis=0).argmax(axis=1)]
        return shift

    def settled(self, readings: Sequence[Reading]) -> Scores:
        """Gains where particles are found, moved from the points of the search to the peaks beside them."""
        scores = self.score(readings)
        for _ in range(_STEPS):
            gradient, information = self.pulls(readings, scores, scores.shift_angstrom)
            ridge = np.maximum(np.trace(information, axis1=1, axis2=2), 1e-9)[:, None, None] * 1e-3 * np.eye(3)
            step = np.linalg.solve(information + ridge, gradient[..., None])[..., 0]
            longest = np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12)
            step *= np.minimum(1.0, 0.5 * self.pixel_size / longest)
            scores = self.score(readings, scores.shift_angstrom + step)
        return scores

    # ---- where particles are --------------------------------------------------------------------------

    def pulls(self, readings: Sequence[Reading], scores: Scores, shift_angstrom: F64) -> tuple[F64, F64]:
        """Gradient (P, 3) and Fisher information (P, 3, 3) of the log-likelihood in displacements, per Å and Å².

        At particles displaced by `shift_angstrom` (P, 3) along tomogram axes, with the amplitudes of `scores`.
        """
        gradients, information = [], []
        start = 0
        wave = (2 * np.pi / (self.box * self.pixel_size) * self.disc.frequencies).astype(np.float32)
        squares = np.stack([wave[:, 0] ** 2, wave[:, 0] * wave[:, 1], wave[:, 1] ** 2], axis=1)
        amplitude = scores.amplitude[self.disc.shells].astype(np.float32)
        for number, reading in enumerate(readings):
            n = len(reading.position_px)
            particle, tilt, observed = self._observed(number, reading)
            predicted = self._predicted(number, reading, particle, tilt) * amplitude
            weight = self.weights[number][tilt]
            axes = reading.series.projection[tilt, :2, :3]
            moved = np.einsum("mij,mj->mi", axes, shift_angstrom[start : start + n][particle]) / self.pixel_size
            product = observed * predicted.conj() * (weight * np.float32(reading.contrast))
            product *= phase_ramps(self.disc.frequencies, moved * (2 * np.pi / self.box))
            slope = -2.0 * (product.imag @ wave).astype(np.float64)  # (m, 2)
            xx, xy, yy = 2.0 * (weight * (predicted.real**2 + predicted.imag**2) @ squares).T.astype(np.float64)
            curve = np.stack([np.stack([xx, xy], axis=-1), np.stack([xy, yy], axis=-1)], axis=-2)
            g, h = np.zeros((n, 3)), np.zeros((n, 3, 3))
            np.add.at(g, particle, np.einsum("mi,mij->mj", slope, axes))
            np.add.at(h, particle, np.einsum("mij,mia,mjb->mab", curve, axes, axes, optimize=True))
            gradients.append(g)
            information.append(h)
            start += n
        return np.concatenate(gradients), np.concatenate(information)


def _mirror(density: F32) -> F32:
    """Mirror image along x, the origin kept at N // 2."""
    flipped = density[:, :, ::-1]
    return np.ascontiguousarray(np.roll(flipped, 1, axis=2) if density.shape[2] % 2 == 0 else flipped)


def _sphere(reach_px: float) -> F64:
    """(G, 3) displacements within a sphere, steps of half a pixel at least and five along each axis at most."""
    if reach_px <= 0:
        return np.zeros((1, 3))
    step = max(0.5, reach_px / 3)
    n = int(np.floor(reach_px / step + 1e-9))
    axis = step * np.arange(-n, n + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    square = (grid**2).sum(axis=1)
    grid = grid[square <= reach_px**2 + 1e-9]
    return np.asarray(grid[np.argsort((grid**2).sum(axis=1), kind="stable")])
