"""Reports of the commands: which figures, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.symmetry_check import SymmetryCheck
from tiltwise.exec.protocols import Scalar
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.io.tilt_images import TiltImages
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.report.curves import fsc_curves, fsc_history_curves, iteration_curves, symmetry_curves
from tiltwise.report.html import Section, Table
from tiltwise.report.maps import map_slices
from tiltwise.report.particles import (
    angular_distribution,
    evenness,
    pose_histograms,
    positions_on_tilt,
    viewing_directions,
)


def map_section(
    maps: Mapping[str, NDArray[np.float32]], pixel_size: float, diameter_angstrom: float | None = None
) -> Section:
    """Slices and projections of maps of one size."""
    return Section(
        "Maps",
        "Central slices and projections, density white. Worry if the particle is off the centre, touches the edge "
        "of the box, or shows rings or spokes around it.",
        figure=map_slices(dict(maps), pixel_size, diameter_angstrom),
        form="png",
        shape="wide",
    )


def fsc_section(
    curves: Mapping[str, NDArray[np.floating]],
    pixel_size: float,
    *,
    thresholds: Mapping[str, float] | None = None,
    inside: str,
) -> Section:
    """FSC curves; `inside` says which mask was applied, as in `a soft sphere of 210 Å`."""
    length = len(next(iter(curves.values())))
    frequency = np.arange(length) / (2 * (length - 1) * pixel_size)
    columns = ["shell", "1/Å", *curves]
    rows: list[list[Scalar]] = [
        [shell, float(frequency[shell]), *(float(values[shell]) for values in curves.values())]
        for shell in range(length)
    ]
    return Section(
        "Fourier shell correlation",
        f"Agreement of independent halves of the data, inside {inside}. Worry if a curve stays above zero to Nyquist "
        "(then binning limits the resolution, or the halves are not independent), or dips and rises again.",
        figure=fsc_curves(curves, pixel_size, thresholds=thresholds),
        data=Table(columns, rows),
    )


def fsc_history_section(curves: Mapping[int, NDArray[np.float64]], pixel_size: float) -> Section:
    """FSC of the iterations of a refinement, by their numbers."""
    length = len(next(iter(curves.values())))
    frequency = np.arange(length) / (2 * (length - 1) * pixel_size)
    columns = ["shell", "1/Å", *(f"iteration {number}" for number in curves)]
    rows: list[list[Scalar]] = [
        [shell, float(frequency[shell]), *(float(values[shell]) for values in curves.values())]
        for shell in range(length)
    ]
    return Section(
        "FSC by iteration",
        "Agreement of the half maps after every iteration, earlier ones faded. Worry if curves get worse, or if they "
        "rise beyond the resolution to which poses were compared.",
        figure=fsc_history_curves(curves, pixel_size),
        data=Table(columns, rows),
    )


def symmetry_section(check: SymmetryCheck, name: str, pixel_size: float) -> Section:
    """Whether the particle has the point group `name`."""
    curves = {"has the symmetry": check.symmetric, "has it not": check.rest}
    verdict = (
        f"That agrees ({check.found}): the particle does not have this symmetry"
        if check.broken
        else f"That agrees no more than noise may ({check.found}): nothing speaks against this symmetry"
    )
    columns = ["shell", *curves]
    rows: list[list[Scalar]] = [
        [shell, *(float(values[shell]) for values in curves.values())] for shell in range(check.shells + 1)
    ]
    return Section(
        f"Symmetry {name}",
        f"Maps of {check.particles} particles of each half set, free to choose among their symmetry mates: FSC between "
        f"the half sets of what has the symmetry, and of what symmetrising takes away. {verdict}. "
        "Worry if the lower curve stays above zero over many shells.",
        figure=symmetry_curves(curves, check.sigma, check.shells, pixel_size),
        data=Table(columns, rows),
    )


def angles_section(optset: OptimisationSet, symmetry: NDArray[np.float64] | None = None) -> Section:
    """Angular distribution of all particles; `symmetry` `(G, 3, 3)` adds equivalent directions."""
    return directions_section(poses_of(optset)[0], symmetry)


def directions_section(rotations: NDArray[np.float64], symmetry: NDArray[np.float64] | None = None) -> Section:
    """Angular distribution of rotations `(P, 3, 3)` from the reference into the tomogram."""
    even = evenness(viewing_directions(rotations, symmetry))
    copies = "" if symmetry is None else ", with symmetry copies"
    rows = [[*row] for row in np.round(matrix_to_euler(rotations), 3).tolist()]
    return Section(
        "Angular distribution",
        f"Direction of the beam at zero tilt in the frame of the map{copies}. Evenness {even:.2f} (1: all around, "
        "0: in one plane). Worry if whole regions are empty and the map is smeared along one direction.",
        figure=angular_distribution(rotations, symmetry),
        data=Table(["rot", "tilt", "psi"], rows),
    )


def positions_section(optset: OptimisationSet, diameter_angstrom: float) -> Section | None:
    """Particles on the image nearest to zero tilt of the first series; None when no images are at hand."""
    series = next((s for s in optset.series if s.image_files), None)
    if series is None:
        return None
    particles = optset.particles
    members = [i for i, name in enumerate(particles.tomogram) if name == series.name]
    if not members:
        return None
    positions = poses_of(optset)[1][members] / series.pixel_size_angstrom
    tilt = int(np.argmin(np.abs(series.nominal_tilt_deg)))
    points = series.project(positions, tilt)[:, 0, :2]
    return Section(
        "Particles in the tilt series",
        f"{len(members)} particles on the image at {series.nominal_tilt_deg[tilt]:.0f}° of {series.name}. Worry if the "
        "circles miss the particles, all in one direction or mirrored: then positions, pixel size or alignment do not "
        "belong to these images.",
        figure=positions_on_tilt(
            TiltImages(series).image(tilt),
            points,
            diameter_angstrom / series.pixel_size_angstrom,
            series.pixel_size_angstrom,
            f"{series.name}, {series.nominal_tilt_deg[tilt]:.0f}°",
        ),
        form="png",
        shape="tall",
        data=Table(
            ["particle", "x px", "y px"],
            [[particles.name[i], float(x), float(y)] for i, (x, y) in zip(members, np.round(points, 2), strict=True)],
        ),
    )


def iterations_section(rows: Sequence[Mapping[str, Scalar]], nyquist_angstrom: float | None) -> Section:
    """How a refinement went."""
    table = Table(list(rows[0]), [list(row.values()) for row in rows])
    return Section(
        "Iterations",
        "The end is reached when the resolution no longer improves and poses change by less than the data allow to "
        "tell; where posteriors need a grid, when its sampling is finer than that. Worry if changes stay large, or if "
        "the resolution gets worse.",
        figure=iteration_curves(rows, nyquist_angstrom),
        table=table,
        folded=True,
        data=table,
        shape="wide",
    )


def poses_section(
    max_probability: NDArray[np.float64], change_deg: NDArray[np.float64], change_angstrom: NDArray[np.float64]
) -> Section:
    """Certainty of the poses and their distance from the start, arrays `(P,)`."""
    columns = np.stack([max_probability, change_deg, change_angstrom], axis=1)
    return Section(
        "Poses",
        "Worry if most probabilities are near zero (the data do not decide between poses), or if many particles have "
        "moved by more than the search range allows in one step.",
        figure=pose_histograms(max_probability, change_deg, change_angstrom),
        data=Table(["max_probability", "change_deg", "change_angstrom"], np.round(columns, 4).tolist()),
        shape="wide",
    )


def provenance_sections(manifest: Mapping[str, Any]) -> list[Section]:
    """What was run, with which options, on which files, for how long; from the content of `job.json`."""
    parameters = [
        [name, _text(entry["value"]), entry["unit"], entry["origin"]] for name, entry in manifest["parameters"].items()
    ]
    parameters.sort(key=lambda row: row[3] != "user")
    host, program = manifest["host"], manifest["program"]
    run: list[list[Scalar]] = [
        ["command", manifest["command_line"]],
        ["folder", manifest["working_directory"]],
        ["program", f"tiltwise {program['tiltwise']}, Python {program['python']}"],
        ["machine", f"{host['name']}: {host['cpu']}, {host['cores']} cores, {host['memory_gb']} GB"],
    ]
    run.extend([f"time: {name}", f"{seconds:.1f} s"] for name, seconds in manifest["timings_s"].items())
    sections = [
        Section("Run", table=Table(["", ""], run)),
        Section(
            "Options",
            "Options given by the user first, then defaults.",
            table=Table(["option", "value", "unit", "origin"], parameters),
            folded=True,
        ),
    ]
    files = [["in", entry["path"]] for entry in manifest["inputs"]] + [
        ["out", entry["path"]] for entry in manifest["outputs"]
    ]
    if files:
        sections.append(Section("Files", table=Table(["", "path"], files)))
    return sections


def _text(value: Any) -> Scalar:
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)
