"""Pose grids of one iteration: HEALPix x in-plane angle over rotations, a cubic lattice over shifts.

The rotation grid lives in the tomogram frame, so all particles of a series share it; one random rotation
per iteration moves it as a whole, so final angles do not stick to grid points.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.priors import log_gaussian
from tiltwise.geometry.grids import (
    angular_step_deg,
    local_orientations,
    orientation_angles,
    orientation_children,
    orientation_indices,
    shift_children,
    translation_ball,
)
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.geometry.symmetry import distance_to_mates_deg


@dataclass(frozen=True, slots=True)
class PoseGrid:
    """Sampling of one iteration.  Coarse cells have `8^oversampling` children over rotations and over shifts."""

    order: int
    oversampling: int
    perturbation: NDArray[np.float64]
    """(3, 3) rotation that right-multiplies every grid point"""
    local_sigma_deg: float | None
    """width of the Gaussian prior about a particle's last orientation; None searches globally"""
    shift_range_angstrom: float
    shift_step_angstrom: float
    shift_offset_angstrom: NDArray[np.float64]
    """(3,) displacement of the whole lattice of shifts"""
    mates: NDArray[np.float64] = field(default_factory=lambda: np.eye(3)[None])
    """(M, 3, 3) rotations g: local searches look about `R g` for all of them, R being the last orientation"""

    def at_order(self, order: int, coarser: float) -> PoseGrid:
        """A grid of lower order whose shifts are `coarser` times as far apart, and cover those of this one."""
        step = self.shift_step_angstrom * coarser
        reach = self.shift_range_angstrom + np.sqrt(3.0) / 2.0 * step
        return replace(self, order=order, shift_step_angstrom=step, shift_range_angstrom=reach)

    @property
    def coarse_step_deg(self) -> float:
        """Angular step of the first pass."""
        return angular_step_deg(self.order)

    @property
    def fine_step_deg(self) -> float:
        """Angular step of the second pass."""
        return angular_step_deg(self.order) / 2.0**self.oversampling

    @property
    def fine_shift_step_angstrom(self) -> float:
        """Step of the shifts of the second pass."""
        return self.shift_step_angstrom / 2.0**self.oversampling

    @property
    def log_cell_volume(self) -> float:
        """Log of the volume of a fine cell in rad^3 Å^3: rotations fill 8 pi^2."""
        cells = 72.0 * 8.0 ** (self.order + self.oversampling)
        return float(np.log(8.0 * np.pi**2 / cells * self.fine_shift_step_angstrom**3))

    def shifts(self) -> NDArray[np.float64]:
        """(T, 3) coarse trial shifts in Å."""
        return translation_ball(self.shift_range_angstrom, self.shift_step_angstrom) + self.shift_offset_angstrom

    def fine_shifts(self, coarse: NDArray[np.float64]) -> NDArray[np.float64]:
        """(8^v T, 3) children of coarse shifts."""
        if self.oversampling == 0:
            return coarse
        return (coarse[:, None] + shift_children(self.shift_step_angstrom, self.oversampling)).reshape(-1, 3)

    def rotations(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(R, 3) unperturbed grid angles in degrees and (R, 3, 3) rotations of the whole grid."""
        angles = orientation_angles(self.order)
        return angles, euler_to_matrix(angles) @ self.perturbation

    def asymmetric_rotations(
        self, symmetry: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same without cells that a point group (G, 3, 3) of the reference maps onto others."""
        if symmetry is None:
            return self.rotations()
        # points are E p, their mates E p g = E (p g p^T) p
        angles = orientation_angles(self.order, self.perturbation @ symmetry @ self.perturbation.T)
        return angles, euler_to_matrix(angles) @ self.perturbation

    def near(self, centre: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The same for the cells within three sigma of a rotation or its mates; the nearest cell if none is."""
        assert self.local_sigma_deg is not None
        reach = 3.0 * self.local_sigma_deg
        found = [local_orientations(self.order, centre @ g @ self.perturbation.T, reach) for g in self.mates]
        angles = np.concatenate(found)
        if len(found) > 1:  # cells near several mates count once
            angles = angles[np.unique(orientation_indices(self.order, angles), return_index=True)[1]]
        return angles, euler_to_matrix(angles) @ self.perturbation

    def children(self, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """(8^v R, 3, 3) rotations of the children of coarse cells."""
        if self.oversampling == 0:
            return np.asarray(euler_to_matrix(angles) @ self.perturbation)
        fine = orientation_children(self.order, angles, self.oversampling).reshape(-1, 3)
        return np.asarray(euler_to_matrix(fine) @ self.perturbation)

    def log_prior(self, rotations: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float32]:
        """(R,) Gaussian log prior on the angle to the nearest mate of `centre`; zeros in a global search."""
        if self.local_sigma_deg is None:
            return np.zeros(len(rotations), np.float32)
        angle = distance_to_mates_deg(rotations, centre, self.mates)
        return log_gaussian(angle, self.local_sigma_deg).astype(np.float32)
