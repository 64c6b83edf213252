"""Masks: threshold, pieces, margin and edge."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.half_maps import PIXEL, half_maps, particle
from tiltwise.errors import ConfigError
from tiltwise.post.mask import automatic_threshold, find_particle, largest_components, otsu_threshold, widened
from tiltwise.post.options import MaskOptions
from tiltwise.spectral.masks import distances


def test_otsu_parts_two_levels_half_way() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0.0, 0.1, 90_000), rng.normal(1.0, 0.1, 10_000)])
    assert otsu_threshold(values) == pytest.approx(0.5, abs=0.06)


def test_threshold_comes_from_the_density_or_from_the_noise() -> None:
    clean = automatic_threshold(particle(), np.zeros_like(particle()))
    assert 0.05 < clean.value < 0.3
    assert "solvent to the mean" in clean.reason
    noise = np.random.default_rng(1).normal(0.0, 0.2, particle().shape).astype(np.float32)
    floor = automatic_threshold(particle(), noise)
    assert floor.value == pytest.approx(0.6, rel=0.02)  # three standard deviations
    assert "noise" in floor.reason


@pytest.mark.parametrize("noise, filter_angstrom, share", [(0.1, 15.0, 0.9), (0.3, 18.0, 0.75)])
def test_mask_of_noisy_halves_is_that_of_the_particle(noise: float, filter_angstrom: float, share: float) -> None:
    warnings: list[str] = []
    first, second = half_maps(noise)
    found = find_particle((first + second) / 2, (first - second) / 2, PIXEL, warnings.append)
    assert found.low_pass_angstrom >= filter_angstrom
    truth = find_particle(
        particle(), np.zeros_like(particle()), PIXEL, warnings.append, low_pass_angstrom=found.low_pass_angstrom
    )
    assert warnings == []
    both = float((found.voxels & truth.voxels).sum())
    # What two shapes have in common, over each of them.
    assert both / truth.voxels.sum() > share
    assert both / found.voxels.sum() > share


def test_pieces_are_kept_by_size() -> None:
    chosen = np.zeros((8, 8, 8), bool)
    chosen[1:3, 1:3, 1:3] = True
    chosen[5, 5, 5:8] = True
    chosen[7, 0, 0] = True
    one, sizes = largest_components(chosen, 1)
    assert sizes == [8, 3, 1]
    assert one.sum() == 8
    assert largest_components(chosen, 2)[0].sum() == 11
    assert largest_components(np.zeros_like(chosen), 1)[1] == []


@pytest.mark.parametrize("extend, edge", [(0.0, 0.0), (2.0, 0.0), (0.0, 3.0), (2.5, 4.0)])
def test_margin_and_edge_of_a_point(extend: float, edge: float) -> None:
    size = 20
    chosen = np.zeros((size,) * 3, bool)
    chosen[size // 2, size // 2, size // 2] = True
    mask = widened(chosen, extend, edge)
    r = distances(size, 3)
    fall = 0.5 + 0.5 * np.cos(np.pi * np.clip((r - extend) / max(edge, 1e-9), 0.0, 1.0))
    np.testing.assert_allclose(mask, np.where(r <= extend, 1.0, fall), atol=1e-6)


def test_mask_at_the_corner_does_not_wrap() -> None:
    chosen = np.zeros((12,) * 3, bool)
    chosen[0, 0, 0] = True
    mask = widened(chosen, 1.0, 3.0)
    assert mask[0, 0, 0] == 1
    assert mask[-1].max() == 0


def test_half_maps_are_needed_once() -> None:
    with pytest.raises(ConfigError, match="no half maps"):
        MaskOptions(output="o")
    with pytest.raises(ConfigError, match="given twice"):
        MaskOptions(output="o", input="a", half1="b", half2="c")
