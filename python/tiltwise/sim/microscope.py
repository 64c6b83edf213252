"""How simulated tilt series are taken: angles, shifts, optics and dose of every tilt, true and as stated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.deformation import Deformation, DeformationModel
from tiltwise.geometry.projection import projection_matrices_from_angles
from tiltwise.model import TiltSeries
from tiltwise.sim.options import SimulateOptions

F64 = NDArray[np.float64]

OPTICS_GROUP = "opticsGroup1"


@dataclass(frozen=True, slots=True)
class TiltParameters:
    """Parameters of the F tilts of a series in order of tilt angle, all `(F,)`."""

    stage_deg: F64
    x_tilt_deg: F64
    y_tilt_deg: F64
    z_rot_deg: F64
    x_shift_angstrom: F64
    y_shift_angstrom: F64
    defocus_angstrom: F64
    """mean of U and V"""
    astigmatism_angstrom: F64
    """U - V"""
    azimuth_deg: F64
    scale: F64
    acquisition: NDArray[np.int64]
    """rank in the order of acquisition"""
    pre_exposure: F64

    def series(self, name: str, options: SimulateOptions, stack: str = "") -> TiltSeries:
        """Tilt series with these parameters, its images in the file `stack`."""
        n = len(self.stage_deg)
        projection = projection_matrices_from_angles(
            self.x_tilt_deg,
            self.y_tilt_deg,
            self.z_rot_deg,
            self.x_shift_angstrom,
            self.y_shift_angstrom,
            options.pixel_size,
            options.tomogram_size,
            options.image_size,
        )
        return TiltSeries(
            name=name,
            optics_group_name=OPTICS_GROUP,
            pixel_size_angstrom=options.pixel_size,
            image_size=options.image_size,
            tomogram_size=options.tomogram_size,
            projection=projection,
            defocus_u_angstrom=self.defocus_angstrom + self.astigmatism_angstrom / 2,
            defocus_v_angstrom=self.defocus_angstrom - self.astigmatism_angstrom / 2,
            defocus_angle_deg=self.azimuth_deg,
            phase_shift_deg=np.zeros(n),
            ctf_scale=self.scale,
            ctf_bfactor_angstrom2=np.zeros(n),
            pre_exposure=self.pre_exposure,
            nominal_tilt_deg=self.stage_deg,
            voltage_kv=options.voltage,
            spherical_aberration_mm=options.spherical_aberration,
            amplitude_contrast=options.amplitude_contrast,
            hand=float(options.hand),
            defocus_slope=1.0,
            bfactor_per_dose=0.0,
            image_files=(stack,) * n if stack else (),
            image_index=np.arange(n),
        )


def true_parameters(options: SimulateOptions, rng: np.random.Generator) -> TiltParameters:
    """Parameters of one series as the microscope has them."""
    stage = np.arange(options.tilt_min, options.tilt_max + 1e-6 * options.tilt_step, options.tilt_step)
    n = len(stage)
    # Dose-symmetric: by distance from zero, the positive angle first.
    order = np.lexsort((stage < 0, np.round(np.abs(stage), 6)))
    acquisition = np.empty(n, np.int64)
    acquisition[order] = np.arange(n)
    axis, defocus, azimuth = rng.standard_normal(), rng.standard_normal(), rng.uniform(0, 180)
    shift_x, shift_y, jitter = rng.standard_normal((3, n))
    # Path through the slab grows as 1 / cos; amplitudes fall exponentially with it (Lambert).
    path = 1.0 / np.cos(np.radians(stage)) - 1.0
    return TiltParameters(
        stage_deg=stage,
        x_tilt_deg=np.zeros(n),
        y_tilt_deg=stage.copy(),
        z_rot_deg=np.full(n, options.tilt_axis + 0.3 * axis),
        x_shift_angstrom=options.tilt_shift * shift_x,
        y_shift_angstrom=options.tilt_shift * shift_y,
        defocus_angstrom=options.defocus + options.defocus_spread * defocus + options.defocus_jitter * jitter,
        astigmatism_angstrom=np.full(n, options.astigmatism),
        azimuth_deg=np.full(n, azimuth),
        scale=options.scale_at_60**path,
        acquisition=acquisition,
        pre_exposure=np.asarray(options.dose * acquisition, dtype=np.float64),
    )


def stated_parameters(true: TiltParameters, options: SimulateOptions, rng: np.random.Generator) -> TiltParameters:
    """The same series as its metadata describe it: with the errors of the options."""
    errors = rng.standard_normal((6, len(true.stage_deg)))
    return replace(
        true,
        x_tilt_deg=true.x_tilt_deg + options.error_angle * errors[0],
        y_tilt_deg=true.y_tilt_deg + options.error_angle * errors[1],
        z_rot_deg=true.z_rot_deg + options.error_angle * errors[2],
        x_shift_angstrom=true.x_shift_angstrom + options.error_shift * errors[3],
        y_shift_angstrom=true.y_shift_angstrom + options.error_shift * errors[4],
        defocus_angstrom=true.defocus_angstrom + options.error_defocus * errors[5],
        astigmatism_angstrom=true.astigmatism_angstrom * float(options.astigmatism_known),
        scale=true.scale if options.scale_known else np.ones_like(true.scale),
    )


def true_deformation(options: SimulateOptions, tilts: int, rng: np.random.Generator) -> Deformation | None:
    """Random deformation of the images of one series, of the displacement that the options state."""
    if options.deformation == "none":
        return None
    grid = (options.deformation_grid,) * 2
    model = DeformationModel(options.deformation, grid, options.image_size)
    per_series = options.deformation_per == "series"
    modes = model.pose_free_modes(magnification=per_series)
    drawn = rng.standard_normal((1 if per_series else tilts, modes.shape[1]))
    drawn *= options.deformation_rms / options.pixel_size / np.linalg.norm(drawn, axis=1)[:, None]
    return Deformation(model, np.broadcast_to(drawn @ modes.T, (tilts, len(modes))).copy())
