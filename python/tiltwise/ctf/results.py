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
from tiltwise.ctf.held_out import HeldOut
from tiltwise.ctf.lambert import Slab, fit_slab
from tiltwise.ctf.series import SeriesFit, SeriesModel
from tiltwise.ctf.shells import calibrate
from tiltwise.ctf.verdict import Verdict
from tiltwise.exec import Job
from tiltwise.files import write_text
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles, write_tomograms
from tiltwise.model import OptimisationSet, TiltSeries

F64 = NDArray[np.float64]
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
    slab: Slab | None = None
    defocus_applied: NDArray[np.bool_] | None = None
    scale_applied: NDArray[np.bool_] | None = None
    """(F,) set by `applied`"""

    @classmethod
    def without_evidence(cls, series: TiltSeries) -> SeriesResult:
        """A series whose particles no tilt shows."""
        nan = np.full(series.n_tilts, np.nan)
        zero = np.zeros(series.n_tilts, np.int64)
        return cls(series.name, defocus_terms(series), series.ctf_scale, zero, None, None, nan, nan)

    @classmethod
    def of(cls, series: TiltSeries, model: SeriesModel, fit: SeriesFit, held_out: HeldOut) -> SeriesResult:
        """From the fit to all particles."""
        before = series.ctf_scale
        scale, sigma = before * fit.calibration.scale, np.abs(before) * fit.scale_sigma
        return cls(series.name, model.before, before, model.counts, fit, held_out, scale, sigma)

    @property
    def after(self) -> F64:
        """(F, 3) fitted mean defocus and astigmatism terms, Å."""
        return self.before if self.fit is None else self.before + self.fit.tilts.change

    @property
    def sigma(self) -> F64:
        """(F, 3) standard deviations in Å, as large as the differences of the halves ask for."""
        if self.fit is None or self.held_out is None:
            return np.full(self.before.shape, np.nan)
        return self.fit.tilts.sigma * self.held_out.inflation

    @property
    def known(self) -> NDArray[np.bool_]:
        """(F,) tilts with evidence about the defocus."""
        return np.zeros(len(self.before), bool) if self.fit is None else self.fit.tilts.known

    def verdicts(self) -> dict[str, Verdict]:
        """By family of parameters, of those that were fitted."""
        if self.held_out is None:
            return {}
        found = {"defocus": self.held_out.defocus, "scale": self.held_out.scale}
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


def with_aberrations(optset: OptimisationSet, groups: Sequence[GroupResult], *, force: bool) -> OptimisationSet:
    """The set with the aberrations that held-out particles found, added to the stored ones."""
    optics = list(optset.optics)
    for group in groups:
        for parity, fit in group.fits.items():
            group.applied[parity] = force or fit.verdict.improved
            one = optics[group.index]
            if not group.applied[parity]:
                continue
            if fit.even:
                optics[group.index] = replace(one, even_zernike=added(one.even_zernike, fit.coefficients))
            else:
                optics[group.index] = replace(one, odd_zernike=added(one.odd_zernike, fit.coefficients))
    return replace(optset, optics=tuple(optics))


def share_gains(results: Sequence[SeriesResult]) -> None:
    """Scales of all tilts of all series against one reference, in place: gains are common, the mean scale stays."""
    fitted = [(result, result.fit) for result in results if result.fit is not None]
    if len(fitted) < 2:
        return
    linear = np.concatenate([fit.linear for _, fit in fitted])
    joint = calibrate(linear, np.concatenate([fit.quadratic for _, fit in fitted]))
    cuts = np.cumsum([len(result.scale) for result, _ in fitted])[:-1]
    for (result, fit), scale in zip(fitted, np.split(joint.scale, cuts), strict=True):
        information = fit.quadratic @ joint.gain**2
        known = information > 0
        result.scale = result.scale_before * scale
        sigma = np.where(known, 1.0 / np.sqrt(np.where(known, information, 1.0)), np.nan)
        result.scale_sigma = np.abs(result.scale_before) * sigma


def fit_slabs(series: Sequence[TiltSeries], results: Sequence[SeriesResult]) -> None:
    """A slab of ice for every series, in place."""
    for one, result in zip(series, results, strict=True):
        known = np.isfinite(result.scale) & (result.scale_sigma > 0)
        h = np.where(known, 1.0 / np.where(known, result.scale_sigma, 1.0) ** 2, 0.0)
        result.slab = fit_slab(np.where(known, result.scale, 0.0) * h, h, one.projection)


def applied(
    optset: OptimisationSet, results: Sequence[SeriesResult], *, force: bool, lambert: bool = False
) -> OptimisationSet:
    """The set with the CTFs that held-out particles found better, or all of them with `force`.

    Tilts without evidence keep theirs, and so do scales that are not positive.
    """
    series = []
    for one, result in zip(optset.series, results, strict=True):
        verdicts = result.verdicts()
        defocus, scale = (name in verdicts and (force or verdicts[name].improved) for name in ("defocus", "scale"))
        values = result.slab.scale if lambert and result.slab is not None else result.scale
        result.defocus_applied = result.known & defocus
        result.scale_applied = np.isfinite(values) & (np.nan_to_num(values) > 0) & scale
        new = with_defocus(one, result.after, result.defocus_applied)
        series.append(replace(new, ctf_scale=np.where(result.scale_applied, values, one.ctf_scale)))
    return replace(optset, series=tuple(series))


def write_results(
    job: Job,
    old: OptimisationSet,
    new: OptimisationSet,
    results: Sequence[SeriesResult],
    groups: Sequence[GroupResult],
) -> dict[str, Path]:
    """Tomogram set, optimisation set and `ctf.json`, particles where aberrations changed; returns their paths."""
    outputs = {name: job.path(f"{name}.star") for name in ("tomograms", "optimisation_set")}
    outputs["ctf"] = job.path("ctf.json")
    write_tomograms(outputs["tomograms"], old, series=new.series)
    files: dict[str, str | Path] = {
        key: path for key, path in old.paths.items() if key not in ("optimisation_set", "tomograms")
    }
    if any(any(group.applied.values()) for group in groups):
        files["particles"] = outputs["particles"] = job.path("particles.star")
        write_particles(outputs["particles"], new)
        job.add_output(outputs["particles"], "ParticleGroupMetadata.star.relion.tomo.refinectf")
    write_optimisation_set(outputs["optimisation_set"], **files, tomograms=outputs["tomograms"])
    content: dict[str, Any] = {"series": {result.name: described(result) for result in results}}
    if groups:
        content["optics"] = {group.name: described_group(old, group) for group in groups}
    write_text(outputs["ctf"], json.dumps(content, indent=1, allow_nan=False) + "\n")
    job.add_output(outputs["tomograms"], "TomogramGroupMetadata.star.relion.tomo.refinectf")
    job.add_output(outputs["optimisation_set"], "TomoOptimisationSet.star.relion.tomo.refinectf")
    job.add_output(outputs["ctf"])
    return outputs


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
    if "scale" in verdicts:
        content["scale"] = {
            "value": numbers(result.scale),
            "sigma": numbers(result.scale_sigma),
            "before": numbers(result.scale_before),
            "applied": scale.tolist(),
        }
    if result.fit is not None:
        widths = dict(zip(("defocus_angstrom", "astigmatism_angstrom"), result.fit.widths, strict=True))
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
    return content


def number(value: float) -> float | None:
    """A number JSON can hold."""
    return round(float(value), 6) if np.isfinite(value) else None


def numbers(values: F64) -> list[float | None]:
    """Numbers JSON can hold."""
    return [number(value) for value in values]
