"""What a CTF refinement leaves: tilt series with new CTFs, and `ctf.json` with values, errors and verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.aberrations import Aberration, GroupEvidence, added
from tiltwise.ctf.astigmatism import defocus_terms, with_defocus
from tiltwise.ctf.contrast import ContrastEvidence, fit_factors, of_series
from tiltwise.ctf.fit import DEFOCUS_TERMS
from tiltwise.ctf.held_out import HeldOut
from tiltwise.ctf.lambert import Slab, SlabEvidence, fit_common, fit_slab
from tiltwise.ctf.series import SeriesFit, SeriesModel
from tiltwise.ctf.verdict import Verdict
from tiltwise.exec import Job
from tiltwise.files import write_text
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles, write_tomograms
from tiltwise.model import OptimisationSet, TiltSeries
from tiltwise.model.poses import series_index

F64 = NDArray[np.float64]
SLAB_LABELS = (
    "rlnTomoRelativeLuminance",
    "rlnTomoRelativeIceThickness",
    "rlnTomoIceNormalX",
    "rlnTomoIceNormalY",
    "rlnTomoIceNormalZ",
)
PARAMETERS = ("defocus", "astigmatism_1", "astigmatism_2")


@dataclass(slots=True)
class SeriesResult:
    """Everything found about one series."""

    name: str
    before: F64
    """(F, 3) mean defocus and astigmatism terms, Å"""
    scale_before: F64
    """(F,)"""
    counts: NDArray[np.int64]
    """(F,) particles seen"""
    fit: SeriesFit | None
    """None without any particle"""
    held_out: HeldOut | None
    scale: F64
    """(F,) fitted, in the unit of `scale_before`; NaN without evidence"""
    scale_sigma: F64
    phase_before: F64
    """(F,) phase shift in degrees"""
    phase: F64
    """(F,) fitted; NaN without evidence, or where it was not fitted"""
    phase_sigma: F64
    slab: Slab | None = None
    factor: float = 1.0
    """contrast of the series against the others, part of `scale`"""
    contrast: Verdict | None = None
    """on the factor; None for a single series"""
    defocus_applied: NDArray[np.bool_] | None = None
    scale_applied: NDArray[np.bool_] | None = None
    phase_applied: NDArray[np.bool_] | None = None
    """(F,) set by `applied`"""
    shift: float = 0.0
    """change of the defocus of all tilts in Å that goes with a new Cs, set by `with_aberrations`"""

    @classmethod
    def without_evidence(cls, series: TiltSeries) -> SeriesResult:
        """A series whose particles no tilt shows."""
        nan = np.full(series.n_tilts, np.nan)
        zero = np.zeros(series.n_tilts, np.int64)
        shift = series.phase_shift_deg
        return cls(
            series.name, defocus_terms(series), series.ctf_scale, zero, None, None, nan, nan, shift, nan.copy(), nan
        )

    @classmethod
    def of(
        cls, series: TiltSeries, model: SeriesModel, fit: SeriesFit, held_out: HeldOut, shifted: SeriesFit | None = None
    ) -> SeriesResult:
        """From the fit to all particles; `shifted` is one with phase shifts, which may be another."""
        before = series.ctf_scale
        scale, sigma = before * fit.calibration.scale, np.abs(before) * fit.scale_sigma
        phase = phase_sigma = np.full(series.n_tilts, np.nan)
        if shifted is not None:
            known = shifted.tilts.known
            phase = np.where(known, series.phase_shift_deg + shifted.tilts.change[:, DEFOCUS_TERMS], np.nan)
            phase_sigma = shifted.tilts.sigma[:, DEFOCUS_TERMS] * held_out.inflation
        return cls(
            series.name,
            model.before[:, :DEFOCUS_TERMS],
            before,
            model.counts,
            fit,
            held_out,
            scale,
            sigma,
            series.phase_shift_deg,
            phase,
            phase_sigma,
        )

    @property
    def after(self) -> F64:
        """(F, 3) fitted mean defocus and astigmatism terms, Å."""
        if self.fit is None:
            return self.before
        return self.before + self.fit.tilts.change[:, :DEFOCUS_TERMS] + [self.shift, 0.0, 0.0]

    @property
    def sigma(self) -> F64:
        """(F, 3) standard deviations in Å, as large as the differences of the halves ask for."""
        if self.fit is None or self.held_out is None:
            return np.full(self.before.shape, np.nan)
        return self.fit.tilts.sigma[:, :DEFOCUS_TERMS] * self.held_out.inflation

    @property
    def known(self) -> NDArray[np.bool_]:
        """(F,) tilts with evidence about the defocus."""
        return np.zeros(len(self.before), bool) if self.fit is None else self.fit.tilts.known

    def verdicts(self) -> dict[str, Verdict]:
        """By family of parameters, of those that were fitted."""
        if self.held_out is None:
            return {}
        held_out = self.held_out
        found = {
            "defocus": held_out.defocus,
            "phase_shift": held_out.phase_shift,
            "scale": held_out.scale,
            "series_scale": self.contrast,
        }
        return {name: verdict for name, verdict in found.items() if verdict is not None}


@dataclass(slots=True)
class GroupResult:
    """Aberrations of one optics group."""

    index: int
    """in the list of optics groups"""
    name: str
    evidence: GroupEvidence
    fits: dict[str, Aberration]
    """by parity, `even` or `odd`"""
    applied: dict[str, bool] = field(default_factory=dict)
    """set by `with_aberrations`"""


def with_aberrations(
    optset: OptimisationSet, results: Sequence[SeriesResult], groups: Sequence[GroupResult], *, force: bool
) -> OptimisationSet:
    """The set with the aberrations that held-out particles found, added to the stored ones.

    A change of Cs goes to an optics group and to its tilt series, with the change of defocus that belongs to it.
    """
    optics, series = list(optset.optics), list(optset.series)
    number_of = series_index(optset)
    for group in groups:
        for parity, fit in group.fits.items():
            group.applied[parity] = force or fit.verdict.improved
            one = optics[group.index]
            if not group.applied[parity]:
                continue
            if not fit.even:
                optics[group.index] = replace(one, odd_zernike=added(one.odd_zernike, fit.coefficients))
                continue
            coefficients = fit.coefficients
            if coefficients.any():
                one = replace(one, even_zernike=added(one.even_zernike, coefficients))
            if fit.spherical is not None:
                change = fit.spherical
                one = replace(one, spherical_aberration_mm=one.spherical_aberration_mm + change.millimetres)
                for number in np.unique(number_of[optset.particles.optics_index == group.index]):
                    results[number].shift = change.defocus_angstrom
                    series[number] = replace(
                        series[number],
                        spherical_aberration_mm=one.spherical_aberration_mm,
                        defocus_u_angstrom=series[number].defocus_u_angstrom + change.defocus_angstrom,
                        defocus_v_angstrom=series[number].defocus_v_angstrom + change.defocus_angstrom,
                    )
            optics[group.index] = one
    # a table has coefficients for all groups or for none
    even, odd = (np.zeros(max(len(getattr(one, f"{parity}_zernike")) for one in optics)) for parity in ("even", "odd"))
    optics = [
        replace(one, even_zernike=added(one.even_zernike, even), odd_zernike=added(one.odd_zernike, odd))
        for one in optics
    ]
    return replace(optset, optics=tuple(optics), series=tuple(series))


def share_contrast(results: Sequence[SeriesResult], families: int) -> None:
    """Scales of all series against the same maps, in place: the mean over all of them stays."""
    fitted = [(result, result.fit, result.held_out) for result in results if result.fit and result.held_out]
    if len(fitted) < 2:
        return
    evidence = [
        ContrastEvidence(
            of_series(fit.linear, fit.quadratic, fit.calibration.scale), held_out.halves, held_out.held_out
        )
        for _, fit, held_out in fitted
    ]
    factors = fit_factors(evidence, families)
    for (result, _, _), factor, verdict in zip(fitted, factors.factor, factors.verdicts, strict=True):
        result.contrast = verdict
        if np.isfinite(factor) and factor > 0:
            result.factor = float(factor)
            result.scale = result.scale * result.factor
            result.scale_sigma = result.scale_sigma * result.factor


def fit_slabs(series: Sequence[TiltSeries], results: Sequence[SeriesResult], *, common: bool) -> None:
    """A slab of ice for every series, in place; with the luminance in common if asked for."""
    parts = []
    for one, result in zip(series, results, strict=True):
        known = np.isfinite(result.scale) & (result.scale_sigma > 0)
        h = np.where(known, 1.0 / np.where(known, result.scale_sigma, 1.0) ** 2, 0.0)
        g = np.where(known, result.scale, 0.0) * h
        parts.append(SlabEvidence(g, h, one.projection, dose_per_tilt(one.pre_exposure)))
    slabs = fit_common(parts) if common else [fit_slab(part.g, part.h, part.projection) for part in parts]
    for result, slab in zip(results, slabs, strict=True):
        result.slab = slab


def dose_per_tilt(pre_exposure: F64) -> float:
    """Median step of the dose from one tilt to the next, e/Å^2; 1 where it is not known."""
    steps = np.diff(np.sort(pre_exposure))
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 1.0


def applied(
    optset: OptimisationSet, results: Sequence[SeriesResult], *, force: bool, lambert: bool = False
) -> OptimisationSet:
    """The set with the CTFs that held-out particles found better, or all of them with `force`.

    Tilts without evidence keep theirs, and so do scales that are not positive.
    """
    series = []
    for one, result in zip(optset.series, results, strict=True):
        verdicts = result.verdicts()
        defocus, phase, scale, contrast = (
            name in verdicts and (force or verdicts[name].improved)
            for name in ("defocus", "phase_shift", "scale", "series_scale")
        )
        fitted = result.slab.scale if lambert and result.slab is not None else result.scale
        values = (fitted / result.factor if scale else one.ctf_scale) * (result.factor if contrast else 1.0)
        result.defocus_applied = result.known & defocus
        result.scale_applied = np.isfinite(fitted) & (np.nan_to_num(fitted) > 0) & (scale or contrast)
        # a phase shift is that of its defocus: they are applied together or not at all
        result.phase_applied = np.isfinite(result.phase) & result.defocus_applied & phase
        new = with_defocus(one, result.after, result.defocus_applied)
        series.append(
            replace(
                new,
                ctf_scale=np.where(result.scale_applied, values, one.ctf_scale),
                phase_shift_deg=np.where(result.phase_applied, result.phase, one.phase_shift_deg),
            )
        )
    return replace(optset, series=tuple(series))


def write_results(
    job: Job,
    old: OptimisationSet,
    new: OptimisationSet,
    results: Sequence[SeriesResult],
    groups: Sequence[GroupResult],
    *,
    slabs: bool,
) -> dict[str, Path]:
    """Tomogram set, optimisation set and `ctf.json`, particles where aberrations changed; returns their paths.

    `slabs` writes luminance, thickness and normal of the ice to the columns that RELION has for them.
    """
    outputs = {name: job.path(f"{name}.star") for name in ("tomograms", "optimisation_set")}
    outputs["ctf"] = job.path("ctf.json")
    columns = slab_columns([result.slab for result in results]) if slabs else {}
    write_tomograms(outputs["tomograms"], old, series=new.series, global_columns=columns)
    files: dict[str, str | Path] = {
        key: path for key, path in old.paths.items() if key not in ("optimisation_set", "tomograms")
    }
    if any(any(group.applied.values()) for group in groups):
        files["particles"] = outputs["particles"] = job.path("particles.star")
        write_particles(outputs["particles"], new)
        job.add_output(outputs["particles"], "ParticleGroupMetadata.star.relion.tomo.ctfrefine")
    write_optimisation_set(outputs["optimisation_set"], **files, tomograms=outputs["tomograms"])
    content: dict[str, Any] = {"series": {result.name: described(result) for result in results}}
    if groups:
        content["optics"] = {group.name: described_group(old, group) for group in groups}
    write_text(outputs["ctf"], json.dumps(content, indent=1, allow_nan=False) + "\n")
    job.add_output(outputs["tomograms"], "TomogramGroupMetadata.star.relion.tomo.ctfrefine")
    job.add_output(outputs["optimisation_set"], "TomoOptimisationSet.star.relion.tomo.ctfrefine")
    job.add_output(outputs["ctf"])
    return outputs


def slab_columns(slabs: Sequence[Slab | None]) -> dict[str, F64]:
    """RELION's columns of the ice of all series; none, of luminance 1, where it is not known."""
    rows = [(1.0, 0.0, 0.0, 0.0, 1.0) if one is None else (one.luminance, one.thickness, *one.normal) for one in slabs]
    return dict(zip(SLAB_LABELS, np.array(rows).T, strict=True))


