"""Sets and particles in the forms of RELION-5, RELION-4 and Warp, and as a plain table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.export.options import ExportOptions
from tiltwise.files import write_text
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.interchange.conventions import CSV_ANGSTROM, RELION5, RELION_ANGLES, WARP
from tiltwise.interchange.relion_forms import to_relion4, to_relion5
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles, write_tomograms
from tiltwise.io.star import StarBlock, StarDocument, write_star
from tiltwise.io.trajectories import write_trajectories
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import pixel_sizes, poses_of

F64 = NDArray[np.float64]
AXES = ("X", "Y", "Z")


def relion5(optset: OptimisationSet, options: ExportOptions, path: Callable[[str], Path]) -> list[str]:
    """An optimisation set of RELION-5: one table per tilt series, centred coordinates in Å.  Returns notes."""
    converted, notes = to_relion5(optset)
    return [*notes, *_write_set(converted, path)]


def relion4(optset: OptimisationSet, options: ExportOptions, path: Callable[[str], Path]) -> list[str]:
    """An optimisation set of RELION-4: embedded tables with matrices, pixel coordinates.  Returns notes."""
    converted, notes = to_relion4(optset)
    return [*notes, *_write_set(converted, path)]


def warp(optset: OptimisationSet, options: ExportOptions, path: Callable[[str], Path]) -> list[str]:
    """`particles.star` as Warp and M read it: pixel coordinates with origins applied, one orientation.

    The frame is that of the tomogram; for sets that were imported from Warp it is Warp's.
    """
    rotations, positions = poses_of(optset)
    pixel = pixel_sizes(optset)
    unit = pixel if options.coordinate_pixel_size is None else np.full(len(pixel), options.coordinate_pixel_size)
    size = {one.name: one.tomogram_size for one in optset.series}
    stored = WARP.to_stored(
        positions / pixel[:, None],
        binning=unit / pixel,
        tomogram_size=[size[name] for name in optset.particles.tomogram],
        pixel_size_angstrom=pixel,
    )
    angles = matrix_to_euler(rotations)
    block = StarBlock("particles", "loop", {})
    for axis, name in enumerate(AXES):
        block.set_floats(f"rlnCoordinate{name}", stored[:, axis])
    for axis, name in enumerate(("Rot", "Tilt", "Psi")):
        block.set_floats(f"rlnAngle{name}", angles[:, axis])
    block.set_text("rlnMicrographName", [f"{name}.tomostar" for name in optset.particles.tomogram])
    block.set_floats("rlnPixelSize", unit)
    if optset.particles.half_set.all() and len(optset.particles):
        block.set_integers("rlnRandomSubset", optset.particles.half_set)
    block.set_text("rlnTomoParticleName", optset.particles.name)
    write_star(path("particles.star"), StarDocument([block]))
    sizes = ", ".join(f"{value:.6g}" for value in np.unique(unit))
    notes = [f"coordinates in pixels of {sizes} Å: WarpTools' --coords_angpix, M's pixel size of coordinates"]
    if np.ptp(unit) > 0:
        notes.append("tilt series differ in pixel size: --coord-angpix gives all coordinates one unit")
    if optset.trajectories:
        notes.append("motion of the particles is left out: M takes particles that stand still")
    return notes


def table(optset: OptimisationSet, options: ExportOptions, path: Callable[[str], Path]) -> list[str]:
    """`particles.csv`: positions from the corner and from the centre in Å, and RELION's angles in the tomogram."""
    rotations, positions = poses_of(optset)
    particles = optset.particles
    angles = matrix_to_euler(rotations)
    size = {one.name: one.tomogram_size for one in optset.series}
    middle = np.array([size[name] for name in particles.tomogram]).reshape(-1, 3)
    pixel = pixel_sizes(optset)
    corner, centred = (
        convention.to_stored(
            positions / pixel[:, None], binning=np.ones(len(pixel)), tomogram_size=middle, pixel_size_angstrom=pixel
        )
        for convention in (CSV_ANGSTROM, RELION5)
    )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "particle",
            "tomogram",
            "x",
            "y",
            "z",
            "rot",
            "tilt",
            "psi",
            "x_from_centre",
            "y_from_centre",
            "z_from_centre",
            "half_set",
            "optics_group",
        ]
    )
    for row, name in enumerate(particles.name):
        writer.writerow(
            [name, particles.tomogram[row]]
            + [f"{value:.6f}" for value in (*corner[row], *angles[row], *centred[row])]
            + [int(particles.half_set[row]), optset.optics[particles.optics_index[row]].name]
        )
    write_text(path("particles.csv"), buffer.getvalue())
    return [
        f"x, y, z in Å ({CSV_ANGSTROM.origin}), angles in degrees ({RELION_ANGLES.formula}); tiltwise import reads it "
        "with --coord-units angstrom --coord-origin corner"
    ]


def _write_set(optset: OptimisationSet, path: Callable[[str], Path]) -> list[str]:
    files: dict[str, str | Path | None] = {key: file for key, file in optset.paths.items() if key != "optimisation_set"}
    files["tomograms"], files["particles"] = path("tomograms.star"), path("particles.star")
    write_tomograms(path("tomograms.star"), optset)
    write_particles(path("particles.star"), optset)
    if optset.trajectories:
        files["trajectories"] = path("motion.star")
        write_trajectories(path("motion.star"), optset.trajectories)
    write_optimisation_set(path("optimisation_set.star"), **files)
    return []
