"""How finely the next iteration searches, and when there is nothing left to gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import climbing_radii
from tiltwise.geometry.grids import MAX_ORDER
from tiltwise.geometry.rotations import rotation_x, rotation_y, rotation_z
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.maps.spectra import last_shell_above, resolution_shell

MOSTLY_SHARP = 0.9
COARSE_RADII = 1.5
"""Radius of a coarse pass before climbs over that at which they start."""


@dataclass(slots=True)
class Schedule:
    """State of the sampling between iterations; plain numbers, so that a checkpoint can hold it."""

    order: int
    local_order: int
    oversampling: int
    sigma_ang_deg: float | None
    """width asked for by the user; None lets local searches use twice the fine step"""
    offset_range_angstrom: float
    offset_step_angstrom: float
    resolution_shell: int
    stalled: int = 0
    """iterations since the resolution last improved"""
    incr_size: int = 10
    """shells beyond the resolution that are used"""
    best_shell143: int = 0
    """last shell at which the FSC has been above 0.143 so far"""
    sharp: float = 0.0
    """share of the particles whose posterior did not need a grid"""
    settled: bool = False
    """whether a global search has found nearly all particles where they were, as sharp peaks"""
    climb: bool = True
    """peaks of the coarse pass are climbed where they are sharp; False scores finer grids only"""
    near: bool = False
    """poses were good from the start: once they stand still, searches begin at the last ones alone"""
    still: bool = False
    """whether they stood still in the last iteration"""
    fixed: bool = False
    """poses are given: there is no sampling, and refinement ends when the resolution does not improve"""
    converged: bool = False

    @property
    def local(self) -> bool:
        """Whether searches stay near the last orientations."""
        return self.sigma_ang_deg is not None or self.order >= self.local_order or self.settled

    @property
    def follows(self) -> bool:
        """Whether the next search begins at the last poses alone."""
        return self.near and self.still and self.local and self.sharp >= MOSTLY_SHARP

    def begin_near(self, curve: NDArray[np.float64]) -> None:
        """Starts from poses whose half maps have an FSC `curve`."""
        self.near, self.order = True, max(self.order, self.local_order)
        self.resolution_shell = resolution_shell(curve)
        self.best_shell143 = last_shell_above(curve, 0.143)
        self.incr_size = max(self.incr_size, self.best_shell143 - self.resolution_shell + 5)

    def fine_step_deg(self) -> float:
        """Angular step of the second pass."""
        return 60.0 / 2.0**self.order / 2.0**self.oversampling

    def angular_sigma_deg(self) -> float:
        """Width of the angular prior of local searches."""
        sigma = 2.0 * self.fine_step_deg()
        if self.sigma_ang_deg is None:
            return sigma
        return min(sigma, self.sigma_ang_deg) if self.order > self.local_order else self.sigma_ang_deg

    def why_converged(self, last: Mapping[str, float]) -> str:
        """In words, from the figures of the last iteration."""
        if self.fixed:
            return "converged: no gain in resolution with the poses of the file"
        if last["sharp"] >= MOSTLY_SHARP:
            found = f"poses moved by {last['change_deg']:.2f}° and {last['change_angstrom']:.2f} Å"
            return f"converged: no gain in resolution, and {found} in the last iteration"
        return (
            f"converged: no gain in resolution, and steps of {self.fine_step_deg():.2f}° are finer than the "
            f"{last['accuracy_deg']:.2f}° the data resolve"
        )

    def grid(self, rng: np.random.Generator, relaxed: str = "C1") -> PoseGrid:
        """Grid of the next iteration, moved at random by up to half a coarse step.

        Local searches look about all mates of the last orientation under the point group `relaxed`.
        """
        coarse = 60.0 / 2.0**self.order
        turn, move = rng.uniform(-0.5, 0.5, 3) * coarse, rng.uniform(-0.5, 0.5, 3) * self.offset_step_angstrom
        perturbation = rotation_z(turn[0]) @ rotation_y(turn[1]) @ rotation_x(turn[2])
        sigma = self.angular_sigma_deg() if self.local else None
        return PoseGrid(
            order=self.order,
            oversampling=self.oversampling,
            perturbation=np.asarray(perturbation),
            local_sigma_deg=sigma,
            shift_range_angstrom=self.offset_range_angstrom,
            shift_step_angstrom=self.offset_step_angstrom,
            shift_offset_angstrom=move,
            mates=symmetry_matrices(relaxed),
        )

    def coarse_radius(self, diameter_angstrom: float, box_angstrom: float, nyquist: float) -> float:
        """Shells the coarse pass needs: structure of the particle's size resolves its angular step.

        Never more than 3/4 of those of the second pass, half of its pixels: with less information more cells
        stay significant, and no right one is lost.  Local searches that end in a climb take so few shells that the
        hill is as wide as a cell: climbs at full resolution tell the peaks apart.
        """
        resolution = np.pi * diameter_angstrom * (60.0 / 2.0**self.order) / 360.0 / 1.2
        share = 0.75 if self.oversampling > 0 else 1.0
        limit = np.ceil(share * self.fine_radius(nyquist))
        if self.climb and self.local:
            return float(min(np.ceil(COARSE_RADII * climbing_radii(60.0 / 2.0**self.order, nyquist)[0]), limit))
        return float(min(np.ceil(box_angstrom / resolution), limit))

    def fine_radius(self, nyquist: float) -> float:
        """Shells the second pass and the reconstruction use."""
        return float(min(self.resolution_shell + self.incr_size, nyquist))

    def update(
        self,
        shell: int,
        accuracy_deg: float,
        accuracy_angstrom: float,
        change_deg: float,
        change_angstrom: float,
        curve: NDArray[np.float64],
        sharp: float = 0.0,
    ) -> None:
        """Takes in one iteration: refines the sampling when the resolution no longer improves, or converges.

        `accuracy_*` are the errors the data cannot tell from none (99 % confidence); sampling much finer
        than 3/4 of them gains nothing, and there are no grids beyond `MAX_ORDER`.  Where nearly all posteriors
        are `sharp` the sampling does not limit poses: it stays, and refinement ends when poses stand still.
        """
        self.sharp = sharp
        self.still = change_deg <= accuracy_deg and change_angstrom <= accuracy_angstrom
        # searching everywhere once more would find the same
        self.settled = self.settled or (sharp >= MOSTLY_SHARP and change_deg <= 15.0 / 2.0**self.order)
        last143 = last_shell_above(curve, 0.143)
        # Poses that are not tied to a grid improve while noisy shells do, which the strict threshold does not show.
        gained = shell > self.resolution_shell or (sharp >= MOSTLY_SHARP and last143 > self.best_shell143)
        self.best_shell143 = max(self.best_shell143, last143)
        self.stalled = 0 if gained else self.stalled + 1
        self.resolution_shell = max(shell, self.resolution_shell) if gained else shell
        self.incr_size = max(self.incr_size, last143 - shell + 5)
        if self.stalled < 1:
            return
        if self.fixed:
            self.converged = True
            return
        if sharp >= MOSTLY_SHARP and self.local:
            self.converged = self.still or self.stalled >= 3
            return
        if self.fine_step_deg() < 0.75 * accuracy_deg or self.order >= MAX_ORDER:
            self.converged = self.stalled >= 2
            return
        self.order += 1
        self.stalled = 0
        fine = 2.0**self.oversampling
        old_step = self.offset_step_angstrom
        step = max(min(1.5, 0.75 * accuracy_angstrom) * fine, old_step / 2)
        reach = np.clip(3.0 * change_angstrom, 1.5 * step, 1.3 * self.offset_range_angstrom)
        # At most four steps on either side: beyond, the search costs more than a coarser one that follows moves.
        self.offset_step_angstrom = float(min(max(step, reach / 4), old_step))
        self.offset_range_angstrom = float(reach)
