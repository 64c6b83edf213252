"""The report of each command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.options import ReconstructOptions, RefineOptions
from tiltwise.geometry.pose_errors import pose_errors
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.maps.inputs import read_set
from tiltwise.maps.masks import focus_mask
from tiltwise.maps.options import ImageOptions
from tiltwise.model.poses import poses_of
from tiltwise.report import pages
from tiltwise.report.focus import focus_sections
from tiltwise.report.html import Section, Summary, write_job_report
from tiltwise.report.live_figures import fsc_history
from tiltwise.report.surface import surface_panel
from tiltwise.report.units import duration

if TYPE_CHECKING:
    from tiltwise.em.reconstruct import ReconstructResult
    from tiltwise.em.refine import RefineResult
    from tiltwise.sim.options import SimulateOptions
    from tiltwise.sim.simulate import SimulatedData


def write_reconstruct_report(
    path: Path, options: ReconstructOptions, result: ReconstructResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise reconstruct`; `manifest` is the content of `job.json`."""
    resolution = f"{result.resolution_angstrom:.1f} Å"
    sentence = (
        f"Reconstructed from {len(result.optset.particles)} particles as their poses are in the file: {resolution}."
    )
    summary = Summary(sentence, _facts(options, result, manifest), manifest["warnings"])
    maps = {"map": result.map, "half 1": result.halves[0], "half 2": result.halves[1]}
    sections = _common_sections(options, result, maps) + pages.provenance_sections(manifest)
    write_job_report(path, f"Reconstruct {options.output}", summary, sections)


