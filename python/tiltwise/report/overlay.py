"""The maps of two jobs laid on each other: the same slices, one contour, and their FSC."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.kernels.api import Backend
from tiltwise.maps.superpose import Superposition, superpose
from tiltwise.maps.turning import mirrored, turned
from tiltwise.report.curves import fsc_curves
from tiltwise.report.html import Cell, Section, Table
from tiltwise.report.maps import map_slices
from tiltwise.report.style import BLUE, VERMILION
from tiltwise.report.surfaces import common_contour, surface_gallery
from tiltwise.spectral.filters import low_pass, resample
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.masks import soft_sphere

F64 = NDArray[np.float64]
Volume = NDArray[np.float32]

MOST_SHELLS = 16.0
"""Up to which maps are laid on each other: it tells turns of a small part of a degree."""
CERTAIN = 0.6
"""Correlation of maps that already lie on each other: no other pose is looked for."""
BETTER = 0.02
"""What another pose, and the other hand, must add to the correlation: mates of a symmetry and blobs add less."""
HALF = 0.5
"""FSC to which whole maps agree."""
COARSER = 1.3
"""Low-pass filter of the surfaces over the worse resolution."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Map B laid on map A, in the grey scale of A."""

    first: Volume
    second: Volume
    pixel_size: float
    sphere: F64
    """(N, N, N) from 0 to 1 in which they are compared"""
    resolution_angstrom: float
    """the worse of the two"""
    before: F64
    """FSC inside the sphere as they were"""
    curve: F64
    """FSC inside the sphere as B lies now"""
    scale: float
    """of B"""
    pose: Superposition | None
    """None: B is as it was"""
    angle_deg: float = 0.0
    """of the turn, to the nearest symmetry mate"""

    @property
    def agreement(self) -> str:
        """Resolution to which both are the same, in words; maps were binned, and may agree beyond it."""
        limit = resolution_angstrom(self.curve, len(self.first), self.pixel_size, HALF)
        return f"{limit:.1f} Å" + (" or finer" if self.curve[1:].min() >= HALF else "")

    @property
    def words(self) -> str:
        """How B was laid on A."""
        if self.pose is None:
            return "B lies on A as it is"
        far = float(np.linalg.norm(self.pose.shift_px)) * self.pixel_size
        hand = "mirrored, " if self.pose.mirrored else ""
        return f"B was {hand}turned by {self.angle_deg:.1f}° and moved by {far:.1f} Å to lie on A"


def lay(
    first: Volume,
    second: Volume,
    pixel_size: float,
    radius_px: float,
    resolution: float,
    symmetry: F64,
    backend: Backend,
) -> Overlay:
    """Lay `second` on `first`, both (N, N, N): turned, moved and mirrored where that makes them agree better.

    Parameters
    ----------
    radius_px
        of the particle.
    resolution
        Å, the worse of the two.
    symmetry
        (G, 3, 3) rotations that change neither.
    """
    size = len(first)
    sphere = soft_sphere(size, min(radius_px, size / 2 - 2), 4.0)
    shells = float(np.clip(size * pixel_size / resolution, 4.0, min(MOST_SHELLS, size / 2 - 1)))
    small = min(size, 2 * (int(shells) + 8))
    fixed, moving = (resample(one * sphere, 1.0, size / small, small) for one in (first, second))
    as_is = _mean(fsc(first, second, sphere), shells)
    found = superpose(moving, fixed, shells, backend, nearby=True)
    if found.score < CERTAIN:
        for hand in (False, True):
            other = superpose(mirrored(moving) if hand else moving, fixed, shells, backend)
            if other.score > found.score + BETTER:
                found = replace(other, mirrored=hand)
    found = replace(found, shift_px=found.shift_px * size / small)
    laid = turned(mirrored(second) if found.mirrored else second, found.rotation, found.shift_px, backend)
    pose: Superposition | None = found
    if _mean(fsc(first, laid, sphere), shells) <= as_is + 0.25 * BETTER:
        laid, pose = second, None
    inside, limit = sphere > 0.5, COARSER * resolution
    a, b = (low_pass(one, pixel_size, limit)[inside].astype(np.float64) for one in (first, laid))
    a, b = a - a.mean(), b - b.mean()
    fitted = float(a @ b) / max(float(b @ b), 1e-300)
    scale = fitted if fitted > 0 else float(a.std() / max(b.std(), 1e-300))
    angle = 0.0
    if pose is not None:
        mates = np.einsum("ij,gjk->gik", pose.rotation, symmetry)
        angle = float(angular_distance_deg(mates, np.eye(3)).min())
    before, curve = (fsc(first, one, sphere) for one in (second, laid))
    return Overlay(
        first, (scale * laid).astype(np.float32), pixel_size, sphere, resolution, before, curve, scale, pose, angle
    )


