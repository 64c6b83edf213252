"""Contrast transfer function with every term of Eqs. 14-16, in RELION's signs.

    gamma(k) = -pi lambda (U u^2 + V v^2) + (pi/2) Cs lambda^3 |k|^4 - phase_shift - atan(Q0 / sqrt(1 - Q0^2))
               + sum even Zernike
    CTF(k)   = -scale * exp(-B |k|^2 / 4) * sin(gamma)

(u, v) is k turned by the defocus angle, counter-clockwise from +x of the array.  U and V are in Å, positive
for underfocus, and the CTF is positive at low frequency for underfocus: CTF(0) = scale * Q0.  Particles
are white, that is, tilt images of dark particles are multiplied by -1.  Eq. 15 has the opposite sign of
gamma.  Radiation damage is in `tiltwise.optics.dose`; antisymmetric aberrations multiply the image by
exp(i rho), see `odd_phase`.

Arguments broadcast like NumPy arrays: for F images on a (Y, X) grid pass parameters of shape (F, 1, 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiltwise.errors import ConfigError
from tiltwise.optics.zernike import even_phase, odd_phase

__all__ = ["ctf", "ctf_amplitude", "ctf_phase", "electron_wavelength_angstrom", "odd_phase"]

_NONE = np.zeros(0)


def electron_wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic electron wavelength in Å at an acceleration voltage in kV (0.019687 at 300)."""
    if not voltage_kv > 0:
        raise ConfigError(
            "acceleration voltage must be positive",
            where="rlnVoltage",
            found=f"{voltage_kv:g} kV",
            fix="write the voltage in kV, such as 300",
        )
    volts = 1000.0 * voltage_kv
    return float(12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts)))


def ctf_phase(
    kx: NDArray[np.float64],
    ky: NDArray[np.float64],
    defocus_u_angstrom: ArrayLike,
    defocus_v_angstrom: ArrayLike,
    defocus_angle_deg: ArrayLike,
    *,
    voltage_kv: float,
    spherical_aberration_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: ArrayLike = 0.0,
    even_zernike: NDArray[np.float64] = _NONE,
) -> NDArray[np.float64]:
    """Phase gamma in radians (Eqs. 15, 16) at frequencies `kx`, `ky` in 1/Å."""
    if not 0 <= amplitude_contrast <= 1:
        raise ConfigError(
            "amplitude contrast is a fraction",
            where="rlnAmplitudeContrast",
            expected="0 to 1",
            found=f"{amplitude_contrast:g}",
            fix="write a fraction, such as 0.1",
        )
    wavelength = electron_wavelength_angstrom(voltage_kv)
    angle = np.radians(np.asarray(defocus_angle_deg, dtype=np.float64))
    u = np.cos(angle) * kx + np.sin(angle) * ky
    v = np.cos(angle) * ky - np.sin(angle) * kx
    square = kx * kx + ky * ky
    gamma = (-np.pi * wavelength) * (np.asarray(defocus_u_angstrom) * u * u + np.asarray(defocus_v_angstrom) * v * v)
    gamma = gamma + (np.pi / 2 * 1e7 * spherical_aberration_mm * wavelength**3) * square * square
    # arcsin(Q0) is atan(Q0 / sqrt(1 - Q0^2)), finite at Q0 = 1
    gamma = gamma - (np.radians(np.asarray(phase_shift_deg, dtype=np.float64)) + np.arcsin(amplitude_contrast))
    return np.asarray(gamma + even_phase(kx, ky, even_zernike))


def ctf_amplitude(
    k: NDArray[np.float64], scale: ArrayLike = 1.0, bfactor_angstrom2: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """Envelope `scale * exp(-B k^2 / 4)` at |k| in 1/Å (alpha_f of Eq. 14)."""
    return np.asarray(np.asarray(scale) * np.exp(-0.25 * np.asarray(bfactor_angstrom2) * k * k))


def ctf(
    kx: NDArray[np.float64],
    ky: NDArray[np.float64],
    defocus_u_angstrom: ArrayLike,
    defocus_v_angstrom: ArrayLike,
    defocus_angle_deg: ArrayLike,
    *,
    voltage_kv: float,
    spherical_aberration_mm: float,
    amplitude_contrast: float,
    scale: ArrayLike = 1.0,
    bfactor_angstrom2: ArrayLike = 0.0,
    phase_shift_deg: ArrayLike = 0.0,
    even_zernike: NDArray[np.float64] = _NONE,
) -> NDArray[np.float64]:
    """CTF without radiation damage and without exp(i rho), at frequencies `kx`, `ky` in 1/Å."""
    gamma = ctf_phase(
        kx,
        ky,
        defocus_u_angstrom,
        defocus_v_angstrom,
        defocus_angle_deg,
        voltage_kv=voltage_kv,
        spherical_aberration_mm=spherical_aberration_mm,
        amplitude_contrast=amplitude_contrast,
        phase_shift_deg=phase_shift_deg,
        even_zernike=even_zernike,
    )
    return np.asarray(-ctf_amplitude(np.hypot(kx, ky), scale, bfactor_angstrom2) * np.sin(gamma))
