"""Memory of the evidence about CTFs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiltwise.ctf.memory import EvidenceMemory, pixels_within
from tiltwise.errors import ResourceError
from tiltwise.spectral.disc import FourierDisc

PLAN = EvidenceMemory(tilts=60, folds=5, optics=1, terms=5, references=10**9, limit=4 * 10**9)


def test_pixels_of_a_disc() -> None:
    for radius in (20.5, 60.0):
        assert pixels_within(radius) == pytest.approx(len(FourierDisc.create(128, radius)), rel=0.02)


def test_fewer_blocks_are_judged_where_memory_is_short() -> None:
    pixels = pixels_within(192.0)
    judged = [replace(PLAN, limit=int(limit)).judged(pixels) for limit in np.linspace(3.05e9, 4e9, 24)]
    assert judged == sorted(judged)
    assert judged[-1] == 5
    assert set(judged) >= {2, 3, 4, 5}
    for limit, count in zip(np.linspace(3.05e9, 4e9, 24), judged, strict=True):
        assert PLAN.needed(pixels, count) <= limit
        assert count == 5 or PLAN.needed(pixels, count + 1) > limit


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(ResourceError, match="not enough memory for the evidence"):
        PLAN.judged(pixels_within(256.0))
