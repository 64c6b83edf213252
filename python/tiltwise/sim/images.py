"""Tilt images: every particle with the CTF and damage of its tilt and depth, added where it projects to, and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.projection import depth_offset_px
from tiltwise.model import TiltSeries
from tiltwise.optics.ctf import ctf, electron_wavelength_angstrom
from tiltwise.optics.dose import dose_weight
from tiltwise.sim.models import Model
from tiltwise.sim.projector import Projector
from tiltwise.spectral.fft import irfft2, rfft2
from tiltwise.spectral.shells import half_weights, radii

F64 = NDArray[np.float64]

_BATCH = 4
"""Particles projected at once: their exponentials stay in the cache."""


@dataclass(frozen=True, slots=True)
class SeriesImager:
    """Noise-free images of one tilt series and its particles."""

    projector: Projector
    series: TiltSeries
    box: int
    """pixels along each side of the box that holds one particle's image, fringes included"""
    point_px: F64
    """(F, P, 2) where the particles appear, motion and deformation included"""
    depth_px: F64
    """(P, F) depth of the resting particles, for the defocus (the CTF does not follow the motion)"""
    rotation: F64
    """(P, 3, 3) reference to tomogram"""

    @classmethod
    def create(
        cls, model: Model, series: TiltSeries, position_px: F64, displacement_px: F64, rotation: F64
    ) -> SeriesImager:
        """Imager of particles at `position_px` (P, 3), displaced by `displacement_px` (F, P, 3)."""
        moved = (position_px + displacement_px).transpose(1, 0, 2)
        point = series.project(moved)[..., :2].transpose(1, 0, 2)
        depth = depth_offset_px(series.projection, position_px, series.tomogram_size)
        box = imaging_box(series, model.density.radius_angstrom, depth)
        return cls(model.projector, series, box, point, depth, rotation)

    def particle_images(self, tilt: int, particles: slice) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Images `(n, box, box)` of some particles in one tilt, dark on 0, and the corners (x, y) where they belong."""
        point = self.point_px[tilt, particles]
        corner = np.floor(point).astype(np.int64) - self.box // 2
        rotation = self.series.projection[tilt, :3, :3] @ self.rotation[particles]
        pixel = self.series.pixel_size_angstrom
        spectra = self.projector.images(rotation, point - corner, self.box, pixel)
        spectra *= self._transfer(tilt, self.depth_px[particles, tilt])
        return np.asarray(irfft2(spectra, self.box), dtype=np.float32), corner

    def _transfer(self, tilt: int, depth_px: F64) -> NDArray[np.float32]:
        """-CTF x damage `(n, box, box // 2 + 1)`, divided by the box: projectors do not normalise transforms."""
        one, box = self.series, self.box
        step = 1.0 / (box * one.pixel_size_angstrom)
        kx = np.arange(box // 2 + 1, dtype=np.float64) * step
        ky = np.asarray(np.fft.fftfreq(box, one.pixel_size_angstrom), dtype=np.float64)[:, None]
        defocus = one.hand * one.defocus_slope * one.pixel_size_angstrom * depth_px[:, None, None]
        values = ctf(
            kx,
            ky,
            one.defocus_u_angstrom[tilt] + defocus,
            one.defocus_v_angstrom[tilt] + defocus,
            one.defocus_angle_deg[tilt],
            voltage_kv=one.voltage_kv,
            spherical_aberration_mm=one.spherical_aberration_mm,
            amplitude_contrast=one.amplitude_contrast,
            scale=one.ctf_scale[tilt],
        )
        damage = dose_weight(np.hypot(kx, ky), one.pre_exposure[tilt], one.bfactor_per_dose)
        return np.asarray(values * (damage / -box), dtype=np.float32)

    def image(self, tilt: int) -> NDArray[np.float32]:
        """Tilt image `(height, width)` of all particles; boxes that leave it are cut."""
        width, height = self.series.image_size
        image = np.zeros((height, width), np.float32)
        for first in range(0, len(self.rotation), _BATCH):
            boxes, corners = self.particle_images(tilt, slice(first, first + _BATCH))
            for box, (x, y) in zip(boxes, corners, strict=True):
                x0, x1, y0, y1 = max(x, 0), min(x + self.box, width), max(y, 0), min(y + self.box, height)
                if x0 < x1 and y0 < y1:
                    image[y0:y1, x0:x1] += box[y0 - y : y1 - y, x0 - x : x1 - x]
        return image

    def mean_energy(self, particles: slice) -> float:
        """Sum of squares of a particle's image, averaged over particles and tilts."""
        energies = [
            np.square(self.particle_images(tilt, particles)[0], dtype=np.float64).sum(axis=(1, 2)).mean()
            for tilt in range(self.series.n_tilts)
        ]
        return float(np.mean(energies))


def imaging_box(series: TiltSeries, radius_angstrom: float, depth_px: F64) -> int:
    """Even box that holds a particle and the fringes of its CTF up to Nyquist in every tilt.

    A frequency k is displaced by the gradient of the phase, `|lambda defocus k - Cs lambda^3 k^3|`.
    """
    wavelength = electron_wavelength_angstrom(series.voltage_kv)
    k = np.linspace(0, 0.5 / series.pixel_size_angstrom, 33)
    depth = float(np.abs(depth_px).max()) * series.pixel_size_angstrom if depth_px.size else 0.0
    both = np.stack([series.defocus_u_angstrom, series.defocus_v_angstrom])
    spherical = series.spherical_aberration_mm * 1e7 * wavelength**3 * k**3
    reach = max(np.abs(wavelength * d * k - spherical).max() for d in (both.min() - depth, both.max() + depth))
    # Four pixels for the ringing of the sharp limit at Nyquist.
    half = int(np.ceil((radius_angstrom + reach) / series.pixel_size_angstrom)) + 4
    return 2 * _without_large_factors(half)


def _without_large_factors(n: int) -> int:
    """Smallest whole number from n on with no prime factor above 5: FFTs of it are fast."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def noise_image(size: tuple[int, int], sigma: float, exponent: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian noise `(height, width)` of standard deviation `sigma`, its power falling as |k|^-exponent.

    Coloured noise has no mean; its spectrum levels off below the lowest frequency of the shorter side.
    """
    width, height = size
    if exponent == 0:
        return np.float32(sigma) * rng.standard_normal((height, width), dtype=np.float32)
    # Filtered on a square that holds the image, so that one pair of transforms serves every shape.
    side = max(width, height)
    gain = np.maximum(radii(side, 2), side / min(width, height)) ** (-exponent / 2)
    gain[0, 0] = 0.0
    gain *= sigma / np.sqrt((gain**2 * half_weights(side)).sum() / side**2)
    white = rng.standard_normal((side, side), dtype=np.float32)
    return np.asarray(irfft2(rfft2(white) * gain.astype(np.float32), side)[:height, :width], dtype=np.float32)
