"""The half ball of Fourier voxels of a cube."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.errors import ShapeError
from tiltwise.spectral.ball import FourierBall
from tiltwise.spectral.fft import centred_fft3

BOX = 12


def test_voxels_are_those_of_half_a_ball_in_shell_order() -> None:
    ball = FourierBall.create(BOX)
    k = ball.frequencies
    square = (k**2).sum(axis=1)
    assert (np.diff(square) >= 0).all()
    np.testing.assert_array_equal(k[0], 0)
    np.testing.assert_array_equal(ball.shells, np.rint(np.sqrt(square)))
    axis = np.arange(-BOX // 2, BOX // 2 + 1)
    every = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = {tuple(v) for v in every[(every**2).sum(axis=1) < BOX**2 / 4]}
    half, mates = {tuple(v) for v in k}, {tuple(-v) for v in k[1:]}
    assert len(half) == len(k) == len(ball)
    assert not half & mates
    assert half | mates == inside
    assert ball.dimensions == 3
    assert ball.count(3.0) == int((square < 9).sum())


def test_values_are_taken_at_the_frequencies() -> None:
    ball = FourierBall.create(BOX)
    volume = np.random.default_rng(0).normal(size=(BOX,) * 3)
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    values = ball.take(centred_fft3(volume))
    for i in (0, 1, 17, len(ball) - 1):
        kx, ky, kz = ball.frequencies[i]
        direct = (volume * np.exp(-2j * np.pi * (kx * x + ky * y + kz * z) / BOX)).sum() / BOX**1.5
        assert abs(values[i] - direct) <= 1e-12 * np.linalg.norm(volume)


def test_marked_voxels_alone() -> None:
    whole = FourierBall.create(BOX)
    kept = np.random.default_rng(1).random((BOX, BOX, BOX // 2 + 1)) < 0.3
    kept[0, 0, 0] = False
    ball = FourierBall.create(BOX, kept=kept)
    chosen = whole.take(kept)
    chosen[0] = True  # DC is first in every list
    np.testing.assert_array_equal(ball.frequencies, whole.frequencies[chosen])
    np.testing.assert_array_equal(ball.take(kept)[1:], True)


@pytest.mark.parametrize("radius", [0.0, np.nan, BOX / 2 + 0.1])
def test_radii_beyond_nyquist_are_refused(radius: float) -> None:
    with pytest.raises(ShapeError, match="Fourier ball"):
        FourierBall.create(BOX, radius)
