"""Transforms, shells, Fourier shell correlation and resolution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tiltwise.errors import ShapeError
from tiltwise.spectral import fft
from tiltwise.spectral.fsc import fsc, fsc_of_transforms, noise_sigma, resolution_angstrom
from tiltwise.spectral.masks import soft_sphere
from tiltwise.spectral.shells import (
    half_weights,
    radii,
    shell_counts,
    shell_indices,
    shell_means,
    shell_totals,
    spread,
)

SIZES = [8, 9, 12, 15]
# Unitary float64 transforms of unit noise: a few units of the last place.
EXACT = 1e-12


@pytest.mark.parametrize("size", SIZES)
def test_transforms_are_unitary_and_invert(size: int) -> None:
    rng = np.random.default_rng(size)
    images, volume = rng.normal(size=(3, size, size)), rng.normal(size=(size,) * 3)
    for forward, inverse in ((fft.rfft2, fft.irfft2), (fft.centred_fft2, fft.centred_ifft2)):
        spectra = forward(images)
        assert spectra.shape == (3, size, size // 2 + 1)
        np.testing.assert_allclose(inverse(spectra, size), images, rtol=0, atol=EXACT)
        power = (np.abs(spectra) ** 2 * half_weights(size)).sum(axis=(1, 2))
        np.testing.assert_allclose(power, (images**2).sum(axis=(1, 2)), rtol=EXACT)
    for forward, inverse in ((fft.rfft3, fft.irfft3), (fft.centred_fft3, fft.centred_ifft3)):
        spectrum = forward(volume)
        assert spectrum.shape == (size, size, size // 2 + 1)
        np.testing.assert_allclose(inverse(spectrum, size), volume, rtol=0, atol=EXACT)
        assert abs((np.abs(spectrum) ** 2 * half_weights(size)).sum() / (volume**2).sum() - 1) <= EXACT


@pytest.mark.parametrize("size", SIZES)
def test_origin_is_at_half_the_size(size: int) -> None:
    image = np.zeros((size, size))
    image[size // 2, size // 2] = size
    np.testing.assert_allclose(fft.centred_fft2(image), 1.0, rtol=0, atol=EXACT)
    image = np.roll(image, (1, -2), axis=(0, 1))
    kx, ky = np.meshgrid(np.fft.rfftfreq(size), np.fft.fftfreq(size))
    np.testing.assert_allclose(fft.centred_fft2(image), np.exp(-2j * np.pi * (ky - 2 * kx)), rtol=0, atol=EXACT)
    volume = np.zeros((size,) * 3)
    volume[size // 2, size // 2, size // 2 + 1] = size**1.5
    expected = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    np.testing.assert_allclose(
        fft.centred_fft3(volume), np.broadcast_to(expected, (size, size, size // 2 + 1)), atol=1e-11
    )


def test_slice_theorem_fixes_the_scale_of_references() -> None:
    """The unitary transform of a projection is the plane z = 0 of FFT(map) / N."""
    size = 12
    volume = np.random.default_rng(0).normal(size=(size,) * 3)
    plane = fft.rfft3(volume, norm="backward")[0] / size
    np.testing.assert_allclose(fft.rfft2(volume.sum(axis=0)), plane, rtol=0, atol=EXACT)


def test_noise_has_its_variance_in_every_component() -> None:
    noise = np.random.default_rng(0).normal(scale=3.0, size=(4000, 8, 8))
    power = (np.abs(fft.rfft2(noise)) ** 2).mean(axis=0)
    # self-conjugate components are real: chi-square of one degree, relative error root(2/4000)
    assert np.abs(power / 9.0 - 1).max() <= 5 * math.sqrt(2 / 4000)


def test_single_precision_stays_single() -> None:
    spectrum = fft.centred_fft3(np.ones((6, 6, 6), np.float32))
    assert spectrum.dtype == np.complex64
    assert fft.centred_ifft3(spectrum, 6).dtype == np.float32


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ndim", [2, 3])
def test_shells_complete_the_full_plane(size: int, ndim: int) -> None:
    axes = np.meshgrid(*[np.fft.fftfreq(size, 1 / size)] * ndim, indexing="ij")
    full = np.rint(np.sqrt(sum(a * a for a in axes))).astype(int)
    expected = np.bincount(full.ravel())[: size // 2 + 1]
    assert shell_counts(size, ndim).tolist() == expected.tolist()
    assert shell_indices(size, ndim).dtype == np.int32
    assert radii(size, ndim).shape == (size,) * (ndim - 1) + (size // 2 + 1,)
    values = np.random.default_rng(1).normal(size=(2,) + (size,) * ndim)
    transform = fft.rfft2(values) if ndim == 2 else fft.rfft3(values)
    numpy_full = np.fft.fftn(values, axes=range(1, ndim + 1), norm="ortho")
    direct = [np.bincount(full.ravel(), (np.abs(v) ** 2).ravel())[: size // 2 + 1] for v in numpy_full]
    np.testing.assert_allclose(shell_totals(np.abs(transform) ** 2, size, ndim), direct, rtol=1e-12)
    np.testing.assert_allclose(shell_means(np.abs(transform) ** 2, size, ndim), np.array(direct) / expected, rtol=1e-12)


def test_profiles_spread_over_shells_and_come_back() -> None:
    profile = np.random.default_rng(2).normal(size=6)
    grid = spread(profile, 11, 3)
    np.testing.assert_allclose(shell_means(grid, 11, 3), profile, rtol=1e-12)
    assert grid[5, 5, 5] == 0, "corners belong to no shell"


def test_fsc_of_equal_opposite_and_scaled_maps() -> None:
    volume = np.random.default_rng(3).normal(size=(16,) * 3)
    np.testing.assert_allclose(fsc(volume, 7 * volume), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fsc(volume, -volume), -1.0, rtol=1e-12)
    assert fsc(volume, volume).shape == (9,)
    np.testing.assert_array_equal(fsc(volume, np.zeros_like(volume)), 0.0)


@pytest.mark.parametrize("size", [16, 17])
def test_fsc_is_the_normalised_cross_correlation(size: int) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2,) + (size,) * 3)
    b = a + 2 * b
    mask = soft_sphere(size, 7, 3)
    fa, fb = (np.fft.fftn(v * mask) for v in (a, b))
    k = np.fft.fftfreq(size, 1 / size)
    shells = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)
    expected = [
        np.sum(fa[shells == s].conj() * fb[shells == s]).real
        / np.sqrt(np.sum(np.abs(fa[shells == s]) ** 2) * np.sum(np.abs(fb[shells == s]) ** 2))
        for s in range(size // 2 + 1)
    ]
    np.testing.assert_allclose(fsc(a, b, mask), expected, rtol=0, atol=1e-12)
    transforms = fft.centred_fft3(a * mask), fft.centred_fft3(b * mask)
    np.testing.assert_allclose(fsc_of_transforms(*transforms, size), expected, rtol=0, atol=1e-12)


def test_fsc_of_signal_and_noise_has_its_expectation() -> None:
    rng = np.random.default_rng(5)
    signal, a, b = rng.normal(size=(3,) + (32,) * 3)
    curve = fsc(signal + a, signal + b)
    deviation = (curve - 0.5)[1:] / noise_sigma(32)[1:]
    # SNR 1 in each half: 1/2.  The spread there is smaller than that of pure noise.
    assert np.abs(deviation).max() <= 4


@pytest.mark.parametrize("shape", [(4, 4, 5), (4, 4)])
def test_fsc_refuses_what_is_not_a_cube(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="cubic"):
        fsc(np.zeros(shape), np.zeros(shape))


def test_fsc_refuses_different_sizes() -> None:
    with pytest.raises(ShapeError, match="second map"):
        fsc(np.zeros((4,) * 3), np.zeros((6,) * 3))
    with pytest.raises(ShapeError, match="mask"):
        fsc(np.zeros((4,) * 3), np.zeros((4,) * 3), np.zeros((6,) * 3))


@pytest.mark.parametrize("masked", [False, True])
def test_spread_of_the_fsc_of_noise(masked: bool) -> None:
    rng, size, n = np.random.default_rng(6), 16, 600
    mask = soft_sphere(size, 7, 3) if masked else None
    curves = np.array([fsc(*rng.normal(size=(2,) + (size,) * 3), mask) for _ in range(n)])
    ratio = curves.std(axis=0)[1:] / noise_sigma(size, mask)[1:]
    # Sampling error 1 / root(2 n) = 3 %; shell 1 has few components, where the correlation saturates.
    assert np.abs(ratio[1:] - 1).max() <= 4 / math.sqrt(2 * n)
    assert 0.8 <= ratio[0] <= 1.1


def test_resolution_interpolates_between_shells() -> None:
    curve = np.array([1.0, 0.9, 0.6, 0.2, 0.0, 0.9])
    # between shells 2 and 3, a quarter of the way from 0.6 to 0.2
    assert resolution_angstrom(curve, 10, 2.0, 0.5) == pytest.approx(20 / 2.25)
    assert resolution_angstrom(curve, 10, 2.0) == pytest.approx(20 / (3 + 0.057 / 0.2))


@pytest.mark.parametrize(
    ("curve", "shell"),
    [
        ([0.0, 1.0, 1.0, 1.0], 3.0),
        ([1.0, 0.4, 1.0, 1.0], 1.0),
        ([1.0, 1.0, 0.5, 0.2], 2.0),
        ([1.0, 1.0, float("nan"), 1.0], 1.0),
        ([1.0, 0.5, 0.5, 0.4], 2.0),
    ],
)
def test_resolution_at_the_ends_and_on_the_threshold(curve: list[float], shell: float) -> None:
    assert resolution_angstrom(np.array(curve), 6, 1.5, 0.5) == pytest.approx(9.0 / shell)
