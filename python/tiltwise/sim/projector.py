"""Projections of a density, independent of the trilinear kernels.

A projector returns discrete transforms of images: the particle's origin at a given position of the box (a
fraction of a pixel is exact), unnormalised, pixel (0, 0) first, zero from |k| = Nyquist on.  Orientations
are matrices A that turn the reference into the frame of the image; frequency (kx, ky) of the image is
the reference at A^T (kx, ky, 0).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.sim.density import Density, GaussianDensity
from tiltwise.spectral.shells import radii

F64 = NDArray[np.float64]

_SAMPLES_PER_RADIUS = 6.0
"""Samples of the transform per 1 / radius.  Seen along k, the density is a signal of at most 1/6 cycle per
sample, for which a quintic spline errs by about (1/5)^6 = 6e-5 at the very edge; 1e-5 for a map full of noise."""

_MARGIN = 16
"""Samples beyond the last one used: the influence of the spline's boundary falls by 0.43 a sample."""


class Projector(Protocol):
    """Anything that projects particles."""

    def images(self, rotations: F64, centres_px: F64, box: int, pixel_size_angstrom: float) -> NDArray[np.complex64]:
        """Transforms `(n, box, box // 2 + 1)` of n projections.

        Parameters
        ----------
        rotations
            `(n, 3, 3)` orientations A, reference to image frame.
        centres_px
            `(n, 2)` position (x, y) of the particle's origin in the box, 0-based pixels.
        """
        ...


