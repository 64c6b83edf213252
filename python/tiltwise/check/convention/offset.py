"""One displacement that all particles share: coordinates that count from another pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.check.convention.readings import Reading
from tiltwise.check.convention.scoring import Level, Scores

F64 = NDArray[np.float64]

_STEPS = 5
_RIDGE = 1e-9


@dataclass(frozen=True, slots=True)
class SharedOffset:
    """Where particles are, as `stated + tomogram + rotation @ reference`."""

    tomogram_px: F64
    """(3,) unbinned pixels along the axes of the tomogram"""
    covariance_px2: F64
    """(3, 3) from the scatter of the particles"""
    reference_angstrom: F64
    """(3,) in the frame of the reference: how far its particle lies off its centre"""

    @property
    def sigma_px(self) -> F64:
        """(3,) standard deviations."""
        return np.sqrt(np.diag(self.covariance_px2))

    def chi2(self, candidate: F64) -> float:
        """Squared distance from a candidate (3,) in standard deviations."""
        rest = self.tomogram_px - candidate
        return float(rest @ np.linalg.solve(self.covariance_px2, rest))


def shared_offset(level: Level, readings: Sequence[Reading], scores: Scores) -> SharedOffset | None:
    """Best offset by Newton steps on the likelihood of all images; None if nothing holds it.

    Particles are displaced by `t + R_p o`, t along the axes of the tomogram, o along those of the reference.  Random
    orientations tell the two apart; the error of t is that of the scatter of the particles.
    """
    rotation = np.concatenate([reading.rotation for reading in readings])
    n = len(rotation)
    design = np.concatenate([np.broadcast_to(np.eye(3), (n, 3, 3)), rotation], axis=2)  # (P, 3, 6)
    useful = scores.gain > 0
    if not useful.any():
        return None
    solution = np.zeros(6)
    weight = scores.gain * useful
    solution[:3] = (weight[:, None] * scores.shift_angstrom).sum(axis=0) / weight.sum()
    inverse = np.eye(6)
    for _ in range(_STEPS):
        gradient, information = level.pulls(readings, scores, design @ solution)
        scored = np.einsum("pij,pi->pj", design, gradient)
        hessian = np.einsum("pia,pij,pjb->ab", design, information, design, optimize=True)
        scale = float(np.trace(hessian)) / 6
        if not scale > 0:
            return None
        inverse = np.linalg.inv(hessian + _RIDGE * scale * np.eye(6))
        step = inverse @ scored.sum(axis=0)
        # A step is not to leave the peak.
        longest = float(np.abs(step).max())
        solution += step * min(1.0, level.pixel_size / max(longest, 1e-12))
        if longest < 3e-3 * level.pixel_size:
            break
    spread = inverse @ (scored.T @ scored) @ inverse
    pixel = readings[0].series.pixel_size_angstrom
    return SharedOffset(solution[:3] / pixel, spread[:3, :3] / pixel**2, solution[3:])
