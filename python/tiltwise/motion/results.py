"""What an alignment leaves: tilt series, particles, trajectories, and a table of changes with their errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.exec import Job
from tiltwise.files import atomic_path
from tiltwise.geometry.deformation import Deformation
from tiltwise.io.optimisation_set import (
    write_optimisation_set,
    write_particles,
    write_tomograms,
    write_trajectories,
)
from tiltwise.model import OptimisationSet
from tiltwise.motion.curvature import Curvature
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.objective import Evidence, Free
from tiltwise.motion.outliers import Outlier
from tiltwise.motion.priors import Priors
from tiltwise.motion.residuals import Residuals
from tiltwise.motion.series import SeriesData
from tiltwise.motion.shifts import SharedShifts
from tiltwise.motion.verdict import Verdict
from tiltwise.motion.whole_images import WholeShifts

F64 = NDArray[np.float64]

SAMPLES = 48
"""Draws from the posterior that give the errors of predicted positions."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Standard deviations of what was fitted, tilts in the order of dose."""

    turn_deg: F64
    """(F, 3) about the axes of each image"""
    shift_angstrom: F64
    """(F, 2); where motion is fitted too, a common motion cannot be told from shifts"""
    position_angstrom: F64
    """(P, 3) along tomogram axes"""
    image_angstrom: F64
    """(F,) of predicted positions in the images, root mean square over particles and both axes"""
    coefficients: F64
    """(N, C) of deformations"""
    field_angstrom: F64
    """(N,) of the displacement by deformations, root mean square over the image"""


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """One series."""

    data: SeriesData
    specimen: Specimen
    alignment: Alignment
    verdicts: Sequence[Verdict] = ()
    applied: Mapping[str, bool] = field(default_factory=dict)
    errors: Errors | None = None
    shared: SharedShifts | None = None
    reason: str = ""
    """why nothing was applied"""
    outlier_tilts: Sequence[Outlier] = ()
    outlier_particles: Sequence[Outlier] = ()
    residuals: Residuals | None = None
    """None without images"""

    @classmethod
    def unchanged(
        cls, data: SeriesData, reason: str, verdicts: Sequence[Verdict] = (), shared: SharedShifts | None = None
    ) -> SeriesResult:
        """A series that stays as it was."""
        specimen = data.specimen()
        applied = {verdict.family: False for verdict in verdicts}
        return cls(data, specimen, Alignment.none(specimen), verdicts, applied, None, shared, reason)

    @property
    def moved_angstrom(self) -> F64:
        """(P, F, 2) change of the predicted positions in the images, tilts in the order of dose."""
        return self.alignment.predict(self.specimen) * self.data.series.pixel_size_angstrom

    @property
    def motion_angstrom(self) -> F64:
        """(P, F, 3) motion of the particles, tilts in the order of dose."""
        return self.alignment.motion(self.specimen) * self.data.series.pixel_size_angstrom

    @property
    def turn_deg(self) -> F64:
        """(F, 3) rotation vectors of the tilts about the axes of each image."""
        return np.asarray(np.degrees(Rotation.from_matrix(self.alignment.turn).as_rotvec()))

    @property
    def deformation(self) -> Deformation | None:
        """Of the images that was fitted, tilts in the order of dose."""
        return None if self.specimen.fields is None else self.alignment.deformation(self.specimen)

    @property
    def shift_angstrom(self) -> F64:
        """(F, 2) shifts of the images."""
        return self.alignment.shift_px * self.data.series.pixel_size_angstrom


def after_search(
    result: SeriesResult, original: SeriesData, search: WholeShifts, evidence: Evidence, free: Free, seed: int
) -> SeriesResult:
    """A result that began at shifts found in whole images, told from where the series was before."""
    specimen, errors = original.specimen(), result.errors
    shift = search.shift_px[original.order]
    used = bool(shift.any())
    left = result.residuals
    if left is not None:
        left = left.from_before(shift * original.series.pixel_size_angstrom)
    alignment = replace(result.alignment, shift_px=result.alignment.shift_px + shift)
    if used and errors is None:
        errors = errors_of(result.specimen, evidence, result.alignment, free, seed)
    return replace(
        result,
        data=original,
        specimen=specimen,
        alignment=alignment,
        verdicts=[search.verdict, *result.verdicts],
        applied={search.verdict.family: used, **result.applied},
        errors=errors,
        reason="" if used else result.reason,
        residuals=left,
    )