def write_refine_report(path: Path, options: RefineOptions, result: RefineResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise refine`; `manifest` is the content of `job.json`."""
    summary = Summary(
        f"{result.stop_reason[0].upper()}{result.stop_reason[1:]}.",
        _facts(options, result, manifest),
        manifest["warnings"],
        next_after_refine(options, result),
    )
    maps = {"map": result.map, "half 1": result.halves[0], "half 2": result.halves[1]}
    curves = None
    if result.masked is not None:
        curves = {
            "corrected": result.masked.corrected,
            "inside the mask": result.masked.masked,
            "random phases": result.masked.randomised,
            "whole box": result.masked.unmasked,
        }
    part = None if result.focus is None else result.focus.frame.diameter_angstrom
    sections = _common_sections(options, result, maps, curves, part)
    if result.symmetry is not None:
        sections.append(pages.symmetry_section(result.symmetry, options.symmetry, result.pixel_size))
    if result.focus is not None:
        sections += focus_sections(result.focus)
    sections.append(pages.iterations_section(result.history, 2 * result.pixel_size))
    start = read_set(options, need_images=False) if result.focus is None else result.focus.optset
    row_of = {name: row for row, name in enumerate(start.particles.name)}
    rows = [row_of[name] for name in result.optset.particles.name]  # some may have been left out
    before = (values[rows] for values in poses_of(start))
    moved = pose_errors(*poses_of(result.optset), *before, symmetry=symmetry_matrices(options.symmetry))
    certainty = np.array([estimate.max_probability for estimate in result.estimates])
    sections.append(pages.poses_section(certainty, moved.angle_deg, moved.distance))
    history = fsc_history(path.parent)
    if history is not None:
        sections.append(pages.fsc_history_section(*history))
    write_job_report(path, f"Refine {options.output}", summary, sections + pages.provenance_sections(manifest))


def write_simulate_report(
    path: Path, options: SimulateOptions, data: SimulatedData, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise simulate`; `manifest` is the content of `job.json`."""
    truth, pixel_size = read_map(data.true_map)
    reference, _ = read_map(data.reference)
    optset = load_optimisation_set(data.optimisation_set)
    facts = {
        "particles": f"{data.n_particles:,}",
        "tilt series": f"{options.tilt_series} of {data.n_tilts} tilts",
        "pixel size": f"{options.pixel_size:.3g} Å",
        "signal-to-noise": f"{data.snr:.2g}",
        "diameter": f"{data.particle_diameter_angstrom:.0f} Å",
    }
    sections: list[Section | None] = [
        pages.map_section({"truth": truth, "start": reference}, pixel_size, data.particle_diameter_angstrom),
        pages.positions_section(optset, data.particle_diameter_angstrom),
        pages.angles_section(optset),
    ]
    kept = [section for section in sections if section is not None]
    sentence = f"{data.n_particles} particles with known truth; every true parameter is in {data.truth}."
    summary = Summary(sentence, facts, manifest["warnings"])
    write_job_report(path, f"Simulate {options.output}", summary, kept + pages.provenance_sections(manifest))


def next_after_refine(options: RefineOptions, result: RefineResult) -> str:
    """Command that is most useful after a refinement: finer images at Nyquist, else post-processing."""
    at_nyquist = result.resolution_angstrom < 1.05 * 2.0 * result.pixel_size
    if at_nyquist and options.binning > 1 and result.focus is None:
        name, chosen = "refine", _finer_refinement(options, result)
    else:
        name, chosen = "postprocess", {"--i": options.output}
        mask = result.outputs.get("focus_mask", options.mask)
        if mask is not None:
            chosen["--mask"] = mask
    arguments = [
        text
        for flag, value in chosen.items()
        for text in (flag, f"{value:g}" if isinstance(value, float) else str(value))
    ]
    return shlex.join(["tiltwise", name, *arguments, "--o", f"{options.output}_{name}"])


def _finer_refinement(options: RefineOptions, result: RefineResult) -> dict[str, Any]:
    """Options of a refinement that goes on with less binning."""
    binning = max(1.0, options.binning / 2)
    finer = options.binning / binning
    chosen: dict[str, Any] = {
        "--i": result.outputs["optimisation_set"],
        "--b": 2 * round(options.box * finer / 2),
        "--crop": 2 * round(options.map_size * finer / 2),
        "--bin": binning,
        "--sym": options.symmetry,
        "--ref": result.outputs["map"],
        "--ini-high": float(np.ceil(1.5 * result.resolution_angstrom)),
    }
    if options.particle_diameter is not None:
        chosen["--particle-diameter"] = options.particle_diameter
    return chosen


def _facts(
    options: ImageOptions, result: ReconstructResult | RefineResult, manifest: Mapping[str, Any]
) -> dict[str, str]:
    return {
        "resolution (FSC 0.143)": f"{result.resolution_angstrom:.1f} Å",
        "particles": f"{len(result.optset.particles):,}",
        "tilt series": str(len(result.optset.series)),
        "pixel size": f"{result.pixel_size:.3g} Å",
        "box": f"{result.map.shape[0]} px",
        "symmetry": options.symmetry,
        "time": duration(sum(manifest["timings_s"].values())),
    }


def _common_sections(
    options: ImageOptions,
    result: ReconstructResult | RefineResult,
    maps: Mapping[str, Any],
    curves: Mapping[str, NDArray[np.float64]] | None = None,
    circle: float | None = None,
) -> list[Section]:
    diameter = options.particle_diameter or result.map.shape[0] * result.pixel_size
    symmetry = symmetry_matrices(options.symmetry)
    sections: list[Section | None] = [
        pages.map_section(maps, result.pixel_size, circle or options.particle_diameter),
        _surface(options, result),
        pages.fsc_section(curves or {"half maps": result.fsc}, result.pixel_size, inside="the mask of the particle"),
        pages.positions_section(result.optset, diameter),
        pages.angles_section(result.optset, symmetry if len(symmetry) > 1 else None),
    ]
    return [section for section in sections if section is not None]


def _surface(options: ImageOptions, result: ReconstructResult | RefineResult) -> Section:
    """Surface of the joined map inside the mask of the particle."""
    outputs, size = result.outputs, result.map.shape[0]
    return surface_panel(
        result.map,
        result.pixel_size,
        resolution_angstrom=result.resolution_angstrom,
        mask=focus_mask(outputs.get("focus_mask", options.mask), options.particle_diameter, size, result.pixel_size),
        map_file=outputs["map" if "map" in outputs else "merged"],
    )
