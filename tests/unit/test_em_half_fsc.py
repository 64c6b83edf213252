"""How far half sets may share their sums."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.em.half_fsc import HalfFsc
from tiltwise.maps.volumes import Accumulator, padded_shells
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import soft_sphere

BOX = 24
HALVES = HalfFsc(soft_sphere(BOX, 12.0, 3.0).astype(np.float32), False, 1)
UNKNOWN = np.zeros(BOX // 2 + 1)


def sums_that_agree_to(shell: int) -> dict[int, Accumulator]:
    """Two halves with the same signal up to a shell, and noise of their own beyond."""
    rng = np.random.default_rng(1)
    shells = padded_shells(BOX, 2 * BOX)
    signal = np.fft.rfftn(rng.normal(size=(2 * BOX,) * 3))
    halves = {}
    for half in (1, 2):
        own = np.fft.rfftn(rng.normal(size=(2 * BOX,) * 3))
        accumulator = Accumulator.empty(BOX)
        accumulator.data[...] = np.where(shells <= shell, signal, own)
        accumulator.weight[...] = 1.0
        halves[half] = accumulator
    return halves


@pytest.mark.parametrize(("agree", "expected"), [(3, (3, 4)), (5, (5, 6)), (11, (8, 8))])
def test_sums_are_shared_where_they_agree(agree: int, expected: tuple[int, int]) -> None:
    """To the limit, 8, at most; the mask blurs by a shell."""
    found = HALVES.shared_shell(sums_that_agree_to(agree), 8, 2, UNKNOWN)
    assert expected[0] <= found <= expected[1]


def test_what_both_halves_started_from_is_shared() -> None:
    assert HALVES.shared_shell(sums_that_agree_to(2), 8, 5, UNKNOWN) == 5
    assert HALVES.shared_shell(sums_that_agree_to(2), 8, 9, UNKNOWN) == 8


def test_a_last_fsc_beyond_the_limit_decides() -> None:
    before = (np.arange(BOX // 2 + 1) < 11.5).astype(float)
    assert HALVES.shared_shell(sums_that_agree_to(2), 8, 2, before) == 8
    assert HALVES.shared_shell(sums_that_agree_to(2), 0, 2, before) == 1


def test_spheres_count_where_posteriors_are_sharp() -> None:
    """A shell with a little structure: with sharp posteriors its sphere is signal."""
    rng = np.random.default_rng(2)
    radius = np.linalg.norm(np.indices((BOX,) * 3) - BOX // 2, axis=0)
    shell = np.exp(-((radius - 7.0) ** 2))
    first, second = ((shell + 0.05 * rng.normal(size=shell.shape)).astype(np.float32) for _ in range(2))
    sharp = HalfFsc(HALVES.mask, False, 1, flat=False).curve(first, second, 1)
    flat = HalfFsc(HALVES.mask, False, 1, flat=True).curve(first, second, 1)
    assert np.array_equal(sharp, fsc(first, second, HALVES.mask))
    assert sharp[6:9].min() > 0.8
    assert flat[6:9].max() < 0.5