def errors_of(specimen: Specimen, evidence: Evidence, alignment: Alignment, free: Free, seed: int) -> Errors:
    """From the Fisher information at the alignment, in Å by the pixel size of `evidence`'s series."""
    solver = Curvature(specimen, evidence, alignment, free).solver(0.0)
    variance, particle, modes = solver.covariance()
    tilts = specimen.n_tilts
    sigma = np.sqrt(np.maximum(variance, 0.0)).reshape(tilts, 5)
    here = alignment.predict(specimen)
    rng = np.random.default_rng(seed)
    square = np.zeros((len(here), tilts))
    for _ in range(SAMPLES):
        drawn = alignment.moved(*solver.draw(rng, specimen.basis.shape[1]))
        square += ((drawn.predict(specimen) - here) ** 2).sum(axis=2) / 2.0
    counted = np.zeros((len(here), tilts))
    counted[evidence.particle, evidence.tilt] = 1.0
    mean = (square / SAMPLES * counted).sum(axis=0) / np.maximum(counted.sum(axis=0), 1.0)
    pixel, shape, basis = specimen.pixel_size_angstrom, alignment.amplitudes.shape, specimen.fields
    coefficients, field = np.zeros((shape[0], 0)), np.zeros(shape[0])
    if basis is not None:
        each = np.einsum("nanb->nab", modes.reshape(*shape, *shape))
        coefficients = np.sqrt(np.einsum("ca,nab,cb->nc", basis.units, each, basis.units, optimize=True))
        field = np.sqrt(np.einsum("naa->n", each)) * basis.mode_px * pixel
    return Errors(
        np.degrees(sigma[:, :3]),
        sigma[:, 3:] * pixel,
        np.sqrt(np.maximum(np.einsum("pii->pi", particle), 0.0)) * pixel,
        np.sqrt(mean) * pixel,
        coefficients,
        field,
    )


def write_results(
    job: Job,
    optset: OptimisationSet,
    halves: NDArray[np.int64],
    results: Sequence[SeriesResult],
    priors: Priors,
) -> tuple[OptimisationSet, dict[str, Path]]:
    """Writes tomograms, particles, trajectories, the set and `align.json`; returns the new set and the paths."""
    coordinates = optset.particles.coordinate_px.copy()
    series, trajectories = [], dict(optset.trajectories)
    moving = any(result.applied.get("motion", False) for result in results)
    for result in results:
        own = result.data
        if result.reason:
            series.append(own.series)
        else:
            projection = result.alignment.projection(result.specimen)[own.rank]
            changed = replace(own.series, projection=projection)
            if result.deformation is not None:
                changed = replace(changed, deformation=result.deformation.rows(own.rank))
            series.append(changed)
            coordinates[own.members] += result.alignment.displacement_px
        if moving:
            motion = result.motion_angstrom[:, own.rank]
            for member, path in zip(own.members, motion, strict=True):
                trajectories[optset.particles.name[member]] = path
    # references and verdicts hold for these halves, and so does the next FSC
    particles = replace(optset.particles, coordinate_px=coordinates, half_set=halves)
    new = replace(optset, series=tuple(series), particles=particles, trajectories=trajectories)
    outputs = {
        "tomograms": job.path("tomograms.star"),
        "particles": job.path("particles.star"),
        "optimisation_set": job.path("optimisation_set.star"),
        "table": job.path("align.json"),
    }
    write_tomograms(outputs["tomograms"], optset, series=new.series)
    write_particles(outputs["particles"], optset, particles=particles)
    named: dict[str, Path | str | None] = {"trajectories": optset.paths.get("trajectories")}
    if trajectories:
        outputs["trajectories"] = job.path("motion.star")
        write_trajectories(outputs["trajectories"], trajectories)
        named["trajectories"] = outputs["trajectories"]
    write_optimisation_set(
        outputs["optimisation_set"],
        particles=outputs["particles"],
        tomograms=outputs["tomograms"],
        trajectories=named["trajectories"],
        manifolds=optset.paths.get("manifolds"),
        mask=optset.paths.get("mask"),
    )
    with atomic_path(outputs["table"]) as path:
        path.write_text(json.dumps(table_of(results, priors, optset.particles.name), indent=1) + "\n")
    labels = {
        "tomograms": "TomogramGroupMetadata.star.relion.tomo.polish",
        "particles": "ParticleGroupMetadata.star.relion.tomo.polish",
        "optimisation_set": "TomoOptimisationSet.star.relion.tomo.polish",
        "trajectories": "TomoTrajectoryData.star.relion.tomo.polish",
    }
    for name, path in outputs.items():
        job.add_output(path, labels.get(name))
    return new, outputs


