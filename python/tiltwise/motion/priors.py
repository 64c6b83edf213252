"""Priors of what a fit may add to tilts and positions: motion and deformations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.deformation import DeformationKind, DeformationModel
from tiltwise.motion.fields import FieldBasis
from tiltwise.motion.gaussian_process import Kernel
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.learning import MotionPrior, as_coefficients
from tiltwise.motion.series import SeriesData

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DeformationPrior:
    """Fields that are fitted, and how large they are."""

    kind: DeformationKind
    grid: int
    """along each axis"""
    per_tilt: bool
    sigma_angstrom: float
    """expected displacement, root mean square over the image"""
    trials: int = 0

    def basis(self, data: SeriesData) -> FieldBasis:
        """On the images of a series."""
        model = DeformationModel(self.kind, (self.grid, self.grid), data.series.image_size)
        sigma = self.sigma_angstrom / data.series.pixel_size_angstrom
        return FieldBasis.create(model, per_tilt=self.per_tilt, sigma_px=sigma)


@dataclass(frozen=True, slots=True)
class Priors:
    """Of motion and deformation; None is not fitted."""

    motion: MotionPrior | None = None
    deformation: DeformationPrior | None = None
    kernel: Kernel = "gaussian"
    """of the motion"""

    @property
    def families(self) -> list[str]:
        """What there is beside tilts and positions, in the order in which it is judged."""
        return [name for name in ("motion", "deformation") if getattr(self, name) is not None]

    def only(self, families: list[str]) -> Priors:
        """Some of the families."""
        left: dict[str, None] = {name: None for name in self.families if name not in families}
        return replace(self, **left)  # type: ignore[arg-type]

    def specimen(self, data: SeriesData, functions: F64 | None = None) -> Specimen:
        """A series with these freedoms; `functions` (P, B) in place of the modes of motion of its own particles."""
        fields = None if self.deformation is None else self.deformation.basis(data)
        if self.motion is None:
            return data.specimen(fields=fields)
        if functions is None:
            functions = data.basis(self.motion.length_angstrom, self.kernel).functions
        return data.specimen(functions, self.motion.velocity, fields)

    def begin(self, specimen: Specimen, start: Alignment, before: Specimen) -> Alignment:
        """An alignment of another specimen, in the modes of this one: where a fit starts."""
        none = Alignment.none(specimen)
        coefficients, amplitudes = none.coefficients, none.amplitudes
        if self.motion is not None:
            coefficients = as_coefficients(specimen, np.diff(start.motion(before), axis=1))
        deformation = start.deformation(before)
        if specimen.fields is not None and deformation is not None:
            amplitudes = specimen.fields.amplitudes(deformation)
        return replace(start, coefficients=coefficients, amplitudes=amplitudes)
