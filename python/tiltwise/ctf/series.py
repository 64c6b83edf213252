"""The fit of one tilt series: noise power, gains, defocus, scale; and what other particles say about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.astigmatism import defocus_terms
from tiltwise.ctf.evidence import Evidence
from tiltwise.ctf.fit import (
    DEFOCUS_TERMS,
    Objective,
    Prior,
    TiltFit,
    WeightedEvidence,
    defocus_basis,
    defocus_grid,
    fit_tilts,
    units,
)
from tiltwise.ctf.prior import learned_width, scatter
from tiltwise.ctf.shells import (
    Calibration,
    Wave,
    calibrate,
    noise_power,
    parts_at,
    shell_sums,
)
from tiltwise.kernels.api import Backend
from tiltwise.model import TiltSeries
from tiltwise.optics.ctf import electron_wavelength_angstrom

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is fitted, and how."""

    defocus: bool
    scale: bool
    kmin_angstrom: float
    """phases are fitted from this resolution on"""
    scale_kmin_angstrom: float
    """and scales from this one"""
    range_angstrom: tuple[float, float]
    """changes of defocus that are searched"""
    sigma_defocus: float | None
    """width of the prior in Å; None learns it, infinity is none"""
    sigma_astigmatism: float | None
    phase_shift: bool = False
    """whether it is fitted, with the defocus"""
    sigma_phase_shift: float | None = None
    """width of its prior in degrees"""
    lambert: bool = False
    """whether scales are those of a slab of ice"""


@dataclass(frozen=True, slots=True)
class SeriesFit:
    """CTFs of one series from some of its particles."""

    tilts: TiltFit
    calibration: Calibration
    scale_sigma: F64
    """(F,) of `calibration.scale`, NaN without evidence"""
    widths: tuple[float, ...]
    """of the priors on defocus and astigmatism, Å, and on the phase shift, degrees, if it was fitted; infinite
    without"""
    linear: F64
    quadratic: F64
    """(F, S) parts of the likelihood at these CTFs"""


