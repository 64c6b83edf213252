"""A part of the particle in the middle of its own box: where it is, and how large."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.maps.masks import CUT_AWAY, INSIDE
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import pixel_sizes, poses_of

Centre = Literal["mask", "box"]


@dataclass(frozen=True, slots=True)
class Frame:
    """Box about a part of the particle, at a whole number of voxels from the box of the particle."""

    offset_px: NDArray[np.int64]
    """(3,) x, y, z of the new centre from that of the particle's box, in voxels of the map"""
    pixel_size: float
    mask: NDArray[np.float32]
    """(N, N, N) of the part, in the new box"""
    diameter_angstrom: float
    """of the smallest sphere about the new centre that holds the part"""

    @classmethod
    def of(cls, mask: NDArray[np.float32], pixel_size: float, centre: Centre) -> Frame:
        """Frame of a mask (N, N, N) about its centre of mass, or with the box where it is.

        Raises
        ------
        DataError
            if the mask does not fit into a box about its centre.
        """
        box = len(mask)
        axis = np.arange(box) - box // 2
        offset = np.zeros(3, np.int64)
        if centre == "mask":
            sums = [mask.sum(axis=tuple(a for a in range(3) if a != along), dtype=np.float64) for along in (2, 1, 0)]
            offset = np.array([round(float(one @ axis / one.sum())) for one in sums], np.int64)
        moved = shifted(mask, offset)
        lost = 1.0 - float(moved.sum(dtype=np.float64) / mask.sum(dtype=np.float64))
        if lost > CUT_AWAY:
            raise DataError(
                "the part in the focus mask does not fit into a box about its centre",
                where="--focus",
                expected=f"a mask whose centre is nearer to that of the box of {box} voxels",
                found=f"{lost:.0%} of it beyond the edge, {np.linalg.norm(offset):.0f} voxels from the centre",
                fix="use a larger --crop, with a mask of that size; or --focus-center box",
            )
        z, y, x = np.nonzero(moved >= min(INSIDE, float(moved.max())))
        radius = float(np.sqrt((axis[z] ** 2 + axis[y] ** 2 + axis[x] ** 2).max()))
        diameter = 2.0 * max(radius, 1.0) * pixel_size
        return cls(offset, pixel_size, moved, min(diameter, box * pixel_size))

    @property
    def offset_angstrom(self) -> NDArray[np.float64]:
        """(3,) the same in Å."""
        return np.asarray(self.offset_px * self.pixel_size, np.float64)

    def moved(self, density: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of the particle in the box of the part; zero where that box has no map."""
        return shifted(density, self.offset_px)

    def particles(self, optset: OptimisationSet) -> OptimisationSet:
        """Particles whose stored coordinates are the centres of their parts: x + R o, without origins."""
        rotation, position = poses_of(optset)
        position = position + rotation @ self.offset_angstrom
        particles = optset.particles
        moved = replace(
            particles,
            coordinate_px=position / pixel_sizes(optset)[:, None],
            origin_angstrom=np.zeros_like(particles.origin_angstrom),
        )
        return replace(optset, particles=moved)


def shifted(density: NDArray[np.float32], offset_px: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, N, N) about a point at `offset_px` (x, y, z) from the centre; zero outside of `density`."""
    box = len(density)
    result = np.zeros_like(density)
    to, source = [], []
    for along in offset_px[::-1]:
        low, high = max(0, -int(along)), min(box, box - int(along))
        to.append(slice(low, max(high, low)))
        source.append(slice(low + int(along), max(high, low) + int(along)))
    result[tuple(to)] = density[tuple(source)]
    return result
