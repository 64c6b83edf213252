"""Comparisons that fail on NaN and tell where the worst difference is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

EPS32 = float(np.finfo(np.float32).eps)
EPS64 = float(np.finfo(np.float64).eps)


def relative_l2(found: ArrayLike, expected: ArrayLike) -> float:
    """|found - expected| / |expected|; the absolute norm where expected is zero."""
    expected = np.asarray(expected)
    scale = float(np.linalg.norm(expected.ravel()))
    return float(np.linalg.norm(np.asarray(found).ravel() - expected.ravel())) / (scale or 1.0)


def assert_close(found: ArrayLike, expected: ArrayLike, tolerance: float) -> None:
    """Fail unless the relative L2 difference is at most `tolerance`; NaN fails."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        pytest.fail(f"shape {found.shape}, expected {expected.shape}")
    error = relative_l2(found, expected)
    if not error <= tolerance:
        difference = np.abs(found - expected)
        worst = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference)), found.shape)
        pytest.fail(
            f"relative L2 difference {error:.3g} exceeds {tolerance:.3g}; "
            f"worst at {tuple(map(int, worst))}: {found[worst]}, expected {expected[worst]}"
        )