class GaussianProjector:
    """Exact projections of a sum of Gaussians, in single precision (relative error about 1e-6).

    An exponential over a plane of frequencies is a product of one over kx and one over ky, so that a whole
    image is a matrix product over the scatterers; real arithmetic gives kx >= 0 with both signs of ky.
    """

    def __init__(self, density: GaussianDensity) -> None:
        order = np.argsort(density.kind, kind="stable")
        self._density = density
        self._position = density.position_angstrom[order]
        self._weight = density.weight[order].astype(np.float32)
        ends = np.searchsorted(density.kind[order], np.arange(len(density.amplitude)), side="right")
        self._parts = [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def images(self, rotations: F64, centres_px: F64, box: int, pixel_size_angstrom: float) -> NDArray[np.complex64]:
        """See `Projector.images`."""
        n = box // 2 + 1
        plane = (rotations[:, :2] @ self._position.T) / pixel_size_angstrom + centres_px[:, :, None]
        phase = plane * (2 * np.pi / box)
        factors_x = _cosines_and_sines(phase[:, 0], n)
        factors_y = _cosines_and_sines(phase[:, 1], n)
        factors_y *= self._weight
        radius = radii(box, 2)
        square = (radius / (box * pixel_size_angstrom)) ** 2
        spectra = np.zeros((len(rotations), box, n), np.complex64)
        one = np.empty_like(spectra)
        # Rows of negative ky in FFT order: -(box - n), ..., -1.
        mirror = slice(box - n, 0, -1)
        for kind, part in enumerate(self._parts):
            if part.start == part.stop:
                continue
            product = _sums_of_products(factors_y[..., part], factors_x[..., part])
            cc, cs = product[:, 0, :n, 0, :n], product[:, 0, :n, 1, :n]
            sc, ss = product[:, 1, :n, 0, :n], product[:, 1, :n, 1, :n]
            # exp(-i a) exp(-/+ i b) = (cos a cos b -/+ sin a sin b) - i (sin a cos b +/- cos a sin b)
            one[:, :n].real, one[:, :n].imag = cc - ss, -(cs + sc)
            one[:, n:].real, one[:, n:].imag = (cc + ss)[:, mirror], (sc - cs)[:, mirror]
            spectra += one * self._density.form_factor(square, kind).astype(np.float32)
        spectra *= np.where(radius < box / 2, pixel_size_angstrom**-3, 0.0).astype(np.float32)
        return spectra


class SplineProjector:
    """Projections by quintic B-spline interpolation of a finely sampled transform (relative error below 1e-4).

    The spacing of the samples depends on the radius of the density alone, not on any box.  Serves densities
    with too many scatterers for exact sums, and maps.
    """

    def __init__(self, density: Density, k_max: float) -> None:
        """Sample the transform up to `k_max` (1/Å), the Nyquist frequency of the images to come."""
        from scipy.ndimage import spline_filter

        self._band_limit = density.band_limit
        self._per_step = _SAMPLES_PER_RADIUS * density.radius_angstrom
        reach = int(np.ceil(k_max * self._per_step)) + _MARGIN
        full = np.arange(-reach, reach + 1) / self._per_step
        half = np.arange(-_MARGIN, reach + 1) / self._per_step
        samples = density.grid_transform(full, full, half)
        self._origin = np.array([reach, reach, _MARGIN])
        self._parts = [
            spline_filter(part, order=5, output=np.float32, mode="mirror") for part in (samples.real, samples.imag)
        ]

    def values(self, k: F64) -> NDArray[np.complex64]:
        """V at frequencies `(..., 3)` in 1/Å with |k| <= k_max; zero from the band limit of the density on."""
        from scipy.ndimage import map_coordinates

        points = np.asarray(k, dtype=np.float64).reshape(-1, 3)
        mirrored = points[:, 0] < 0
        where = np.where(mirrored[:, None], -points, points)[:, ::-1] * self._per_step + self._origin
        real, imaginary = (
            map_coordinates(part, where.T, order=5, output=np.float32, mode="mirror", prefilter=False)
            for part in self._parts
        )
        values = (real + 1j * np.where(mirrored, -imaginary, imaginary)).astype(np.complex64)
        values[(points**2).sum(axis=1) >= self._band_limit**2] = 0
        return np.asarray(values.reshape(np.shape(k)[:-1]))

    def images(self, rotations: F64, centres_px: F64, box: int, pixel_size_angstrom: float) -> NDArray[np.complex64]:
        """See `Projector.images`."""
        radius = radii(box, 2)
        rows, columns = np.nonzero(radius < box / 2)
        frequency = np.stack([columns, np.fft.fftfreq(box, 1.0 / box)[rows]])
        k = np.einsum("nji,jk->nki", rotations[:, :2], frequency / (box * pixel_size_angstrom))
        values = self.values(k) * np.exp((-2j * np.pi / box) * (centres_px @ frequency))
        spectra = np.zeros((len(rotations), box, box // 2 + 1), np.complex64)
        spectra[:, rows, columns] = values * pixel_size_angstrom**-3
        return spectra


def _cosines_and_sines(phase: F64, count: int) -> NDArray[np.float32]:
    """`cos(j phase)` and `sin(j phase)` for j = 0, 1, ...: phase `(n, p)` -> `(n, 2, at least count, p)`.

    j is split into j = low * a + b, which leaves few trigonometric functions and two products per value.
    Arguments are reduced to one turn in double precision first.
    """
    low = int(np.ceil(np.sqrt(count)))
    high = -(-count // low)
    (cl, sl), (ch, sh) = (
        _unit_circle(phase, np.arange(low)[None]),
        _unit_circle(phase, low * np.arange(high)[:, None]),
    )
    values = np.empty((len(phase), 2, high, low, phase.shape[1]), np.float32)
    cosine, sine = values[:, 0], values[:, 1]
    np.multiply(ch, cl, out=cosine)
    np.multiply(sh, cl, out=sine)
    other = sh * sl
    cosine -= other
    sine += np.multiply(ch, sl, out=other)
    return values.reshape(len(phase), 2, high * low, phase.shape[1])


def _unit_circle(phase: F64, multiples: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    turns = phase[:, None, None] * (multiples[..., None] / (2 * np.pi))
    angle = ((turns - np.rint(turns)) * (2 * np.pi)).astype(np.float32)
    return np.cos(angle), np.sin(angle)


def _sums_of_products(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """`sum_p a[n, s, j, p] b[n, t, i, p]` as `(n, s, j, t, i)`, by products too small for BLAS to split.

    OpenBLAS runs products of more than 2^18 multiplications on threads of its own: slower than ours, which
    take whole images, and with sums that might depend on their number.
    """
    n, two, rows, points = a.shape
    flat = b.reshape(n, 1, two * b.shape[2], points)
    block = max(1, 2**18 // (rows * flat.shape[2]))
    whole = points // block * block
    total = a[..., whole:] @ flat[..., whole:].swapaxes(2, 3)
    if whole:
        left = a[..., :whole].reshape(n, two, rows, -1, block).transpose(0, 1, 3, 2, 4)
        right = flat[..., :whole].reshape(n, 1, flat.shape[2], -1, block).transpose(0, 1, 3, 4, 2)
        total += (left @ right).sum(axis=2)
    return total.reshape(n, two, rows, two, b.shape[2])