def _mean(curve: F64, shells: float) -> float:
    """Of all components up to a shell, without the mean grey value."""
    shell = np.arange(1, int(shells) + 1)
    return float((curve[shell] * shell**2).sum() / (shell**2).sum())


def overlay_sections(one: Overlay, names: tuple[str, str]) -> list[Section]:
    """The same slices and their difference, surfaces at one contour, and the FSC between the maps."""
    return [_slices(one, names), _surfaces(one, names), _agreement(one)]


def _slices(one: Overlay, names: tuple[str, str]) -> Section:
    inside = one.sphere > 0.5
    difference = one.first - one.second
    difference = np.asarray((difference - difference[inside].mean()) * one.sphere, np.float32)
    share = float(difference[inside].std() / max(float(one.first[inside].std()), 1e-30))
    return Section(
        "Maps",
        f"Slices and projections of the same places. {one.words}; its density times {one.scale:.3g} fits A. The "
        f"difference holds {share:.0%} of the amplitude of A, and is shown with its own grey levels. Worry about "
        "density in it that has a shape.",
        figure=map_slices({names[0]: one.first, names[1]: one.second, "A - B": difference}, one.pixel_size),
        form="png",
        shape="wide",
    )


def _surfaces(one: Overlay, names: tuple[str, str]) -> Section:
    limit = COARSER * one.resolution_angstrom
    smooth = [low_pass(density, one.pixel_size, limit) for density in (one.first, one.second)]
    noise = [float(density[one.sphere < 0.01].std()) for density in smooth if (one.sphere < 0.01).any()]
    inside = [np.asarray(density * one.sphere, np.float32) for density in smooth]
    level = common_contour(np.asarray(0.5 * (inside[0] + inside[1]), np.float32), noise or [0.0])
    return Section(
        "Surfaces at one contour",
        f"Both maps as they lie on each other, low-passed at {limit:.1f} Å, at the same density: {level:.3g} of A, "
        f"{level / one.scale:.3g} of B. Worry if one has parts that the other lacks.",
        figure=surface_gallery(
            dict(zip(names, inside, strict=True)),
            level,
            one.pixel_size,
            dict(zip(names, (BLUE, VERMILION), strict=True)),
        ),
        form="png",
    )


def _agreement(one: Overlay) -> Section:
    curves = {"A with B": one.curve}
    if one.pose is not None:
        curves["as they were"] = one.before
    rows: list[list[Cell]] = [
        [shell, *(float(curve[shell]) for curve in curves.values())] for shell in range(len(one.curve))
    ]
    return Section(
        "Agreement of the maps",
        f"FSC between A and B inside a sphere. {one.words}. They agree to {one.agreement} (FSC {HALF:g}). Maps from "
        "the same particles share their noise, and agree better than what they show. Worry if the curve falls where "
        "those of the half maps are high: then the jobs found different structures.",
        figure=fsc_curves(curves, one.pixel_size, thresholds=dict.fromkeys(curves, HALF)),
        data=Table(["shell", *curves], rows),
    )
