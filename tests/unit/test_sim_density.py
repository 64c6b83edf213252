"""Densities: transforms on grids against direct sums, and maps on the scale of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiltwise.errors import ConfigError, ShapeError
from tiltwise.sim.density import GaussianDensity, VoxelDensity, sample_map


def gaussians(seed: int = 3, n: int = 40, reach: float = 30.0) -> GaussianDensity:
    """Scatterers of three kinds, two Gaussians each, the last kind unused."""
    rng = np.random.default_rng(seed)
    return GaussianDensity(
        position_angstrom=rng.uniform(-reach, reach, (n, 3)) / np.sqrt(3),
        weight=rng.uniform(0.5, 1.0, n),
        kind=rng.integers(0, 2, n),
        amplitude=np.array([[1.0, 2.0], [3.0, 0.5], [9.0, 9.0]]),
        bfactor_angstrom2=np.array([[90.0, 300.0], [150.0, 60.0], [10.0, 10.0]]),
    )


def frequencies(n: int, k_max: float, seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    k = rng.standard_normal((n, 3))
    return k / np.linalg.norm(k, axis=1, keepdims=True) * rng.uniform(0, k_max, (n, 1))


def test_direct_sum_is_the_fourier_integral() -> None:
    density = gaussians(n=3)
    h = 0.7
    r = np.arange(-36, 36.1, h)
    x, y, z = np.meshgrid(r, r, r, indexing="ij")
    value = np.zeros_like(x)
    for p, w, c in zip(density.position_angstrom, density.weight, density.kind, strict=True):
        square = (x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2
        for a, b in zip(density.amplitude[c], density.bfactor_angstrom2[c], strict=True):
            value += w * a * (4 * np.pi / b) ** 1.5 * np.exp(-4 * np.pi**2 / b * square)
    for k in frequencies(5, 0.08):
        expected = (value * np.exp(-2j * np.pi * (k[0] * x + k[1] * y + k[2] * z))).sum() * h**3
        # a grid of 0.7 Å aliases less than 1e-11 of Gaussians this wide
        assert abs(density.transform(k) - expected) <= 1e-8 * abs(density.transform(np.zeros(3)))


@pytest.mark.parametrize(
    "density", [gaussians(), VoxelDensity.create(np.random.default_rng(1).random((17, 17, 17)), 3.0)]
)
def test_grid_transform_equals_direct_sum(density: GaussianDensity | VoxelDensity) -> None:
    kz, ky, kx = np.linspace(-0.07, 0.08, 7), np.linspace(-0.05, 0.06, 5), np.linspace(0, 0.09, 6)
    grid = density.grid_transform(kz, ky, kx)
    z, y, x = np.meshgrid(kz, ky, kx, indexing="ij")
    exact = density.transform(np.stack([x, y, z], axis=-1))
    # single precision and the spreading of points: 1e-6 each
    assert np.linalg.norm(grid - exact) <= 3e-6 * np.linalg.norm(exact)


def test_map_of_one_gaussian_is_that_gaussian() -> None:
    b = 500.0  # standard deviation 2.5 Å: nothing is left at the Nyquist frequency of 1.5 Å pixels
    place = np.array([[6.0, -3.0, 10.5]])
    density = GaussianDensity(place, np.ones(1), np.zeros(1, np.int64), np.ones((1, 1)), np.full((1, 1), b))
    for box in (32, 33):
        axis = (np.arange(box) - box // 2) * 1.5
        square = (axis - 10.5)[:, None, None] ** 2 + (axis + 3.0)[:, None] ** 2 + (axis - 6.0) ** 2
        expected = (4 * np.pi / b) ** 1.5 * np.exp(-4 * np.pi**2 / b * square)
        assert np.abs(sample_map(density, box, 1.5) - expected).max() <= 1e-4 * expected.max()


def test_map_of_a_map_at_its_own_sampling_is_the_map() -> None:
    wide = replace(gaussians(reach=20.0), bfactor_angstrom2=np.full((3, 2), 2000.0))
    smooth = sample_map(wide, 24, 4.0)
    again = sample_map(VoxelDensity.create(smooth, 4.0), 24, 4.0)
    # nothing is left at Nyquist, exp(-2000 / 4 / 8^2), so that there is no ringing for the sphere to cut off
    assert np.linalg.norm(again - smooth) <= 1e-3 * np.linalg.norm(smooth)


def test_nothing_beyond_nyquist() -> None:
    spectrum = np.fft.fftn(sample_map(gaussians(), 24, 4.0))
    k = np.fft.fftfreq(24) * 24
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    assert np.abs(spectrum[radius >= 12]).max() <= 1e-5 * np.abs(spectrum).max()


def test_finer_sampling_of_a_map_stays_inside_its_band() -> None:
    coarse = VoxelDensity.create(np.random.default_rng(2).random((16, 16, 16)), 4.0)
    spectrum = np.fft.fftn(sample_map(coarse, 40, 2.0))
    k = np.fft.fftfreq(40, 2.0)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    assert np.abs(spectrum[radius >= 0.125]).max() <= 1e-5 * np.abs(spectrum).max()


def test_a_particle_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit the box"):
        sample_map(gaussians(), 12, 2.0)


def test_a_map_that_is_not_cubic_is_refused() -> None:
    with pytest.raises(ShapeError, match="cubic"):
        VoxelDensity.create(np.zeros((8, 8, 9)), 1.0)
