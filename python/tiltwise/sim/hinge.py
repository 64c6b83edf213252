"""A phantom that bends: one domain turns about a hinge, the rest stays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.sim.density import GaussianDensity
from tiltwise.sim.specimen import rotation_from_vector

F64 = NDArray[np.float64]

DOMAIN_SHARE = 0.4
"""Scatterers of the domain that turns, of all."""
HINGE_SHARE = 0.05
"""Half-width over the longest extent of the layer between the domains, whose middle is the hinge."""


@dataclass(frozen=True, slots=True)
class Hinge:
    """Two rigid parts, and the axis one of them turns about."""

    still: GaussianDensity
    domain: GaussianDensity
    point_angstrom: F64
    """(3,) of the axis"""
    axis: F64
    """(3,) unit vector"""

    @classmethod
    def of(cls, density: GaussianDensity) -> Hinge:
        """Domain: the scatterers farthest along the longest extent; it turns in the plane of the two longest ones."""
        points = density.position_angstrom
        centred = points - points.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(3)])
        along = centred @ axes[:, 2]
        limit = np.quantile(along, 1.0 - DOMAIN_SHARE)
        near = np.abs(along - limit) < HINGE_SHARE * np.ptp(along)
        far = along > limit
        return cls(_some(density, ~far), _some(density, far), points[near].mean(axis=0), axes[:, 0])

    def turned(self, position_px: F64, rotation: F64, angle_deg: F64, pixel_size: float) -> tuple[F64, F64]:
        """Positions (P, 3) and rotations (P, 3, 3) of domains turned by angles (P,), from those of their particles."""
        turn = rotation_from_vector(np.radians(angle_deg)[:, None] * self.axis)
        moved = self.point_angstrom - turn @ self.point_angstrom
        return position_px + np.einsum("pij,pj->pi", rotation, moved) / pixel_size, rotation @ turn


def _some(density: GaussianDensity, chosen: NDArray[np.bool_]) -> GaussianDensity:
    return replace(
        density,
        position_angstrom=density.position_angstrom[chosen],
        weight=density.weight[chosen],
        kind=density.kind[chosen],
    )
