"""Warp's model of a tilt series: where a point of the volume is seen, and how a particle there is turned.

A point r (Å from the corner) at tilt t is seen at

    q = M_t (r - V / 2 + warp(r, dose_t)) + offset_t + I / 2 - movement(q, t),   M_t = Rz(axis) Ry(-angle) Rx(level)

with V and I the sizes of volume and image in Å, and defocus grows with the third component of the bracket (falls, where
angles are inverted).  Orientations are turned by Rz(GridAngleZ) Ry(GridAngleY) Rx(GridAngleX) M_t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.rotations import rotation_x, rotation_y, rotation_z
from tiltwise.interchange.spline import fixed_axis, grid_values
from tiltwise.io.foreign.warp import WarpSeries

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WarpModel:
    """A series with the sizes that its files may not have."""

    series: WarpSeries
    volume_angstrom: F64
    """(3,)"""
    image_angstrom: F64
    """(2,)"""

    @property
    def n_tilts(self) -> int:
        """All tilts, those that are not used too."""
        return len(self.series.tilt_deg)

    def tilt_rotations(self) -> F64:
        """M_t, `(F, 3, 3)`: of positions."""
        series = self.series
        tilt = rotation_z(series.axis_deg) @ rotation_y(-(series.tilt_deg + series.level_y_deg))
        return np.asarray(tilt @ rotation_x(series.level_x_deg))

    def view_rotations(self) -> F64:
        """(F, 3, 3): of orientations at the centre of the volume."""
        x, y, z = (self.per_tilt(f"GridAngle{axis}") for axis in "XYZ")
        return np.asarray(rotation_z(z) @ rotation_y(y) @ rotation_x(x) @ self.tilt_rotations())

    def per_tilt(self, name: str, default: float = 0.0) -> F64:
        """(F,) values of a grid at the centre of the volume; `default` where there is no such grid."""
        grid = self.series.grids.get(name)
        if grid is None:
            return np.full(self.n_tilts, default)
        centre = np.full((self.n_tilts, 3), 0.5)
        centre[:, 2] = self._steps()
        return grid_values(grid, centre)

    def local(self, name: str) -> bool:
        """Whether a grid differs from place to place."""
        grid = self.series.grids.get(name)
        if grid is None:
            return False
        axes = tuple(range(1, grid.values.ndim))  # the slowest axis is time
        return bool((np.ptp(grid.values, axis=axes) > 0).any())

    def project(self, positions: F64) -> tuple[F64, F64]:
        """Image positions `(P, F, 2)` in Å and depth `(P, F)` in Å of points `(P, F, 3)` in Å from the corner."""
        rotations, steps = self.tilt_rotations(), self._steps()
        dose = self.series.dose
        span = float(np.ptp(dose))
        times = (dose - dose.min()) / span if span > 0 else np.zeros(self.n_tilts)
        image = np.empty((len(positions), self.n_tilts, 2))
        depth = np.empty((len(positions), self.n_tilts))
        for tilt in range(self.n_tilts):
            points = positions[:, tilt]
            centred = points - self.volume_angstrom / 2.0
            for axis, name in enumerate(("GridVolumeWarpX", "GridVolumeWarpY", "GridVolumeWarpZ")):
                centred[:, axis] += self._slice(name, times[tilt], points / self.volume_angstrom)
            turned = centred @ rotations[tilt].T
            seen = turned[:, :2] + self.image_angstrom / 2.0
            seen[:, 0] += self.series.offset_x_angstrom[tilt]
            seen[:, 1] += self.series.offset_y_angstrom[tilt]
            where = seen / self.image_angstrom
            image[:, tilt, 0] = seen[:, 0] - self._slice("GridMovementX", steps[tilt], where)
            image[:, tilt, 1] = seen[:, 1] - self._slice("GridMovementY", steps[tilt], where)
            depth[:, tilt] = turned[:, 2]
        return image, depth

    def _slice(self, name: str, at: float, where: F64) -> F64 | float:
        grid = self.series.grids.get(name)
        if grid is None or not grid.values.any():
            return 0.0
        return grid_values(fixed_axis(grid, at), where)

    def _steps(self) -> F64:
        """(F,) coordinate of every tilt along the slowest axis of grids that follow the tilts."""
        return np.linspace(0.0, 1.0, self.n_tilts) if self.n_tilts > 1 else np.zeros(1)
