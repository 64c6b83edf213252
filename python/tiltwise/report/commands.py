"""The report of each command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.options import ImageOptions, ReconstructOptions, RefineOptions
from tiltwise.geometry.pose_errors import pose_errors
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.report import pages
from tiltwise.report.html import Section, Summary, write_report

from tiltwise.sim.score import poses_of

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
    write_report(path, f"Reconstruct {options.output}", summary, sections)


def write_refine_report(path: Path, options: RefineOptions, result: RefineResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise refine`; `manifest` is the content of `job.json`."""
    summary = Summary(
        f"{result.stop_reason[0].upper()}{result.stop_reason[1:]}.",
        _facts(options, result, manifest),
        manifest["warnings"],
        next_after_refine(options, result),
    )
    maps = {"map": result.map, "half 1": result.halves[0], "half 2": result.halves[1]}
    sections = _common_sections(options, result, maps)
    sections.append(pages.iterations_section(result.history, 2 * result.pixel_size))
    start = load_optimisation_set(
        options.input,
        tomograms=options.tomograms,
        particles=options.particles,
        trajectories=options.trajectories,
        need_images=False,
    )
    symmetry = symmetry_matrices(options.symmetry)
    moved = pose_errors(*poses_of(result.optset), *poses_of(start), symmetry=symmetry)
    certainty = np.array([estimate.max_probability for estimate in result.estimates])
    sections.append(pages.poses_section(certainty, moved.angle_deg, moved.distance))
    write_report(path, f"Refine {options.output}", summary, sections + pages.provenance_sections(manifest))


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
    write_report(path, f"Simulate {options.output}", summary, kept + pages.provenance_sections(manifest))


def next_after_refine(options: RefineOptions, result: RefineResult) -> str:
    """Command that is most useful after a refinement: finer images at Nyquist, else the map of the new poses."""
    at_nyquist = result.resolution_angstrom < 1.05 * 2.0 * result.pixel_size and options.binning > 1
    chosen = {
        "--i": result.outputs["optimisation_set"],
        "--b": options.box * (2 if at_nyquist else 1),
        "--crop": options.map_size * (2 if at_nyquist else 1),
        "--bin": max(1.0, options.binning / 2) if at_nyquist else options.binning,
        "--sym": options.symmetry,
    }
    if at_nyquist:
        chosen["--ref"] = result.outputs["map"]
    name = "refine" if at_nyquist else "reconstruct"
    arguments = [
        text
        for flag, value in chosen.items()
        for text in (flag, f"{value:g}" if isinstance(value, float) else str(value))
    ]
    return shlex.join(["tiltwise", name, *arguments, "--o", f"{options.output}_{name}"])


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
        "time": _duration(sum(manifest["timings_s"].values())),
    }


def _common_sections(
    options: ImageOptions, result: ReconstructResult | RefineResult, maps: Mapping[str, Any]
) -> list[Section]:
    diameter = options.particle_diameter or result.map.shape[0] * result.pixel_size
    symmetry = symmetry_matrices(options.symmetry)
    sections: list[Section | None] = [
        pages.map_section(maps, result.pixel_size, options.particle_diameter),
        pages.fsc_section({"half maps": result.fsc}, result.pixel_size, inside="the mask of the particle"),
        pages.positions_section(result.optset, diameter),
        pages.angles_section(result.optset, symmetry if len(symmetry) > 1 else None),
    ]
    return [section for section in sections if section is not None]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
