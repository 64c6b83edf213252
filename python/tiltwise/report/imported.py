"""Report of `tiltwise import`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltwise.interchange.options import ImportOptions
from tiltwise.report import pages
from tiltwise.report.acquisition import acquisition_section
from tiltwise.report.html import Cell, Section, Summary, Table, write_job_report

if TYPE_CHECKING:
    from tiltwise.interchange.run import ImportResult

CIRCLE_ANGSTROM = 200.0
"""Diameter of the circles in the picture of positions; the size of the particle is not known at import."""


def imported_text(result: ImportResult) -> str:
    """What came in, in one sentence."""
    optset = result.imported.optset
    count, particles = len(optset.series), len(optset.particles)
    series = f"{count} tilt series" + (f", {sum(one.n_tilts for one in optset.series)} tilts" if count else "")
    if not particles:
        return f"{series}; no particles"
    text = f"{particles} particles in {series}"
    if not np.isfinite(result.median_visible):
        return text + "; image sizes are not known, so positions are not checked"
    inside = "all" if result.inside == particles else f"{result.inside}"
    return f"{text}: {inside} project into an image, the median particle into {result.median_visible:.0f} tilts"


def write_import_report(path: Path, options: ImportOptions, result: ImportResult, manifest: Mapping[str, Any]) -> None:
    """Write the report; `manifest` is the content of `job.json`."""
    optset = result.imported.optset
    facts = {
        "from": result.source,
        "tilt series": str(len(optset.series)),
        "particles": str(len(optset.particles)),
        "half sets": "in the file" if len(optset.particles) and optset.particles.half_set.all() else "none",
    }
    sections = [_series_section(result), acquisition_section(optset.series)]
    if result.imported.conventions:
        rows = [[line] for line in result.imported.conventions]
        sections.append(
            Section(
                "Conventions",
                "How numbers of the other program were taken. Worry if a unit, origin or binning is not what you know.",
                table=Table(["applied"], rows),
            )
        )
    positions = pages.positions_section(optset, CIRCLE_ANGSTROM) if len(optset.particles) else None
    if positions is not None:
        sections.append(positions)
    if len(optset.particles):
        sections.append(pages.angles_section(optset))
    following = f"tiltwise check --i {result.outputs['optimisation_set']}"
    summary = Summary(
        imported_text(result) + ".", facts, manifest["warnings"], following if len(optset.particles) else ""
    )
    write_job_report(path, f"Import {options.output}", summary, sections + pages.provenance_sections(manifest))


def _series_section(result: ImportResult) -> Section:
    columns = [
        "tilt series",
        "tilts",
        "from °",
        "to °",
        "dose e/Å²",
        "defocus µm",
        "Å/px",
        "tomogram px",
        "hand",
        "particles",
    ]
    particles = np.array(result.imported.optset.particles.tomogram, dtype=object)
    rows: list[list[Cell]] = []
    for one in result.imported.optset.series:
        defocus = 0.5 * (one.defocus_u_angstrom + one.defocus_v_angstrom) / 1e4
        rows.append(
            [
                one.name,
                one.n_tilts,
                round(float(one.nominal_tilt_deg.min()), 1),
                round(float(one.nominal_tilt_deg.max()), 1),
                round(float(one.pre_exposure.max()), 1),
                round(float(np.median(defocus)), 2),
                round(one.pixel_size_angstrom, 4),
                " x ".join(str(size) for size in one.tomogram_size),
                f"{one.hand:+.0f}",
                int((particles == one.name).sum()),
            ]
        )
    return Section(
        "Tilt series",
        "Dose before the last tilt, median defocus. Worry if a dose or a defocus is zero, or a tilt is missing.",
        table=Table(columns, rows),
        shape="wide",
    )
