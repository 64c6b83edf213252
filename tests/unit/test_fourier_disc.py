"""Pixels of a Fourier disc: which, in which order."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.errors import ShapeError
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.phases import phase_ramps


@pytest.mark.parametrize("box", [2, 7, 8, 33, 64])
@pytest.mark.parametrize("fraction", [1.0, 0.6])
def test_every_independent_component_once(box: int, fraction: float) -> None:
    radius = fraction * box / 2
    disc = FourierDisc.create(box, radius)
    expected = {
        (kx, ky)
        for kx in range(-box, box + 1)
        for ky in range(-box, box + 1)
        if kx * kx + ky * ky < radius * radius and (kx > 0 or (kx == 0 and ky >= 0))
    }
    found = [tuple(k) for k in disc.frequencies.tolist()]
    assert len(disc) == len(found) == len(set(found))
    assert set(found) == expected
    # Mates restore the whole disc, frequency zero being its own.
    whole = set(found) | {(-kx, -ky) for kx, ky in found}
    assert len(whole) == 2 * len(disc) - 1


@pytest.mark.parametrize("box", [7, 8, 33, 64])
def test_prefixes_are_smaller_discs(box: int) -> None:
    disc = FourierDisc.create(box)
    assert tuple(disc.frequencies[0]) == (0, 0)
    square = (disc.frequencies**2).sum(axis=1)
    assert (np.diff(square) >= 0).all()
    np.testing.assert_array_equal(disc.shells, np.rint(np.sqrt(square)))
    assert disc.shells.max() < disc.n_shells
    for radius in (1.0, 2.5, np.sqrt(5), box / 4, box / 2):
        smaller = FourierDisc.create(box, radius)
        assert disc.count(radius) == len(smaller)
        np.testing.assert_array_equal(disc.frequencies[: len(smaller)], smaller.frequencies)


@pytest.mark.parametrize("box", [7, 8])
def test_take_finds_the_frequencies(box: int) -> None:
    disc = FourierDisc.create(box)
    kx, ky = np.meshgrid(np.fft.rfftfreq(box, 1.0 / box), np.fft.fftfreq(box, 1.0 / box))
    taken = disc.take(np.stack([kx, ky]))
    np.testing.assert_allclose(taken.T, disc.frequencies, rtol=0, atol=1e-12)
    padded = disc.frequencies3d(4)
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(padded, np.c_[disc.frequencies[:4], np.zeros(4)])


@pytest.mark.parametrize(("box", "radius"), [(1, None), (8, 4.5), (8, 0.0), (8, -1.0)])
def test_impossible_discs_are_refused(box: int, radius: float | None) -> None:
    with pytest.raises(ShapeError):
        FourierDisc.create(box, radius)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_ramps_are_exponentials(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    frequencies, slopes = rng.integers(-12, 13, (50, dimensions)), rng.uniform(-3, 3, (4, 2, dimensions))
    found = phase_ramps(frequencies, slopes)
    assert found.shape == (4, 2, 50)
    # one rounding to single precision for every table and product
    assert np.abs(found - np.exp(1j * slopes @ frequencies.T)).max() <= 2 * dimensions * np.finfo(np.float32).eps
    assert phase_ramps(frequencies[:0], slopes).shape == (4, 2, 0)
