"""CTF of every tilt of a series on one Fourier grid, cheap to evaluate for many particles (Eqs. 14-16).

Particles of a tilt differ by their depth alone: it adds the same length to both defoci, hence
`-pi lambda dz |k|^2` to the phase.  Everything else is computed once per series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.model import OpticsGroup, TiltSeries
from tiltwise.optics.ctf import ctf_amplitude, ctf_phase, electron_wavelength_angstrom, odd_phase
from tiltwise.optics.dose import dose_weight


@dataclass(frozen=True, slots=True)
class CtfPlan:
    """Phases and amplitudes of all F tilts on the K frequencies given at creation."""

    turns: NDArray[np.float32]
    """(F, K) gamma / 2 pi of a particle at the centre of the tomogram, whole turns left out for accuracy"""
    amplitude: NDArray[np.float32]
    """(F, K) scale x B-factor x radiation damage"""
    damage: NDArray[np.float64]
    """(F, K) radiation damage weight alone, for the cut-off of pixels without signal"""
    turns_per_angstrom: NDArray[np.float64]
    """(K,) change of gamma / 2 pi with defocus, 1 / Å"""
    odd: NDArray[np.complex64] | None
    """(K,) exp(-i rho) of the odd aberrations, or None without any"""

    @classmethod
    def create(
        cls, series: TiltSeries, optics: OpticsGroup, kx: NDArray[np.float64], ky: NDArray[np.float64]
    ) -> CtfPlan:
        """Plan for frequencies `kx`, `ky` in 1/Å, of any common shape (kept as trailing axes)."""
        expand = (slice(None),) + (None,) * kx.ndim
        k = np.hypot(kx, ky)
        damage = dose_weight(k, series.pre_exposure[expand], series.bfactor_per_dose)
        phase = ctf_phase(
            kx,
            ky,
            series.defocus_u_angstrom[expand],
            series.defocus_v_angstrom[expand],
            series.defocus_angle_deg[expand],
            voltage_kv=series.voltage_kv,
            spherical_aberration_mm=series.spherical_aberration_mm,
            amplitude_contrast=series.amplitude_contrast,
            phase_shift_deg=series.phase_shift_deg[expand],
            even_zernike=optics.even_zernike,
        )
        amplitude = damage * ctf_amplitude(k, series.ctf_scale[expand], series.ctf_bfactor_angstrom2[expand])
        odd = None
        if optics.odd_zernike.size and np.any(optics.odd_zernike):
            odd = np.exp(-1j * odd_phase(kx, ky, optics.odd_zernike)).astype(np.complex64)
        turns_per_angstrom = -0.5 * electron_wavelength_angstrom(series.voltage_kv) * k * k
        turns = phase / (2 * np.pi)
        turns -= np.rint(turns)
        return cls(turns.astype(np.float32), amplitude.astype(np.float32), damage, turns_per_angstrom, odd)

    def evaluate(
        self,
        depth_defocus_angstrom: NDArray[np.float64],
        tilts: NDArray[np.intp] | slice = slice(None),
        count: int | None = None,
    ) -> NDArray[np.float32]:
        """CTF x damage of one particle in the given tilts, `-amplitude * sin(gamma)`.

        `depth_defocus_angstrom` `(len(tilts),)` is the defocus its depth adds in each tilt; `count` limits the last
        axis to its first frequencies.
        """
        expand = (slice(None),) + (None,) * self.turns_per_angstrom.ndim
        slopes, depths = self.turns_per_angstrom[..., :count], depth_defocus_angstrom[expand]
        result = slopes.astype(np.float32) * depths.astype(np.float32)
        result += self.turns[..., :count][tilts]
        result -= np.rint(result)
        result *= np.float32(-2 * np.pi)
        np.sin(result, out=result)
        result *= self.amplitude[..., :count][tilts]
        return result


def column_limits(plan: CtfPlan, box: int, cutoff_fraction: float) -> NDArray[np.int64]:
    """(F, box) first column not in use in every row: damage above the cut-off, and inside the circle of the box.

    `plan` is one on the half-complex grid (box, box // 2 + 1).
    """
    ky = np.fft.fftfreq(box, 1.0 / box)
    kx = np.arange(box // 2 + 1)
    inside = kx**2 <= box**2 / 4 - ky[:, None] ** 2
    return np.asarray(np.where((plan.damage > cutoff_fraction) & inside, kx + 1, 0).max(axis=-1))