def figures_of(one: Outlier) -> dict[str, Any]:
    """Of a tilt or particle that is named."""
    return {
        "share_of_the_median": round(one.share, 4),
        "standard_deviations": round(one.deviation, 2),
        "signal": one.signal,
    }


def table_of(results: Sequence[SeriesResult], priors: Priors, names: Sequence[str]) -> dict[str, Any]:
    """`align.json`: tilts in the order of their rows; `names` are those of all particles of the set."""

    def rounded(values: F64) -> list[Any]:
        return (
            [None if not np.isfinite(v) else v for v in np.round(values, 5).tolist()]
            if values.ndim == 1
            else [rounded(row) for row in values]
        )

    table: dict[str, Any] = {"series": {}}
    motion, fields = priors.motion, priors.deformation
    if motion is not None:
        table["motion_prior"] = {
            "velocity_angstrom_per_dose": motion.velocity,
            "length_angstrom": motion.length_angstrom,
            "trials": motion.trials,
        }
    if fields is not None:
        table["deformation_prior"] = {
            "kind": fields.kind,
            "grid": fields.grid,
            "per": "tilt" if fields.per_tilt else "series",
            "displacement_rms_angstrom": fields.sigma_angstrom,
            "trials": fields.trials,
        }
    for result in results:
        rank, errors = result.data.rank, result.errors
        entry: dict[str, Any] = {
            "particles": int(result.data.seen.sum()),
            "verdicts": [
                {
                    "family": one.family,
                    "verdict": one.word,
                    "held_out_gain_nats": round(one.gain, 2),
                    "lower_limit_nats": None if not np.isfinite(one.limit) else round(one.limit, 2),
                    "blocks": one.blocks,
                    "applied": bool(result.applied.get(one.family, False)),
                }
                for one in result.verdicts
            ],
            "turn_deg": rounded(result.turn_deg[rank]),
            "shift_angstrom": rounded(result.shift_angstrom[rank]),
            "position_change_angstrom": rounded(
                result.alignment.displacement_px * result.data.series.pixel_size_angstrom
            ),
        }
        if errors is not None:
            entry |= {
                "turn_sigma_deg": rounded(errors.turn_deg[rank]),
                "shift_sigma_angstrom": rounded(errors.shift_angstrom[rank]),
                "position_sigma_angstrom": rounded(errors.position_angstrom),
                "predicted_position_sigma_angstrom": rounded(errors.image_angstrom[rank]),
            }
        basis, deformation = result.specimen.fields, result.deformation
        if basis is not None and deformation is not None:
            rows = rank if basis.per_tilt else np.zeros(1, np.intp)
            pixel = result.data.series.pixel_size_angstrom
            size = np.linalg.norm(result.alignment.amplitudes, axis=1) * basis.mode_px * pixel
            entry["deformation"] = {
                "coefficients": deformation.coefficients[rows].tolist(),
                "displacement_rms_angstrom": rounded(size[rows]),
            }
            if errors is not None:
                entry["deformation"] |= {
                    "coefficient_sigmas": errors.coefficients[rows].tolist(),
                    "displacement_sigma_angstrom": rounded(errors.field_angstrom[rows]),
                }
        if result.shared is not None:
            entry["clipped"] = result.shared.clipped[rank].tolist()
            entry["no_evidence"] = result.shared.unseen[rank].tolist()
        if result.residuals is not None:
            before, after = result.residuals.lengths()
            entry["residuals"] = {
                "particles_together": result.residuals.particles,
                "before_angstrom": rounded(before[rank]),
                "after_angstrom": rounded(after[rank]),
                "noise_angstrom": rounded(result.residuals.noise_angstrom[rank]),
            }
        entry["outlier_tilts"] = [
            {"row": int(result.data.order[one.index]), **figures_of(one)} for one in result.outlier_tilts
        ]
        entry["outlier_particles"] = [
            {"particle": names[result.data.members[one.index]], **figures_of(one)} for one in result.outlier_particles
        ]
        if result.reason:
            entry["unchanged_because"] = result.reason
        table["series"][result.data.series.name] = entry
    return table
