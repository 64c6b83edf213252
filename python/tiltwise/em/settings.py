"""What an E-step works on: how finely, and which particles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.grid import PoseGrid
from tiltwise.em.orientation_prior import OrientationPrior
from tiltwise.em.priors import PosePrior, log_gaussian
from tiltwise.errors import ConfigError
from tiltwise.extract.images import ParticleImages
from tiltwise.model import Views


@dataclass(slots=True)
class Settings:
    """What one E-step needs besides particles and references."""

    grid: PoseGrid
    coarse_radius: float
    fine_radius: float
    map_radius: float
    """cycles per box up to which images enter the reconstruction, at least `fine_radius`"""
    pixel_size: float
    offset_sigma_angstrom: float
    fraction: float = 0.999
    max_rotations: int = 4000
    """coarse cells kept for the second pass at most"""
    symmetry: NDArray[np.float64] | None = None
    """(G, 3, 3) point group of the reference: global searches leave out equivalent poses"""
    climb: bool = True
    """False searches every particle on the grid"""
    follow: bool = False
    """True climbs from the last poses without a coarse pass, where the posterior there is Gaussian"""
    fixed: bool = False
    """True takes the last poses as they are: no search"""
    threads: int = 1

    def __post_init__(self) -> None:
        """Raises ConfigError for numbers an E-step cannot work with."""
        numbers = {
            "coarse_radius": self.coarse_radius,
            "fine_radius": self.fine_radius,
            "map_radius": self.map_radius,
            "pixel_size": self.pixel_size,
            "offset_sigma_angstrom": self.offset_sigma_angstrom,
        }
        for name, value in numbers.items():
            if not 0.0 < value < np.inf:
                raise ConfigError("an E-step needs positive numbers", where=name, found=f"{value:g}")
        sigma = self.grid.local_sigma_deg
        if sigma is not None and not 0.0 < sigma < np.inf:
            raise ConfigError(
                "the width of the angular prior is not positive", where="local_sigma_deg", found=f"{sigma:g}"
            )
        if self.map_radius < max(self.coarse_radius, self.fine_radius):
            raise ConfigError(
                "images enter the map with fewer shells than are scored",
                where="map_radius",
                expected=f"at least {max(self.coarse_radius, self.fine_radius):g}",
                found=f"{self.map_radius:g}",
            )

    def within(self, radius: float) -> Settings:
        """The same with radii up to that of the images: there are no components beyond."""
        return replace(
            self,
            coarse_radius=min(self.coarse_radius, radius),
            fine_radius=min(self.fine_radius, radius),
            map_radius=min(self.map_radius, radius),
        )

    def pose_prior(self, group: Group, members: NDArray[np.intp]) -> PosePrior:
        """Priors of some members of a group."""
        sigma = self.grid.local_sigma_deg
        return PosePrior(
            group.rotations[members],
            group.displacements_angstrom[members],
            None if sigma is None else np.radians(sigma),
            self.offset_sigma_angstrom,
            None if group.orientation is None else group.orientation.take(members),
            self.grid.mates,
        )

    def level_radius(self, order: int) -> float:
        """Radius at which a global search scores a level: what its steps resolve, at least 5 shells."""
        return min(max(self.coarse_radius / 2.0 ** (self.grid.order - order), 5.0), self.coarse_radius)

    def shift_prior(self, displacement: NDArray[np.float64], shifts: NDArray[np.float64]) -> NDArray[np.float32]:
        """(T,) Gaussian log prior on the total displacement from the stored coordinate in Å, less that of no shift.

        Far from the coordinate single precision has room for the differences only.
        """
        total = np.linalg.norm(displacement + shifts, axis=1)
        difference = log_gaussian(total, self.offset_sigma_angstrom) - self.log_prior_of_no_shift(displacement)
        return difference.astype(np.float32)

    def log_prior_of_no_shift(self, displacement: NDArray[np.float64]) -> float:
        """What `shift_prior` leaves out."""
        return float(log_gaussian(np.linalg.norm(displacement[None], axis=1), self.offset_sigma_angstrom)[0])


@dataclass(slots=True)
class Group:
    """Particles of one series and half set, with their present poses."""

    series: Views
    noise_power: NDArray[np.float64]
    """(F, S) sigma^2"""
    members: NDArray[np.intp]
    rotations: NDArray[np.float64]
    """(n, 3, 3) reference to tomogram"""
    displacements_angstrom: NDArray[np.float64]
    """(n, 3) present position minus stored coordinate, along tomogram axes"""
    load: Callable[[int], ParticleImages]
    """images of member i at its present position"""
    orientation: OrientationPrior | None = None
    """what the particle file says of the n orientations"""
    audited: int = 0
    """how many members, the first, a global search looks at in full as well, to know what it misses"""
    frames: NDArray[np.float64] | None = None
    """(n, 3, 3) rotations from the frames of the views into the tomogram, if they differ: poses are in these frames"""

    def within(self, frames: NDArray[np.float64]) -> Group:
        """The same with poses and priors in the frames of the views; `frames` (n, 3, 3) lead out of them."""
        inwards, prior = np.swapaxes(frames, 1, 2), self.orientation
        return replace(
            self,
            rotations=inwards @ self.rotations,
            displacements_angstrom=(inwards @ self.displacements_angstrom[..., None])[..., 0],
            orientation=None if prior is None else replace(prior, frame=inwards @ prior.frame),
            frames=frames,
        )

    def rotation_prior(self, grid: PoseGrid, local: int, rotations: NDArray[np.float64]) -> NDArray[np.float32]:
        """(R,) log prior of rotations (R, 3, 3) of member `local`: about the last one, and of the particle file."""
        result = grid.log_prior(rotations, self.rotations[local])
        if self.orientation is not None:
            result += self.orientation.take(np.array([local])).log(rotations).astype(np.float32)
        return result