class SeriesModel:
    """Evidence of one series and the likelihood of CTFs."""

    def __init__(
        self, series: TiltSeries, evidence: Evidence, settings: Settings, backend: Backend, threads: int
    ) -> None:
        self.series, self.evidence, self.settings = series, evidence, settings
        self.backend, self.threads, self.disc = backend, threads, evidence.disc
        kx, ky = (evidence.disc.frequencies * evidence.step).T
        self.wavelength = electron_wavelength_angstrom(series.voltage_kv)
        constant = np.full((1, len(kx)), -np.radians(1.0))
        self.basis = np.concatenate([defocus_basis(self.wavelength, kx, ky), constant])
        radius = np.hypot(kx, ky)
        self.for_phases = radius >= 1.0 / settings.kmin_angstrom
        # whole shells: scales are fitted to sums over shells
        shell_radius = np.arange(self.disc.n_shells) * evidence.step
        self.for_scales = shell_radius >= 1.0 / settings.scale_kmin_angstrom
        self.highest = float(radius.max())
        self.squares = np.asarray((evidence.disc.frequencies**2).sum(axis=1))
        self.before = np.concatenate([defocus_terms(series), series.phase_shift_deg[:, None]], axis=1)
        self.total, self.counts = evidence.total()
        self.noise = self._noise(None, np.ones((series.n_tilts, self.disc.n_shells)))

    def _noise(self, wave: Wave | None, product: F64) -> F64:
        parts = parts_at(self.total, self.evidence.amplitude, wave)
        return noise_power(self.total, self.counts, parts, product, self.disc, self.evidence.area)

    def wave(self, change: F64) -> Wave:
        """Of changes (F, P) in Å and degrees."""
        errors = change @ self.basis[: change.shape[1]]
        return np.cos(errors), np.sin(errors)

    def shell_parts(self, sums: F64, wave: Wave | None) -> tuple[F64, F64]:
        """L and q (F, S) over sigma^2 of `sums` (F, 8, K), full-plane sums; zero in shells not used for scales."""
        parts = parts_at(sums, self.evidence.amplitude, wave)
        weight = 2.0 / self.noise * self.for_scales
        return shell_sums(parts.linear, self.disc) * weight, shell_sums(parts.quadratic, self.disc) * weight

    def weighted(self, sums: F64, gain: F64) -> WeightedEvidence:
        """Evidence for fits of phases."""
        root = np.sqrt(2.0 / self.noise)[:, self.disc.shells]
        factor = self.evidence.amplitude * gain[self.disc.shells] * self.for_phases * root
        vectors = sums[:, 3:5] * (factor * root)[:, None, :]
        return WeightedEvidence(sums[:, :3] * factor[:, None, :] ** 2, vectors, self.squares)

    def scale(self, sums: F64, wave: Wave | None) -> Calibration:
        """Scales and gains at given CTFs; scales are 1 where they are not fitted."""
        return calibrate(*self.shell_parts(sums, wave), fit_scale=self.settings.scale)

    def fit(self, sums: F64, *, measure_noise: bool = False, phase_shift: bool | None = None) -> SeriesFit:
        """CTFs that fit `sums` (F, 8, K) best.

        Gains are measured with fitted CTFs, with which the fit is repeated.  `phase_shift` is fitted where the settings
        say so, unless stated.
        `measure_noise`: the sums are those of all particles of the series; its noise power is measured, too.
        """
        n_tilts = self.series.n_tilts
        count = DEFOCUS_TERMS + int(self.settings.phase_shift if phase_shift is None else phase_shift)
        # Gains at wrong CTFs would hide what all tilts have in common, and hold it there: the first fit does without.
        calibration = Calibration(np.ones(n_tilts), np.ones(self.disc.n_shells))
        tilts, wave = no_change(n_tilts, count), None
        flat = prior = Prior.flat(n_tilts, count)
        widths: tuple[float, ...] = (np.inf,) * (count - 1)
        if self.settings.defocus:
            low, high = self.settings.range_angstrom
            grid = defocus_grid(self.wavelength, self.highest, low, high)
            slope = -np.pi * self.wavelength * self.evidence.step**2
            bound = 1.1 * max(abs(low), abs(high))
            for last in (False, True):
                evidence = self.weighted(sums, calibration.gain)
                tilts = fit_tilts(self.objective(evidence, flat), slope, grid, bound)
                if last:
                    prior, widths = self.learned_prior(tilts)
                if prior.precision.any():
                    tilts = fit_tilts(self.objective(evidence, prior), slope, grid, bound)
                wave = self.wave(tilts.change)
                calibration = self.scale(sums, wave)
                if measure_noise:
                    self.noise = self._noise(wave, calibration.product)
        elif measure_noise:
            self.noise = self._noise(None, self.scale(sums, None).product)
        linear, quadratic = self.shell_parts(sums, wave)
        calibration = calibrate(linear, quadratic, fit_scale=self.settings.scale)
        information = quadratic @ calibration.gain**2
        sigma = np.where(information > 0, 1.0 / np.sqrt(np.where(information > 0, information, 1.0)), np.nan)
        return SeriesFit(tilts, calibration, sigma, widths, linear, quadratic)

    def objective(self, evidence: WeightedEvidence, prior: Prior) -> Objective:
        """Of defocus, astigmatism and phase shift of all tilts, each with its best scale."""
        count = len(prior.precision)
        return Objective(
            evidence, self.basis[:count], prior, self.backend, self.threads, fit_scale=True, unit=units(count)
        )

    def learned_prior(self, tilts: TiltFit) -> tuple[Prior, tuple[float, ...]]:
        """Prior on the final defocus, astigmatism and phase shift (Eq. 30), and its widths."""
        known, count = tilts.known, tilts.change.shape[1]
        prior = Prior.flat(self.series.n_tilts, count)
        if known.sum() < 2:
            return prior, (np.inf,) * (count - 1)
        final = (self.before[:, :count] + tilts.change)[known]
        variances = tilts.sigma[known] ** 2
        settings = self.settings
        given = (settings.sigma_defocus, settings.sigma_astigmatism, settings.sigma_phase_shift)
        # which parameters have one width, and its unit: a tenth of a degree counts as an Å
        widths = []
        for columns, width, unit in list(zip(((0,), (1, 2), (3,)), given, (1.0, 1.0, 0.1), strict=True))[: count - 1]:
            groups = [(final[:, i] / unit, variances[:, i] / unit**2) for i in columns]
            learned = learned_width(groups) if width is None else None
            widths.append(width if width is not None else unit * learned.width if learned else np.inf)
            if not np.isfinite(widths[-1]):
                continue
            for number, (column, (values, errors)) in enumerate(zip(columns, groups, strict=True)):
                common = scatter(values, errors, widths[-1] / unit)
                prior.mean_variance[column] = common.variance * unit**2
                prior.mean[:, column] = common.centre * unit - self.before[:, column]
                prior.precision[column] = 1.0 / widths[-1] ** 2
                if learned is not None:
                    prior.extra[known, column] = learned.variance(number, values, errors) * unit**2
        return prior, tuple(widths)


def no_change(n_tilts: int, count: int) -> TiltFit:
    """Nothing fitted."""
    nan = np.full((n_tilts, count, count), np.nan)
    return TiltFit(np.zeros((n_tilts, count)), nan, np.zeros(n_tilts), np.zeros(n_tilts, bool))
