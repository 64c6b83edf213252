"""Soft masks, circular cropping, low-pass filter, changes of box and pixel size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.errors import ShapeError
from tiltwise.spectral.filters import low_pass, resample
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import CircleCrop, distances, soft_edge, soft_sphere


@pytest.mark.parametrize("size", [10, 11])
def test_distances_start_at_half_the_size(size: int) -> None:
    assert distances(size, 3)[size // 2, size // 2, size // 2] == 0
    assert distances(size, 2)[size // 2, size // 2 + 3] == 3
    assert distances(size, 2)[0, size // 2] == size // 2


def test_soft_edge_is_a_raised_cosine() -> None:
    r = np.array([0.0, 14.999, 15.0, 16.0, 17.5, 20.0, 21.0])
    expected = [1, 1, 1, 0.5 - 0.5 * np.cos(np.pi * 4 / 5), 0.5, 0, 0]
    np.testing.assert_allclose(soft_edge(r, 20.0, 5.0), expected, rtol=0, atol=1e-12)
    assert soft_edge(r, 16.0, 0.0).tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_soft_shapes_end_at_their_radius() -> None:
    sphere = soft_sphere(24, 9.0, 4.0)
    r = distances(24, 3)
    assert sphere.shape == (24, 24, 24)
    assert np.all(sphere[r <= 5] == 1)
    assert np.all(sphere[r >= 9] == 0)
    assert np.all((sphere[(r > 5.01) & (r < 8.99)] > 0) & (sphere[(r > 5.01) & (r < 8.99)] < 1))
    # volume of the sphere plus half of the edge's
    assert sphere.sum() == pytest.approx(4 / 3 * np.pi * 7.0**3, rel=0.06)


@pytest.mark.parametrize("wrapped", [False, True])
def test_circle_crop_follows_the_extraction_step(wrapped: bool) -> None:
    b, c = 48, 32
    image = np.random.default_rng(1).normal(size=(2, b, b)) + 7.0
    radius = c / 2
    expected = np.empty_like(image)
    # Written out pixel by pixel from the definition: centre b/2, mean of r > R, cosine over the last 5 px.
    for f in range(2):
        outside = [image[f, y, x] for y in range(b) for x in range(b) if np.hypot(y - b / 2, x - b / 2) > radius]
        for y in range(b):
            for x in range(b):
                r = np.hypot(y - b / 2, x - b / 2)
                weight = 1.0 if r < radius - 5 else 0.0 if r >= radius else 0.5 - 0.5 * np.cos(np.pi * (radius - r) / 5)
                expected[f, y, x] = (image[f, y, x] - np.mean(outside)) * weight
    distance = distances(b, 2)
    if wrapped:
        image, expected = (np.fft.ifftshift(a, axes=(1, 2)) for a in (image, expected))
        distance = np.fft.ifftshift(distance)
    np.testing.assert_allclose(CircleCrop(distance, radius)(image), expected, rtol=0, atol=1e-12)


def test_circle_crop_keeps_the_type_and_needs_no_background() -> None:
    image = np.ones((6, 6), np.float32)
    result = CircleCrop(distances(6, 2), 100.0)(image)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, image)


def blobs(size: int, pixel: float) -> NDArray[np.float64]:
    """Two Gaussians well inside the box, smooth enough for every pixel size used here."""
    axis = (np.arange(size) - size // 2) * pixel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.asarray(
        np.exp(-((x - 7) ** 2 + (y + 11) ** 2 + (z - 3) ** 2) / 162)
        + 0.5 * np.exp(-((x + 20) ** 2 + y**2 + (z + 13) ** 2) / 128)
    )


@pytest.mark.parametrize(
    ("size", "pixel", "new_size", "new_pixel"),
    [(48, 3.0, 48, 3.0), (48, 3.0, 32, 4.5), (48, 3.0, 64, 2.1), (47, 3.0, 60, 2.5), (48, 3.0, 41, 3.7)],
)
def test_resampling_is_exact_for_smooth_maps(size: int, pixel: float, new_size: int, new_pixel: float) -> None:
    found = resample(blobs(size, pixel), pixel, new_pixel, new_size)
    assert found.dtype == np.float32
    # float32 of values up to 1; the Gaussians end at 1e-8 where the box and the frequencies do
    np.testing.assert_allclose(found, blobs(new_size, new_pixel), rtol=0, atol=2e-7)


def test_resampling_drops_what_the_new_grid_cannot_hold() -> None:
    noise = np.random.default_rng(2).normal(size=(24,) * 3)
    coarse = resample(noise, 1.0, 1.5, 16)
    transform, kept = np.fft.fftn(noise), np.fft.fftn(coarse)
    inside = [-7, -3, 0, 4, 7]
    for z in inside:
        for y in inside:
            # same frequencies, same values: (16 / 24)^3 of the sum, and origins at 12 and 8
            expected = transform[z, y, 1] * np.exp(2j * np.pi * (z + y + 1) / 2) * (16 / 24) ** 3
            assert abs(kept[z, y, 1] * np.exp(2j * np.pi * (z + y + 1) / 2) - expected) <= 1e-4


@pytest.mark.parametrize("size", [12, 13])
def test_resampling_to_the_same_grid_changes_nothing(size: int) -> None:
    noise = np.random.default_rng(4).normal(size=(size,) * 3)
    np.testing.assert_allclose(resample(noise, 1.7, 1.7, size), noise, rtol=0, atol=1e-6)


def test_resampling_leaves_zero_beyond_the_old_box() -> None:
    wide = resample(np.ones((8, 8, 8)), 2.0, 2.0, 20)
    np.testing.assert_allclose(wide[6:14, 6:14, 6:14], 1.0, atol=1e-6)
    assert wide.sum() == pytest.approx(512, abs=1e-3)


@pytest.mark.parametrize(
    "bad", [(np.zeros((4, 4, 5)), 1.0, 4), (np.zeros((4,) * 3), 0.0, 4), (np.zeros((4,) * 3), 1.0, 0)]
)
def test_impossible_grids_are_refused(bad: tuple[NDArray[np.float64], float, int]) -> None:
    volume, pixel, size = bad
    with pytest.raises(ShapeError):
        resample(volume, 1.0, pixel, size)


@pytest.mark.parametrize("size", [32, 33])
def test_low_pass_keeps_low_and_removes_high_shells(size: int) -> None:
    noise = np.random.default_rng(3).normal(size=(size,) * 3).astype(np.float32)
    filtered = low_pass(noise, 2.0, size * 2.0 / 8)
    assert filtered.dtype == np.float32
    before, after = np.fft.rfftn(noise), np.fft.rfftn(filtered)
    gain = np.abs(after) / np.abs(before)
    k = np.fft.fftfreq(size, 1 / size)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(size // 2 + 1) ** 2)
    # float32 transforms of 3e4 voxels
    np.testing.assert_allclose(gain[radius <= 7], 1.0, atol=1e-3)
    assert gain[radius >= 9].max() <= 1e-3
    middle = (radius > 7.2) & (radius < 8.8)
    np.testing.assert_allclose(gain[middle], 0.5 + 0.5 * np.cos(np.pi * (radius[middle] - 7) / 2), atol=2e-3)
    assert fsc(noise, filtered)[:7].min() >= 1 - 1e-6
