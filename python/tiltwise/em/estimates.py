"""What is known of the pose of one particle after a search, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import Modes
from tiltwise.geometry.rotations import angular_distance_deg, nearest_rotation
from tiltwise.kernels.api import F32, PosteriorSummary


@dataclass(slots=True)
class PoseEstimate:
    """Posterior of one particle in a few numbers."""

    rotation: NDArray[np.float64]
    """(3, 3) mean rotation of the main mode, reference to tomogram"""
    shift_angstrom: NDArray[np.float64]
    """(3,) mean shift of the main mode along tomogram axes"""
    log_evidence: float
    """log of the integral of likelihood x prior over rad^3 Å^3"""
    max_probability: float
    """share of the best pose of a grid, or of the main mode"""
    n_significant: int
    """poses of a grid, or modes"""
    n_effective: float
    """effective number of poses of the grid, or of modes: 1 / sum of squared shares"""
    std_deg: float
    """standard deviation of the main mode over one axis of rotation (rms of three)"""
    std_angstrom: float
    """the same over one axis of the shift"""
    square_offset: float
    """posterior mean of the squared displacement from the stored coordinate, Å^2"""
    sharp: bool
    """whether the posterior is a few Gaussians instead of a grid"""

    def turned(self, frame: NDArray[np.float64]) -> PoseEstimate:
        """The same seen from outside of the frame it is in; `frame` (3, 3) leads out of it."""
        return replace(self, rotation=frame @ self.rotation, shift_angstrom=frame @ self.shift_angstrom)


def of_grid(
    grid: PoseGrid,
    rotations: NDArray[np.float64],
    shifts: NDArray[np.float64],
    weights: F32,
    displacement: NDArray[np.float64],
    summary: PosteriorSummary,
) -> PoseEstimate:
    """From weights (R, T) on the fine grid.

    The pose is the mean of the main mode, poses within 2.5 fine steps of the best one, so the grid does not show.
    """
    best, best_shift = np.unravel_index(int(np.argmax(weights)), weights.shape)
    near = angular_distance_deg(rotations, rotations[best]) <= 2.5 * grid.fine_step_deg
    close = np.linalg.norm(shifts - shifts[best_shift], axis=1) <= 2.5 * grid.fine_shift_step_angstrom
    mode = weights * np.outer(near, close)
    by_rotation, by_shift = mode.sum(axis=1) / mode.sum(), mode.sum(axis=0) / mode.sum()
    rotation, shift = nearest_rotation(np.einsum("r,rij->ij", by_rotation, rotations)), by_shift @ shifts
    # cells are as wide as the steps
    variance_deg = by_rotation @ angular_distance_deg(rotations, rotation) ** 2 / 3 + grid.fine_step_deg**2 / 12
    variance = by_shift @ ((shifts - shift) ** 2).sum(axis=1) / 3 + grid.fine_shift_step_angstrom**2 / 12
    return PoseEstimate(
        rotation=rotation,
        shift_angstrom=shift,
        log_evidence=summary.log_evidence + grid.log_cell_volume,
        max_probability=summary.max_probability,
        n_significant=summary.n_significant,
        n_effective=float(weights.sum(dtype=np.float64) ** 2 / np.vdot(weights, weights)),
        std_deg=float(np.sqrt(variance_deg)),
        std_angstrom=float(np.sqrt(variance)),
        square_offset=float(weights.sum(axis=0) @ ((displacement + shifts) ** 2).sum(axis=1) / weights.sum()),
        sharp=False,
    )


def of_modes(modes: Modes, share: NDArray[np.float64], displacement: NDArray[np.float64]) -> PoseEstimate:
    """From Gaussians that hold `share` (n,) of the posterior."""
    main = int(np.argmax(share))
    covariance = modes.covariance
    spread = np.trace(covariance[:, 3:, 3:], axis1=1, axis2=2)
    square = ((displacement + modes.shift) ** 2).sum(axis=1)
    return PoseEstimate(
        rotation=modes.rotation[main],
        shift_angstrom=modes.shift[main],
        log_evidence=float(np.logaddexp.reduce(modes.log_mass)),
        max_probability=float(share.max()),
        n_significant=len(share),
        n_effective=float(share.sum() ** 2 / (share @ share)),
        std_deg=float(np.degrees(np.sqrt(np.trace(covariance[main, :3, :3]) / 3))),
        std_angstrom=float(np.sqrt(np.trace(covariance[main, 3:, 3:]) / 3)),
        square_offset=float(share @ (square + spread)),
        sharp=True,
    )
