"""The stage behind `tiltwise import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiltwise.exec import Job, Progress
from tiltwise.interchange.drafts import Imported
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.programs import choose
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles, write_tomograms
from tiltwise.io.trajectories import write_trajectories
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of, tilts_seen


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What was imported, and where it is."""

    imported: Imported
    source: str
    outputs: dict[str, Path]
    inside: int
    """particles that project into at least one image"""
    median_visible: float
    """median number of tilts that see a particle; NaN without particles or image sizes"""


def run(options: ImportOptions, job: Job, progress: Progress) -> ImportResult:
    """Read, check and write.

    Raises
    ------
    FormatError, DataError
        if the input cannot be used; nothing is written then.
    """
    program = choose(options)
    progress.note(f"reading {options.input} as {program.title}")
    with job.timing("read"):
        imported = program.read(options)
    job.check_abort()
    for note in imported.notes:
        job.warn(note)
    inside, median = visibility(imported.optset)
    with job.timing("write"):
        outputs = _write(imported, job)
    job.metric("tilt_series", len(imported.optset.series))
    job.metric("tilts", sum(one.n_tilts for one in imported.optset.series))
    job.metric("particles", len(imported.optset.particles))
    return ImportResult(imported, program.source, outputs, inside, median)


def visibility(optset: OptimisationSet) -> tuple[int, float]:
    """Particles that project into at least one image, and the median number of tilts that see one."""
    particles = optset.particles
    if not len(particles) or not all(min(one.image_size) > 0 for one in optset.series):
        return 0, float("nan")
    _, positions = poses_of(optset)
    seen = tilts_seen(optset, positions)
    return int((seen > 0).sum()), float(np.median(seen))


def _write(imported: Imported, job: Job) -> dict[str, Path]:
    optset = imported.optset
    outputs = {"tomograms": job.path("tomograms.star"), "optimisation_set": job.path("optimisation_set.star")}
    write_tomograms(outputs["tomograms"], optset, extra_columns=imported.tilt_columns)
    if len(optset.particles):
        outputs["particles"] = job.path("particles.star")
        write_particles(outputs["particles"], optset, extra_columns=imported.particle_columns)
    if optset.trajectories:
        outputs["trajectories"] = job.path("motion.star")
        write_trajectories(outputs["trajectories"], optset.trajectories)
    write_optimisation_set(
        outputs["optimisation_set"],
        tomograms=outputs["tomograms"],
        particles=outputs.get("particles"),
        trajectories=outputs.get("trajectories"),
        **{key: optset.paths.get(key) for key in ("half1", "half2", "mask", "fsc", "manifolds")},
    )
    labels = {
        "tomograms": "TomogramGroupMetadata.star.relion.tomo.import",
        "particles": "ParticleGroupMetadata.star.relion.tomo.import",
        "trajectories": "TomoTrajectoryData.star.relion",
        "optimisation_set": "TomoOptimisationSet.star.relion.tomo.import",
    }
    for key, path in outputs.items():
        job.add_output(path, labels[key])
    return outputs