def described(result: SeriesResult) -> dict[str, Any]:
    """One series of `ctf.json`: numbers that are not known are null."""
    defocus = np.zeros(len(result.before), bool) if result.defocus_applied is None else result.defocus_applied
    scale = np.zeros(len(result.before), bool) if result.scale_applied is None else result.scale_applied
    content: dict[str, Any] = {"particles": result.counts.tolist(), "evidence": result.known.tolist()}
    verdicts = result.verdicts()
    if "defocus" in verdicts:
        for index, name in enumerate(PARAMETERS):
            content[f"{name}_angstrom"] = {
                "value": numbers(np.where(result.known, result.after[:, index], np.nan)),
                "sigma": numbers(result.sigma[:, index]),
                "before": numbers(result.before[:, index]),
                "applied": defocus.tolist(),
            }
    if "phase_shift" in verdicts:
        phase = np.zeros(len(result.before), bool) if result.phase_applied is None else result.phase_applied
        content["phase_shift_deg"] = {
            "value": numbers(result.phase),
            "sigma": numbers(result.phase_sigma),
            "before": numbers(result.phase_before),
            "applied": phase.tolist(),
        }
    if "scale" in verdicts:
        content["scale"] = {
            "value": numbers(result.scale),
            "sigma": numbers(result.scale_sigma),
            "before": numbers(result.scale_before),
            "applied": scale.tolist(),
        }
    if result.fit is not None:
        names = ("defocus_angstrom", "astigmatism_angstrom", "phase_shift_deg")
        widths = dict(zip(names, result.fit.widths, strict=False))
        content["scatter"] = {name: number(width) for name, width in widths.items()}
    if result.slab is not None:
        slab = result.slab
        content["lambert"] = {
            "luminance": number(slab.luminance),
            "thickness": number(slab.thickness),
            "normal": numbers(slab.normal),
            "sigma": dict(zip(("log_luminance", "thickness", "angle_deg"), numbers(slab.sigma), strict=True)),
            "scale": numbers(slab.scale),
        }
    if result.contrast is not None:
        content["series_scale"] = number(result.factor)
    content["verdict"] = {name: asdict(verdict) for name, verdict in verdicts.items()}
    return content


