"""Local resolution: the filter bank, its windows, two zones of known resolution, noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.post.local_fsc import Window, band_centres, band_gain, local_correlations, region_of
from tiltwise.post.local_resolution import LocalResolution, resolve
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.masks import distances, soft_sphere
from tiltwise.spectral.shells import radii

SIZE, PIXEL = 96, 2.0


def test_bands_add_up_to_everything() -> None:
    centres = band_centres(3.0, 24.0)
    assert centres[0] == 3.0
    assert centres[-1] == 24.0
    assert (np.diff(centres) > 0).all()
    radius = np.linspace(0.0, 42.0, 500)
    total = sum(band_gain(radius, centres, band) for band in range(len(centres)))
    np.testing.assert_allclose(total, 1.0, atol=1e-12)


@pytest.mark.parametrize("inner", [1.0, 4.0])  # without and with blocks
def test_window_is_a_gaussian_of_the_mask(inner: float) -> None:
    size = 32
    mask = soft_sphere(size, 14.0, 4.0).astype(np.float32)
    window = Window(mask, inner, 1.5 * inner)
    values = np.random.default_rng(1).normal(size=(size,) * 3).astype(np.float32)
    found = (
        window.spread(window.average(values))[16, 16, 16]
        / window.spread(window.average(np.ones_like(values)))[16, 16, 16]
    )
    weight = mask * np.exp(distances(size, 3) ** 2 / (-2 * inner**2))
    assert found == pytest.approx(float((weight * values).sum() / weight.sum()), abs=0.03)
    # A constant stays, whatever the window.
    constant = window.widened(np.ones_like(window.average(values)))
    np.testing.assert_allclose(constant[constant > 0], 1.0, rtol=1e-5)
    outer = mask * np.exp(distances(size, 3) ** 2 / (-2 * (1.5 * inner) ** 2))
    expected = float(outer.sum() ** 2 / (outer**2).sum())
    assert float(window.spread(window.effective_voxels())[16, 16, 16]) == pytest.approx(expected, rel=0.1)


def local_resolution(
    first: NDArray[np.float32], second: NDArray[np.float32], mask: NDArray[np.float32]
) -> LocalResolution:
    size = len(mask)
    centres = band_centres(size * PIXEL / 50.0, size / 2)
    transforms = [rfft3(volume, norm="forward") for volume in (first, second)]
    bands = local_correlations(transforms[0], transforms[1], mask, centres, 3.0)
    return resolve(bands, 0.143, lambda shell: 1.0, lambda: None)


def test_two_zones_of_known_resolution() -> None:
    """Signal whose ratio to white noise falls as a Gaussian and is 1/6, FSC 0.143, at the resolution of its zone."""
    rng = np.random.default_rng(5)
    frequency = radii(SIZE, 3) / (SIZE * PIXEL)

    def zone(resolution: float) -> NDArray[np.float64]:
        ratio = np.exp(7.5 * (1.0 - (frequency * resolution) ** 2)) / 6.0
        return np.asarray(irfft3(rfft3(rng.normal(size=(SIZE,) * 3)) * np.sqrt(ratio), SIZE))

    x = np.arange(SIZE) - SIZE / 2
    left = 0.5 - 0.5 * np.tanh(x / 2.0)
    mask = soft_sphere(SIZE, 40.0, 6.0).astype(np.float32)
    signal = mask * (zone(10.0) * left + zone(14.0) * (1.0 - left))
    first, second = ((signal + rng.normal(size=(SIZE,) * 3)).astype(np.float32) for _ in range(2))
    local = local_resolution(first, second, mask)
    resolution = SIZE * PIXEL / local.shell
    region = region_of(mask)
    inside, x = mask[region] > 0.9, x[region[2]]
    # Within a window of the border, both zones count.
    fine, coarse = (float(np.median(resolution[inside & side])) for side in (x < -18, x > 18))
    assert fine == pytest.approx(10.0, rel=0.1)
    assert coarse == pytest.approx(14.0, rel=0.1)
    # The filtered map keeps what is signal and loses most of the noise.
    mean = 0.5 * (first + second)
    error, before = (float(np.square(v - signal[region])[inside].mean()) for v in (local.filtered, mean[region]))
    assert error < 0.25 * before


def test_noise_has_no_resolution() -> None:
    size = 64
    rng = np.random.default_rng(2)
    mask = soft_sphere(size, 28.0, 5.0).astype(np.float32)
    first, second = (rng.normal(size=(size,) * 3).astype(np.float32) for _ in range(2))
    local = local_resolution(first, second, mask)
    values = size * PIXEL / local.shell[mask[region_of(mask)] > 0.5]
    assert np.mean(values < 30.0) < 0.05
