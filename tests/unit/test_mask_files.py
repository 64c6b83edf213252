"""Masks of files: on the grid of the map whatever box and pixel size they have, or refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.errors import DataError, ShapeError
from tiltwise.io.mrc import write_map
from tiltwise.maps.focus import shifted
from tiltwise.maps.masks import read_mask, regridded
from tiltwise.spectral.masks import soft_edge

BOX, PIXEL = 32, 4.0
CENTRE = np.array([12.0, -8.0, 15.0])  # Å from the middle: x, y, z


def ball(size: int, pixel: float, radius: float = 40.0, edge: float = 24.0) -> NDArray[np.float32]:
    """A sphere off the middle of the box, in Å, that falls to zero at `radius`."""
    axis = (np.arange(size) - size // 2) * pixel
    x, y, z = CENTRE
    r = np.sqrt((axis - x) ** 2 + (axis[:, None] - y) ** 2 + (axis[:, None, None] - z) ** 2)
    return np.asarray(soft_edge(r, radius, edge), np.float32)


def read(folder: Path, mask: NDArray[np.float32], pixel: float) -> tuple[NDArray[np.float32], list[str]]:
    """The mask as a map of BOX voxels takes it, and what the user is told."""
    write_map(folder / "mask.mrc", mask, pixel)
    told: list[str] = []
    return read_mask(folder / "mask.mrc", BOX, PIXEL, "--focus", told.append), told


def test_a_mask_on_the_grid_of_the_map_stays_as_it_is(tmp_path: Path) -> None:
    mask = ball(BOX, PIXEL)
    found, told = read(tmp_path, mask, PIXEL * 1.0005)
    assert np.array_equal(found, mask)
    assert told == []


@pytest.mark.parametrize("pixel", [0.0, 1.0, PIXEL * 1.02])
def test_voxels_count_where_the_header_says_nothing(tmp_path: Path, pixel: float) -> None:
    """No pixel size, 1 Å that many programs write then, and one that was calibrated anew."""
    mask = ball(BOX, PIXEL)
    found, told = read(tmp_path, mask, pixel)
    assert np.array_equal(found, mask)
    assert len(told) == 1
    assert "voxels are taken as those of the map, 4 Å" in told[0]


@pytest.mark.parametrize("size", [28, 29, 40, 47])
def test_another_box_is_cut_or_padded(tmp_path: Path, size: int) -> None:
    found, told = read(tmp_path, ball(size, PIXEL, 20.0, 10.0), PIXEL)
    np.testing.assert_allclose(found, ball(BOX, PIXEL, 20.0, 10.0), atol=1e-6)
    assert "is resampled to 32 voxels of 4 Å" in told[0]


@pytest.mark.parametrize(("size", "pixel"), [(64, 2.0), (96, 1.35), (17, 8.0), (32, 5.3), (43, 3.1)])
def test_another_pixel_size_is_resampled_about_the_middle(tmp_path: Path, size: int, pixel: float) -> None:
    """The header decides; linear interpolation errs by h^2 / 8 of the curvature, pi^2 / 2 / 24^2 per Å^2 and axis."""
    found, _ = read(tmp_path, ball(size, pixel), pixel)
    expected = ball(BOX, PIXEL)
    coarse = max(pixel, PIXEL)
    assert np.abs(found - expected).max() < 3 * np.pi**2 / 16 * (coarse / 24.0) ** 2
    assert 0.0 <= found.min() <= found.max() <= 1.0 + 1e-6
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    where = [float((found.sum(axis=axes) * axis).sum() / found.sum()) for axes in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(where, CENTRE, atol=0.05 * PIXEL)


def test_a_sharp_edge_does_not_ring() -> None:
    sharp = (ball(24, PIXEL) > 0.5).astype(np.float32)
    fine = regridded(sharp, 0.5, 48)
    assert fine.min() == 0.0
    assert fine.max() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(fine[::2, ::2, ::2], sharp)


def test_whole_voxels_are_shifted_exactly() -> None:
    mask, offset = ball(BOX, PIXEL), np.array([3, -2, 5])
    np.testing.assert_array_equal(regridded(mask, 1.0, BOX, (3.0, -2.0, 5.0)), shifted(mask, offset))


def test_what_cannot_be_resampled_is_refused(tmp_path: Path) -> None:
    full = np.ones((BOX,) * 3, np.float32)
    for mask, pixel, error, words in (
        (ball(24, PIXEL), 0.0, ShapeError, "24 x 24 x 24 voxels without a pixel size"),
        (ball(24, PIXEL), 1.0, ShapeError, "of 1 Å, which is written where it is not known"),
        (full[:-1], PIXEL, ShapeError, "not a cube"),
        (full, 2 * PIXEL, DataError, "88% of the mask outside"),
        (full[8:, 8:, 8:], PIXEL, DataError, "cut off at the edge of its own box"),
        (2 * full, 2 * PIXEL, DataError, "2 to 2"),
        (0 * full, 2 * PIXEL, DataError, "0 to 0"),
    ):
        with pytest.raises(error) as caught:
            read(tmp_path, mask, pixel)
        assert words in str(caught.value)
        assert "--focus" in str(caught.value)
    # 1 Å is what a mask of 128 voxels has whose map is binned four times
    found, _ = read(tmp_path, ball(128, 1.0), 1.0)
    assert abs(float(found.sum()) / float(ball(BOX, PIXEL).sum()) - 1.0) < 0.01
