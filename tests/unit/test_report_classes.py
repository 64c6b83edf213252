"""Surfaces of classes side by side."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.report.surfaces import common_contour, without_dust
from tiltwise.spectral.masks import soft_sphere


def test_the_contour_parts_particle_and_solvent_and_stays_above_noise() -> None:
    particle = np.asarray(soft_sphere(32, 8.0, 4.0), np.float32)
    assert 0.3 < common_contour(particle, [0.01, 0.02, 5.0]) < 0.7
    assert common_contour(particle, [0.1, 0.3, 5.0]) == pytest.approx(0.9)
    # a map of nothing has a contour above everything
    assert common_contour(np.zeros((8, 8, 8), np.float32), [0.0]) > 0


def test_dust_is_what_is_tiny_beside_the_largest_piece() -> None:
    density = np.zeros((24, 24, 24), np.float32)
    density[4:12, 4:12, 4:12] = 1.0
    density[12, 12, 12] = 1.0  # touches at a corner: no piece of its own
    density[16:20, 16:20, 16:20] = 1.0
    density[2, 20, 20] = 2.0
    cleaned = without_dust(density, 0.5)
    assert cleaned[2, 20, 20] == 0.0
    density[2, 20, 20] = 0.0
    np.testing.assert_array_equal(cleaned, density)
    np.testing.assert_array_equal(without_dust(density, 3.0), density)
