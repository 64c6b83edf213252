"""All checks of a set, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.check.findings import Findings
from tiltwise.check.options import CheckFolderOptions, CheckOptions
from tiltwise.check.particles import check_particles
from tiltwise.check.project import from_error, read_project
from tiltwise.check.tilts import check_tilt_series
from tiltwise.errors import TiltwiseError
from tiltwise.exec import Progress
from tiltwise.exec.protocols import Scalar
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model import OptimisationSet

if TYPE_CHECKING:
    from tiltwise.check.convention.decide import ConventionResult

F64 = NDArray[np.float64]

QUALITY = 4
"""Exit code of warnings with `--strict`."""
INVALID = 3


@dataclass(slots=True)
class CheckResult:
    """What was found, and what a report shows."""

    findings: Findings
    facts: dict[str, Scalar] = field(default_factory=dict)
    optset: OptimisationSet | None = None
    """None if the set cannot be read"""
    seen: NDArray[np.intp] | None = None
    """(P,) tilts that show each particle, -1 where not known"""
    nearest_angstrom: F64 | None = None
    """(P,) distance to the nearest particle, infinite without one"""
    conventions: ConventionResult | None = None
    noise: dict[str, F64] = field(default_factory=dict)
    """by series, (F,) of every tilt"""

    def exit_code(self, strict: bool) -> int:
        """0 without errors; 3 with; 4 with warnings if these count."""
        if self.findings.count("error"):
            return INVALID
        return QUALITY if strict and self.findings.count("warning") else 0

    def plain(self) -> Mapping[str, Any]:
        """As JSON holds it."""
        return {
            "status": "success",
            "counts": {name: self.findings.count(name) for name in ("error", "warning", "note")},
            "facts": self.facts,
            "conventions": None if self.conventions is None else self.conventions.plain(),
            "findings": [finding.plain() for finding in self.findings],
        }


def check(options: CheckOptions | CheckFolderOptions, progress: Progress) -> CheckResult:
    """Examine a set; whatever is wrong with it is a finding, no error."""
    findings = Findings()
    result = CheckResult(findings)
    project = read_project(options, findings)
    check_tilt_series(project, findings)
    check_particles(project, findings)
    unread = findings.count("error")
    if project.tomograms is None or project.particles is None:
        return result
    try:
        optset = load_optimisation_set(
            options.input,
            tomograms=options.tomograms,
            particles=options.particles,
            trajectories=options.trajectories,
            need_images=False,
            coordinate_binning=options.coordinate_binning,
            read=project.read,
        )
    except TiltwiseError as error:
        if unread:
            findings.add(
                "TW-FILE-04", "positions were not examined: the set cannot be read", project.paths.get("particles", "")
            )
        else:
            from_error(findings, error)
        return result
    result.optset = optset
    _examine(options, optset, result, progress)
    if options.reference is not None:
        from tiltwise.check.convention.findings import examine_conventions

        result.conventions = examine_conventions(options, optset, findings, progress)
    return result


def _examine(
    options: CheckOptions | CheckFolderOptions, optset: OptimisationSet, result: CheckResult, progress: Progress
) -> None:
    # scipy's trees take a while to import: not for a set that cannot be read
    from tiltwise.check.geometry import check_distances, check_field, place

    placed = place(optset)
    check_field(optset, placed, result.findings)
    result.nearest_angstrom = check_distances(optset, placed, options.particle_diameter, result.findings)
    result.seen = placed.seen
    tilts = [series.n_tilts for series in optset.series]
    known = placed.seen >= 0
    result.facts = {
        "particles": len(optset.particles),
        "tilt series": len(optset.series),
        "tilts": f"{min(tilts)}" if min(tilts) == max(tilts) else f"{min(tilts)} to {max(tilts)}",
        "tilts that see a particle (median)": int(np.median(placed.seen[known])) if known.any() else None,
        "pixel size": f"{optset.series[0].pixel_size_angstrom:.4g} Å",
        "hand": f"{optset.series[0].hand:+.0f}",
    }
    if options.images:
        from tiltwise.check.pixels import check_pixels

        with progress.task("tilt images", len(optset.series)) as task:
            for series in optset.series:
                noise = check_pixels(series, result.findings)
                if noise is not None:
                    result.noise[series.name] = noise
                task.advance(1)
        if len(result.noise) < len(optset.series):
            result.findings.add(
                "TW-FILE-04", f"pixels of {len(optset.series) - len(result.noise)} tilt series were not examined", ""
            )
