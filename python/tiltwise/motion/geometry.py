"""Where particles appear when tilts turn and shift and particles move (Eqs. 34-37), with derivatives.

Tilts are in the order of their dose.  Small rotations w_f turn the projected specimen of tilt f about the centre of the
series, `exp([w]x) R_f`, and t_f shift its image; particles are displaced by e_p, and move by velocities v_pm
between tilts m and m + 1.  The image is then deformed, `p = l + W_f(l)`.  All lengths are unbinned pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.geometry.deformation import Deformation
from tiltwise.motion.fields import FieldBasis

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Specimen:
    """What stays fixed while a series is aligned; F tilts in the order of their dose, P particles, B modes."""

    rotation: F64
    """(F, 3, 3) of the projection matrices before"""
    offset_px: F64
    """(F, 3) last columns of the projection matrices before"""
    centre_px: F64
    """(3,) point about which tilts turn"""
    position_px: F64
    """(P, 3) particles before"""
    motion_px: F64
    """(P, F, 3) motion that is kept if none is fitted, and replaced if it is"""
    cut_px: F64
    """(P, F, 2) positions in the images where correlations are centred"""
    basis: F64
    """(P, B) modes of velocities, B = 0 without motion"""
    step_px: F64
    """(F - 1,) standard deviation of velocities, per transition"""
    pixel_size_angstrom: float
    """unbinned"""
    position_sigma_px: float = np.inf
    """standard deviation of the prior on displacements of particles: none if infinite"""
    given: Deformation | None = None
    """deformation of the images that is kept if none is fitted, and replaced if it is"""
    fields: FieldBasis | None = None
    """deformations to choose from; None without a fit of them"""

    @property
    def n_tilts(self) -> int:
        """F."""
        return len(self.rotation)


@dataclass(frozen=True, slots=True)
class Alignment:
    """The parameters."""

    turn: F64
    """(F, 3, 3) exp([w]x)"""
    shift_px: F64
    """(F, 2)"""
    displacement_px: F64
    """(P, 3)"""
    coefficients: F64
    """(F - 1, B, 3) standard normal under the prior (Eq. 42)"""
    amplitudes: F64 = field(default_factory=lambda: np.zeros((0, 0)))
    """(N, M) of the modes of N deformations, standard normal under the prior; (0, 0) if none is fitted"""

    @classmethod
    def none(cls, specimen: Specimen) -> Alignment:
        """No change."""
        f, p = specimen.n_tilts, len(specimen.position_px)
        modes = specimen.basis.shape[1]
        fields = np.zeros((0, 0) if specimen.fields is None else specimen.fields.shape(f))
        turn = np.tile(np.eye(3), (f, 1, 1))
        return cls(turn, np.zeros((f, 2)), np.zeros((p, 3)), np.zeros((f - 1, modes, 3)), fields)

    def moved(self, tilt: F64, particle: F64, coefficients: F64, amplitudes: F64 | float = 0.0) -> Alignment:
        """After steps in (w, t) (F, 5), displacements (P, 3), coefficients and amplitudes."""
        turn = Rotation.from_rotvec(tilt[:, :3]).as_matrix() @ self.turn
        return replace(
            self,
            turn=turn,
            shift_px=self.shift_px + tilt[:, 3:],
            displacement_px=self.displacement_px + particle,
            coefficients=self.coefficients + coefficients,
            amplitudes=self.amplitudes + amplitudes,
        )

    def motion(self, specimen: Specimen) -> F64:
        """(P, F, 3) motion of the particles, zero in the first tilt (Eq. 37)."""
        if not specimen.basis.shape[1]:
            return specimen.motion_px
        scaled = self.coefficients * specimen.step_px[:, None, None]
        velocity = np.tensordot(specimen.basis, scaled, axes=(1, 1))
        result = np.zeros((len(velocity), specimen.n_tilts, 3))
        np.cumsum(velocity, axis=1, out=result[:, 1:])
        return result

    def rotations(self, specimen: Specimen) -> F64:
        """(F, 3, 3) of the projections after."""
        return np.asarray(self.turn @ specimen.rotation)

    def arms(self, specimen: Specimen) -> F64:
        """(P, F, 3) particles relative to the centre, in the frame of each image."""
        points = specimen.position_px[:, None] + self.displacement_px[:, None] + self.motion(specimen)
        return np.asarray(np.einsum("fij,pfj->pfi", self.rotations(specimen), points - specimen.centre_px))

    def projected(self, specimen: Specimen, arms: F64) -> F64:
        """(P, F, 2) positions in the images before they are deformed (Eq. 35)."""
        pivot = specimen.rotation[:, :2] @ specimen.centre_px + specimen.offset_px[:, :2]
        return np.asarray(arms[..., :2] + pivot + self.shift_px)

    def deformation(self, specimen: Specimen) -> Deformation | None:
        """Of the images: what is fitted, else what was given."""
        if specimen.fields is None:
            return specimen.given
        return specimen.fields.deformation(self.amplitudes, specimen.n_tilts)

    def predict(self, specimen: Specimen) -> F64:
        """(P, F, 2) displacement in the images from where correlations are centred (Eq. 34)."""
        return self.displaced(specimen, self.projected(specimen, self.arms(specimen)))

    def displaced(self, specimen: Specimen, seen: F64) -> F64:
        """The same from the positions (P, F, 2) before they are deformed."""
        deformation = self.deformation(specimen)
        if deformation is not None:
            seen = seen + deformation.displacement(seen)
        return np.asarray(seen - specimen.cut_px)

    def projection(self, specimen: Specimen) -> F64:
        """(F, 4, 4) projection matrices after."""
        matrices = np.zeros((specimen.n_tilts, 4, 4))
        rotation = self.rotations(specimen)
        pivot = np.einsum("fij,j->fi", specimen.rotation, specimen.centre_px) + specimen.offset_px
        pivot[:, :2] += self.shift_px
        matrices[:, :3, :3] = rotation
        matrices[:, :3, 3] = pivot - rotation @ specimen.centre_px
        matrices[:, 3, 3] = 1.0
        return matrices


def tilt_jacobian(arms: F64) -> F64:
    """(P, F, 2, 5) derivative of image positions, before they are deformed, in (w, t)."""
    x, y, z = np.moveaxis(arms, -1, 0)
    zero, one = np.zeros_like(x), np.ones_like(x)
    first = [zero, z, -y, one, zero]
    second = [-z, zero, x, zero, one]
    return np.stack([np.stack(first, axis=-1), np.stack(second, axis=-1)], axis=-2)


def gauge(specimen: Specimen, alignment: Alignment) -> F64:
    """(5 F, 6) orthonormal conditions: steps of the tilts orthogonal to them turn and shift not all tilts together.

    A rigid motion of the specimen and the opposite one of all tilts change no image: these six freedoms are taken
    from the tilts, so that particles keep their orientation in the specimen.  With a prior on displacements there are
    three, (5 F, 3): then particles stay on average where they were, and shifts are left to the tilts.
    """
    rotation = alignment.rotations(specimen)
    directions = np.zeros((specimen.n_tilts, 5, 6))
    arm = np.linalg.norm(specimen.position_px - specimen.centre_px, axis=1)
    directions[:, :3, :3] = rotation * max(float(arm.mean()) if len(arm) else 1.0, 1.0)  # w_f = R_f r, in pixels
    directions[:, 3:, 3:] = rotation[:, :2]
    if np.isfinite(specimen.position_sigma_px):
        directions = directions[:, :, :3]
    return np.asarray(np.linalg.qr(directions.reshape(5 * specimen.n_tilts, -1))[0])
