"""Contrast of tilt series from the sums of an E-step."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.scale import series_scales
from tiltwise.extract.images import ParticleImages

TILTS, SHELLS = 3, 12
GOOD = np.linspace(1.2, 0.2, SHELLS).clip(0, 1)  # above 0.75 up to shell 4, below 5 nothing is trusted less


def sums_of(factor: float, old: float, damping: float, seed: int) -> NoiseSums:
    """Images of contrast `factor`, seen with `old`, against a map that the prior has damped."""
    rng = np.random.default_rng(seed)
    energy = rng.uniform(1.0, 2.0, (TILTS, SHELLS))
    quadratic = (old * damping) ** 2 * energy
    cross = factor * old * damping * energy
    return NoiseSums(energy, 2 * cross - quadratic, energy, quadratic)


@pytest.mark.parametrize("old", [np.ones(3), np.array([0.8, 1.1, 1.2])])
def test_factors_are_found_from_any_start_and_damping_cancels(old: np.ndarray) -> None:
    factors, counts = np.array([0.7, 1.0, 1.3]), np.array([10.0, 30.0, 5.0])
    sums = [sums_of(f, o, 0.6, i) for i, (f, o) in enumerate(zip(factors, old, strict=True))]
    noise = [np.random.default_rng(i).uniform(0.5, 2.0, (TILTS, SHELLS)) for i in range(3)]
    found = series_scales(sums, noise, old, GOOD, counts)
    np.testing.assert_allclose(found, factors / np.average(factors, weights=counts), rtol=1e-12)


def test_shells_that_are_not_known_do_not_count() -> None:
    one, other = sums_of(1.0, 1.0, 1.0, 0), sums_of(1.0, 1.0, 1.0, 1)
    one.explained[:, 6:] = 1e6
    noise = [np.ones((TILTS, SHELLS))] * 2
    np.testing.assert_allclose(series_scales([one, other], noise, np.ones(2), GOOD, np.ones(2)), 1.0)


def test_series_without_particles_or_correlation_and_outliers() -> None:
    """They keep their factors, relative to the others, or are bounded."""
    empty = NoiseSums.empty(TILTS, SHELLS)
    noise = [np.ones((TILTS, SHELLS))] * 4
    sums = [sums_of(1.0, 1.0, 1.0, 0), empty, sums_of(-1.0, 1.0, 1.0, 1), sums_of(1e4, 1.0, 1.0, 2)]
    counts = np.array([4.0, 0.0, 4.0, 4.0])
    found = series_scales(sums, noise, np.ones(4), GOOD, counts)
    np.testing.assert_allclose(found / found[0], [1, 1, 1, 5])
    assert abs(np.average(found, weights=counts) - 1) <= 1e-12
    np.testing.assert_array_equal(series_scales([empty], noise[:1], np.ones(1), GOOD, np.zeros(1)), 1.0)


@pytest.mark.parametrize("premultiplied", [False, True])
def test_contrast_belongs_to_the_ctf(premultiplied: bool) -> None:
    rng = np.random.default_rng(3)
    data = (rng.normal(size=(2, 5)) + 1j * rng.normal(size=(2, 5))).astype(np.complex64)
    ctf2, power = rng.random((2, 5)).astype(np.float32), rng.random((2, 4))
    images = ParticleImages(np.arange(2), data, data, ctf2, power, premultiplied)
    assert images.with_contrast(1.0) is images
    found = images.with_contrast(0.5)
    np.testing.assert_array_equal(found.data, data * np.float32(0.5))
    np.testing.assert_array_equal(found.masked, data * np.float32(0.5))
    np.testing.assert_array_equal(found.ctf2, ctf2 * np.float32(0.25))
    # of C X where that is what is known
    np.testing.assert_array_equal(found.power, power * (0.25 if premultiplied else 1.0))