def described_group(old: OptimisationSet, group: GroupResult) -> dict[str, Any]:
    """One optics group of `ctf.json`: Zernike coefficients, and the terms they were fitted as."""
    content: dict[str, Any] = {}
    for parity, fit in group.fits.items():
        before = getattr(old.optics[group.index], f"{parity}_zernike")
        content[parity] = {
            "value": [float(value) for value in added(before, fit.coefficients)],
            "before": [float(value) for value in before],
            "terms": [
                {"m": m, "n": n, "radians": number(value), "sigma": number(sigma)}
                for (m, n), value, sigma in zip(fit.terms, fit.values, fit.sigma, strict=True)
            ],
            "at_angstrom": number(1.0 / fit.highest),
            "applied": group.applied[parity],
            "verdict": asdict(fit.verdict),
        }
        if fit.spherical is not None:
            stated = old.optics[group.index].spherical_aberration_mm
            content["spherical_aberration_mm"] = {
                "value": number(stated + fit.spherical.millimetres),
                "sigma": number(fit.spherical.sigma_millimetres),
                "before": number(stated),
                "defocus_angstrom": number(fit.spherical.defocus_angstrom),
                "applied": group.applied[parity],
            }
    return content


def number(value: float) -> float | None:
    """A number JSON can hold."""
    return round(float(value), 6) if np.isfinite(value) else None


def numbers(values: F64) -> list[float | None]:
    """Numbers JSON can hold."""
    return [number(value) for value in values]
