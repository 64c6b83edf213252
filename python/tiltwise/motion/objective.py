"""What an alignment maximises: the sum of cross-correlations, less the prior of the motion (Eqs. 36, 42)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tiltwise.kernels.api import F32, I32, Backend
from tiltwise.kernels.select import load_backend
from tiltwise.motion.geometry import Alignment, Specimen, tilt_jacobian
from tiltwise.motion.tables import TableGrid

F64 = NDArray[np.float64]

BLUR = 0.12
"""Standard deviation of blurred correlations, over the reach of their tables."""
IMAGES_PER_THREAD = 2000
"""Fewer are read faster by one thread than shared out."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Correlations of n particle images; lengths in unbinned pixels."""

    grid: TableGrid
    tables: F32
    """(m, S, S), shared by all selections of images"""
    information: F64
    """(n, 2, 2) Fisher information in shifts of the image"""
    power: F64
    """(n,) sum of |P|^2 / sigma^2 over the full plane"""
    particle: NDArray[np.intp]
    """(n,)"""
    tilt: NDArray[np.intp]
    """(n,) in the order of dose"""
    scale: float
    """unbinned pixels per pixel of the tables"""
    row: I32 | None = field(default=None, kw_only=True)
    """(n,) tables of the images; all in their order without a list"""
    backend: Backend = field(default_factory=load_backend, kw_only=True)
    threads: int = field(default=1, kw_only=True)

    @property
    def rows(self) -> I32:
        """(n,) tables of the images."""
        return np.arange(len(self.particle), dtype=np.int32) if self.row is None else self.row

    @property
    def reach_px(self) -> float:
        """Displacement beyond which a table knows nothing."""
        return self.grid.reach_px * self.scale

    def at(self, displacement: F64) -> tuple[F64, F64]:
        """Correlations (n,) and their gradients (n, 2) at displacements (P, F, 2)."""
        shifts = displacement[self.particle, self.tilt] / self.scale
        threads = min(self.threads, 1 + len(shifts) // IMAGES_PER_THREAD)
        value, gradient = self.grid.interpolate(self.backend, self.tables, self.rows, shifts, threads)
        return value, gradient / self.scale

    def only(self, rows: NDArray[np.bool_]) -> Evidence:
        """Some images, (n,) bool; particles keep their numbers."""
        return replace(
            self,
            information=self.information[rows],
            power=self.power[rows],
            particle=self.particle[rows],
            tilt=self.tilt[rows],
            row=self.rows[rows],
        )

    def of(self, chosen: NDArray[np.bool_]) -> Evidence:
        """Images of some particles, (P,) bool."""
        return self.only(chosen[self.particle])

    def blurred(self) -> Evidence:
        """With correlations blurred by a good part of their reach: hills that are seen from afar."""
        spread = gaussian_filter1d(np.eye(self.grid.size), BLUR * self.grid.half, mode="constant", truncate=3.0)
        matrix = spread.astype(np.float32)
        along = (self.tables.reshape(-1, self.grid.size) @ matrix.T).reshape(self.tables.shape)
        return replace(self, tables=np.matmul(matrix, along))

    def scaled(self, factor: float) -> Evidence:
        """With predictions `factor` times as strong."""
        return replace(
            self,
            tables=self.tables * np.float32(factor),
            information=self.information * factor**2,
            power=self.power * factor**2,
        )


@dataclass(frozen=True, slots=True)
class Free:
    """Which parameters are fitted."""

    angles: bool = True
    shifts: bool = True
    positions: bool = True

    @property
    def tilt(self) -> NDArray[np.bool_]:
        """(5,) of every tilt."""
        return np.array([self.angles] * 3 + [self.shifts] * 2)


def log_prior(specimen: Specimen, alignment: Alignment) -> float:
    """Of motion, displacements and deformations, up to a constant."""
    square = (alignment.coefficients**2).sum() + (alignment.displacement_px**2).sum() / specimen.position_sigma_px**2
    return -0.5 * float(square + (alignment.amplitudes**2).sum())


def value(specimen: Specimen, evidence: Evidence, alignment: Alignment) -> float:
    """Log posterior up to a constant."""
    found, _ = evidence.at(alignment.predict(specimen))
    return float(found.sum()) + log_prior(specimen, alignment)


@dataclass(frozen=True, slots=True)
class Gradient:
    """Derivatives of the log posterior."""

    value: float
    tilt: F64
    """(F, 5) in (w, t)"""
    particle: F64
    """(P, 3)"""
    coefficients: F64
    """(F - 1, B, 3)"""
    arms: F64
    """(P, F, 3) see `Alignment.arms`"""
    amplitudes: F64
    """(N, M)"""
    images: F64
    """(n,) correlations"""


def gradient(specimen: Specimen, evidence: Evidence, alignment: Alignment) -> Gradient:
    """Value and derivatives; the sums over later tilts of Eq. 37 run backwards once."""
    arms = alignment.arms(specimen)
    deformation, amplitudes = alignment.deformation(specimen), -alignment.amplitudes
    seen = alignment.projected(specimen, arms)
    bent = None if deformation is None else deformation.at(seen)
    found, slopes = evidence.at(seen - specimen.cut_px + (0.0 if bent is None else bent.displacement))
    image = np.zeros((*arms.shape[:2], 2))
    image[evidence.particle, evidence.tilt] = slopes
    if bent is not None:
        if specimen.fields is not None:
            amplitudes = amplitudes + specimen.fields.gradient(bent.functions, image)
        image = np.einsum("pfij,pfi->pfj", bent.jacobian, image)
    tilt = np.einsum("pfij,pfi->fj", tilt_jacobian(arms), image)
    space = np.einsum("fij,pfi->pfj", alignment.rotations(specimen)[:, :2], image)
    later = np.cumsum(space[:, :0:-1], axis=1)[:, ::-1]  # sums over tilts after each transition
    modes = np.tensordot(specimen.basis, later, axes=(0, 0)).swapaxes(0, 1) * specimen.step_px[:, None, None]
    particle = space.sum(axis=1) - alignment.displacement_px / specimen.position_sigma_px**2
    total = float(found.sum()) + log_prior(specimen, alignment)
    return Gradient(total, tilt, particle, modes - alignment.coefficients, arms, amplitudes, found)
