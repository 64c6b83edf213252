"""FSC inside a mask and the part of it that the mask makes."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.errors import ShapeError
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.masks import distances, soft_sphere
from tiltwise.spectral.randomised import corrected_fsc, masked_fsc, randomise_phases
from tiltwise.spectral.shells import shell_indices

BOX = 48


@pytest.mark.parametrize("size", [8, 9, 12])
@pytest.mark.parametrize("first_shell", [1, 3])
def test_amplitudes_and_low_shells_stay_and_phases_do_not(size: int, first_shell: int) -> None:
    volume = np.random.default_rng(size).normal(size=(size,) * 3)
    result = randomise_phases(volume, first_shell, np.random.default_rng(1))
    before, after = rfft3(volume), rfft3(result)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=0, atol=1e-12 * np.abs(before).max())
    low = shell_indices(size, 3) < first_shell
    np.testing.assert_allclose(after[low], before[low], rtol=0, atol=1e-12 * np.abs(before).max())
    turned = (after * before.conj())[~low]
    assert abs(turned.sum()) <= 5 * np.linalg.norm(turned)  # a random walk


def test_formula() -> None:
    masked = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.2, 1.0, np.nan])
    chance = np.array([1.0, 0.9, 0.5, 0.5, 0.2, 0.25, 0.3, 1.0, 0.1])
    result = corrected_fsc(masked, chance, 2)
    np.testing.assert_allclose(result, [1.0, 0.9, 0.8, 0.7, 0.5, 1 / 3, 0.0, 0.0, 0.0], rtol=1e-15)


def _tight(rng: np.random.Generator) -> np.ndarray:
    """Mask with an edge of one voxel around a few balls."""
    mask = np.zeros((BOX,) * 3)
    for centre in rng.integers(-8, 9, (6, 3)):
        mask = np.maximum(mask, np.roll(soft_sphere(BOX, 5.0, 1.0), centre, axis=(0, 1, 2)))
    return mask


def test_what_a_tight_mask_correlates_is_taken_off() -> None:
    """Maps that share nothing beyond shell 9: inside the mask they agree there, and the correction sees through it."""
    rng = np.random.default_rng(3)
    mask = _tight(rng)
    signal = low_pass(rng.normal(size=mask.shape) * (mask > 0), 1.0, BOX / 8) * 20
    first, second = (signal + rng.normal(size=mask.shape) for _ in range(2))
    assert 7 <= masked_fsc(first, second, mask).first_shell <= 9
    found = masked_fsc(first, second, mask, first_shell=10)
    assert found.masked[12:].mean() > 0.3
    assert found.corrected[12:].mean() < 0.1
    np.testing.assert_array_equal(found.corrected[: found.first_shell + 2], found.masked[: found.first_shell + 2])


def test_shared_signal_is_kept_by_a_wide_mask() -> None:
    """White signal and noise inside a wide soft mask: share of the signal 1/2 in every shell, before and after."""
    rng = np.random.default_rng(4)
    mask = soft_sphere(BOX, 22.0, 8.0)
    signal = rng.normal(size=mask.shape)
    found = masked_fsc(*(signal + rng.normal(size=mask.shape) for _ in range(2)), mask)
    assert found.first_shell <= 2
    assert abs(found.corrected[6:].mean() - 0.5) <= 0.02
    assert np.abs(found.randomised[6:]).max() <= 0.15


def test_same_seed_same_curves_and_other_seed_other_phases() -> None:
    rng = np.random.default_rng(5)
    mask, first, second = soft_sphere(16, 7.0, 2.0), *rng.normal(size=(2, 16, 16, 16))
    one, again, other = (masked_fsc(first, second, mask, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.randomised, again.randomised)
    assert np.any(one.randomised != other.randomised)


def test_equal_maps_have_nothing_to_randomise() -> None:
    volume = np.random.default_rng(6).normal(size=(12, 12, 12))
    found = masked_fsc(volume, volume, np.ones(volume.shape))
    assert found.first_shell == 7
    np.testing.assert_allclose(found.corrected, 1.0, rtol=1e-12)
    chosen = masked_fsc(volume, volume, (distances(12, 3) < 5).astype(float), first_shell=3)
    assert chosen.first_shell == 3
    assert np.all(chosen.randomised[5:] < 0.9)


def test_sizes_must_agree() -> None:
    volume = np.zeros((8, 8, 8))
    with pytest.raises(ShapeError):
        masked_fsc(volume, volume, np.zeros((9, 9, 9)))
