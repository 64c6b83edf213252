"""Tilt series: geometry, optics and dose of every tilt image, and where the images are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.deformation import Deformation
from tiltwise.geometry.projection import project_points


@dataclass(frozen=True, slots=True)
class TiltSeries:
    """One tilt series of F images, in the row order of its STAR table.

    Positions are 0-based unbinned pixels from the corner of the tomogram, voxel centres at integers.
    `projection[f] @ (x, y, z, 1)` gives image pixel (qx, qy), 0-based, and the depth in pixels; `project` adds the
    deformation of the images.
    """

    name: str
    optics_group_name: str
    pixel_size_angstrom: float
    image_size: tuple[int, int]
    """(width, height) of the tilt images in pixels; (0, 0) when the images are not at hand."""
    tomogram_size: tuple[int, int, int]
    """(width, height, depth) in unbinned pixels; its half is the reference of depth and of centred coordinates."""
    projection: NDArray[np.float64]
    """(F, 4, 4)"""
    defocus_u_angstrom: NDArray[np.float64]
    """(F,) underfocus positive, of a point at the centre of the tomogram"""
    defocus_v_angstrom: NDArray[np.float64]
    defocus_angle_deg: NDArray[np.float64]
    phase_shift_deg: NDArray[np.float64]
    ctf_scale: NDArray[np.float64]
    ctf_bfactor_angstrom2: NDArray[np.float64]
    pre_exposure: NDArray[np.float64]
    """(F,) dose before the tilt, e/Å^2"""
    nominal_tilt_deg: NDArray[np.float64]
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    hand: float
    """+1 or -1: sign of defocus against depth"""
    defocus_slope: float
    bfactor_per_dose: float
    """Å^2 per e/Å^2; 0 means the Grant-Grigorieff critical dose curve"""
    image_files: tuple[str, ...]
    """(F,) absolute path of the file that holds each tilt; empty when the images are not at hand"""
    image_index: NDArray[np.int64]
    """(F,) 0-based section of each tilt in its file"""
    deformation: Deformation | None = None
    """of the images in their plane (Eq. 34); depth and direction of view stay those of `projection`"""

    @property
    def n_tilts(self) -> int:
        """Number of tilt images."""
        return len(self.projection)

    def project(self, points: NDArray[np.float64], tilt: int | None = None) -> NDArray[np.float64]:
        """Where positions (P, 3), or (P, F, 3) that move, appear: (P, F, 3) pixels qx, qy, and depth (Eqs. 34, 35).

        `tilt` asks for one of the images, F = 1.
        """
        rows = slice(None) if tilt is None else slice(tilt, tilt + 1)
        projection, deformation = self.projection[rows], self.deformation
        if points.ndim == 2:
            seen = project_points(projection, points)
        else:
            seen = np.einsum("fij,pfj->pfi", projection[:, :3, :3], points) + projection[:, :3, 3]
        if deformation is not None:
            seen[..., :2] += deformation.rows(rows).displacement(seen[..., :2])
        return seen

    def image_axes(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """(F, 2, 3) how image points of a position (3,) move with it: rows of the projection, deformed."""
        axes = self.projection[:, :2, :3]
        if self.deformation is None:
            return axes
        seen = project_points(self.projection, position[None])[0, :, :2]
        return np.asarray(self.deformation.at(seen).jacobian @ axes)
