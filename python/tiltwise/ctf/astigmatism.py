"""Defocus as RELION writes it (U, V, angle) and as it is fitted (mean and two terms of the astigmatism, Eq. 16)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.model import TiltSeries

F64 = NDArray[np.float64]


def defocus_terms(series: TiltSeries) -> F64:
    """(F, 3) mean defocus and astigmatism terms in Å: half the difference of U and V times cos and sin of 2 angle."""
    mean = 0.5 * (series.defocus_u_angstrom + series.defocus_v_angstrom)
    half = 0.5 * (series.defocus_u_angstrom - series.defocus_v_angstrom)
    angle = np.radians(2.0 * series.defocus_angle_deg)
    return np.stack([mean, half * np.cos(angle), half * np.sin(angle)], axis=1)


def with_defocus(series: TiltSeries, terms: F64, changed: NDArray[np.bool_]) -> TiltSeries:
    """The series with new `terms` (F, 3) in the tilts `changed` (F,); U is the larger defocus, at the angle."""
    half = np.hypot(terms[:, 1], terms[:, 2])
    angle = np.degrees(0.5 * np.arctan2(terms[:, 2], terms[:, 1]))
    return replace(
        series,
        defocus_u_angstrom=np.where(changed, terms[:, 0] + half, series.defocus_u_angstrom),
        defocus_v_angstrom=np.where(changed, terms[:, 0] - half, series.defocus_v_angstrom),
        defocus_angle_deg=np.where(changed & (half > 0), angle, series.defocus_angle_deg),
    )
