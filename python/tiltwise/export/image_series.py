"""Images of all particles in one stack, with a pose and a CTF each, as cryoDRGN-ET and tomoDRGN read them.

Every image is one row, as of a single-particle star file of Warp: rlnGroupName is the particle, rlnCtfBfactor -4 times
the dose before the tilt, rlnCtfScalefactor the contrast of the tilt.  Images are neither multiplied by the CTF nor
weighted by dose, protein is white, and shifts are in the cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.exec.threads import ordered_map
from tiltwise.export.options import ExportOptions
from tiltwise.export.particles import images_of, place_of, refuse_without_room, seen_tilts
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.io.stack_writer import new_stack
from tiltwise.io.star import StarBlock, StarDocument, write_star
from tiltwise.kernels.threads import default_threads
from tiltwise.model import OptimisationSet

BFACTOR_PER_DOSE = -4.0
"""Å^2 per e/Å^2: how Warp stores the dose before an image."""
MAGNIFICATION = 10000.0
"""With it, rlnDetectorPixelSize in µm is the pixel size in Å."""
CHUNK = 16

Column = NDArray[np.float64] | Sequence[str] | NDArray[np.int64]


def image_series(optset: OptimisationSet, options: ExportOptions, job: Job, progress: Progress) -> list[str]:
    """Write `particles.mrcs` and `particles.star`.  Returns notes.

    Raises
    ------
    DataError
        if projection matrices mirror the tomogram.
    OutputError
        if the disk has no room.
    """
    assert options.box is not None
    mirrored = [one.name for one in optset.series if (np.linalg.det(one.projection[:, :3, :3]) < 0).any()]
    if mirrored:
        raise DataError(
            "projection matrices mirror the tomogram: no angles describe them",
            where=", ".join(mirrored[:5]),
            fix="turn the set right first: tiltwise import",
        )
    crop = options.crop or options.box
    source = ParticleSource(optset, box_px=options.box, crop_px=crop, binning=options.binning, diameter_angstrom=None)
    poses = Poses.of(optset)
    _, lost = source.leave_out_unseen(poses.displacement_angstrom)
    if lost:
        job.warn(lost)
    threads = options.threads or default_threads()

    def place(particle: int) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        return place_of(source, particle, poses.displacement_angstrom[particle])

    def tilts_of(particle: int) -> NDArray[np.intp]:
        """Tilts that see a particle, in the order of their dose."""
        seen = seen_tilts(source, particle, poses.displacement_angstrom[particle])
        return seen[np.argsort(images_of(source, particle).series.pre_exposure[seen], kind="stable")]

    tilts = [tilts_of(particle) for particle in range(len(optset.particles))]
    first = np.concatenate([[0], np.cumsum([len(seen) for seen in tilts])])
    needed = int(first[-1]) * crop**2 * 4
    fix = "take a smaller --crop or a larger --bin, or choose another disk"
    refuse_without_room(job.folder, needed, options.output, fix)

    def cut(particle: int) -> tuple[int, NDArray[np.float32]]:
        seen, images = images_of(source, particle).stack(*place(particle), premultiplied=False)
        return particle, images[np.searchsorted(seen, tilts[particle])]

    stack = job.path("particles.mrcs")
    with (
        new_stack(stack, (int(first[-1]), crop, crop), source.pixel_size) as writer,
        progress.task("images", len(tilts)) as task,
    ):
        for start in range(0, len(tilts), CHUNK):
            job.check_abort()
            for particle, images in ordered_map(cut, range(start, min(start + CHUNK, len(tilts))), threads):
                writer.write(int(first[particle]), images)
                task.advance()
    rows = [_rows(source, poses, particle, place(particle)[0], seen) for particle, seen in enumerate(tilts)]
    block = StarBlock("", "loop", {})
    block.set_text("rlnImageName", [f"{row + 1:06d}@{stack.name}" for row in range(first[-1])])
    for label in rows[0]:
        values = np.concatenate([np.asarray(one[label]) for one in rows])
        if values.dtype.kind == "U":
            block.set_text(label, [str(value) for value in values])
        elif values.dtype.kind == "i":
            block.set_integers(label, values)
        else:
            block.set_floats(label, values)
    write_star(job.path("particles.star"), StarDocument([block]))
    job.add_output(stack)
    job.add_output(job.path("particles.star"), "ParticlesData.star.relion")
    notes = [f"{first[-1]:,} images of {sum(len(seen) > 0 for seen in tilts):,} particles; protein is white"]
    if any(group.even_zernike.any() for group in optset.optics):
        notes.append("symmetric aberrations of optics groups are left out: the programs have no columns for them")
    return notes


def _rows(
    source: ParticleSource, poses: Poses, particle: int, position_px: NDArray[np.float64], tilts: NDArray[np.intp]
) -> Mapping[str, Column]:
    """Columns of the images of one particle: direction of projection A_f A_sub A_part, and CTF at its depth."""
    loader = images_of(source, particle)
    series, particles = loader.series, source.optset.particles
    optics = source.optset.optics[particles.optics_index[particle]]
    angles = matrix_to_euler(series.projection[tilts, :3, :3] @ poses.rotation[particle])
    depth = loader.depth_defocus(position_px, tilts)
    count = len(tilts)

    def same(value: float) -> NDArray[np.float64]:
        return np.full(count, value)

    columns: dict[str, Column] = {
        "rlnGroupName": [particles.name[particle]] * count,
        "rlnMicrographName": [series.name] * count,
        "rlnAngleRot": angles[:, 0],
        "rlnAngleTilt": angles[:, 1],
        "rlnAnglePsi": angles[:, 2],
        "rlnOriginXAngst": same(0.0),
        "rlnOriginYAngst": same(0.0),
        "rlnDefocusU": series.defocus_u_angstrom[tilts] + depth,
        "rlnDefocusV": series.defocus_v_angstrom[tilts] + depth,
        "rlnDefocusAngle": series.defocus_angle_deg[tilts],
        "rlnPhaseShift": series.phase_shift_deg[tilts],
        "rlnCtfScalefactor": series.ctf_scale[tilts],
        "rlnCtfBfactor": BFACTOR_PER_DOSE * series.pre_exposure[tilts],
        "rlnVoltage": same(optics.voltage_kv),
        "rlnSphericalAberration": same(optics.spherical_aberration_mm),
        "rlnAmplitudeContrast": same(optics.amplitude_contrast),
        "rlnMagnification": same(MAGNIFICATION),
        "rlnDetectorPixelSize": same(source.pixel_size),
        "rlnCoordinateX": same(position_px[0]),
        "rlnCoordinateY": same(position_px[1]),
        "rlnCoordinateZ": same(position_px[2]),
    }
    if particles.half_set.all():
        columns["rlnRandomSubset"] = np.full(count, particles.half_set[particle], np.int64)
    return columns
