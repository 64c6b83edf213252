"""`tiltwise export`: a set in the form of another program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.export import sets
from tiltwise.export.chimerax import chimerax
from tiltwise.export.emdb import emdb
from tiltwise.export.image_series import image_series
from tiltwise.export.options import ExportOptions
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.maps.inputs import record
from tiltwise.model import OptimisationSet

TABLES: dict[str, Callable[[OptimisationSet, ExportOptions, Callable[[str], Path]], list[str]]] = {
    "relion5": sets.relion5,
    "relion4": sets.relion4,
    "warp": sets.warp,
    "csv": sets.table,
    "chimerax": chimerax,
}
"""Forms that are tables and texts: they write below a folder and return notes."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written."""

    optset: OptimisationSet
    notes: list[str]
    files: list[Path]


def run(options: ExportOptions, job: Job, progress: Progress) -> ExportResult:
    """Write the set in another form.

    Raises
    ------
    ConfigError, DataError, FormatError
        if the set cannot be read, or lacks what the form needs.
    """
    images = options.form in ("cryodrgn", "tomodrgn")
    optset = load_optimisation_set(
        options.input,
        tomograms=options.tomograms,
        particles=options.particles,
        trajectories=options.trajectories,
        need_images=images,
        coordinate_binning=options.coordinate_binning,
    )
    if not len(optset.particles):
        raise DataError("there are no particles to export", where=optset.paths.get("particles"), fix="check --i, --p")
    record(optset, job, progress)
    progress.title(
        "export", {"form": options.form, "particles": len(optset.particles), "tilt series": len(optset.series)}
    )
    written: list[Path] = []

    def path(name: str) -> Path:
        written.append(job.path(name))
        return written[-1]

    with job.timing("write"):
        if images:
            notes = image_series(optset, options, job, progress)
            written = [job.path("particles.mrcs"), job.path("particles.star")]
        elif options.form == "emdb":
            notes = emdb(optset, options, job)
            written = [job.path(f"emd_{name}.mrc") for name in ("map", "half_map_1", "half_map_2", "mask")]
            written += [job.path(name) for name in ("emd_fsc.xml", "deposition.json", "methods.txt")]
        else:
            notes = TABLES[options.form](optset, options, path)
            written = list(dict.fromkeys(written))
            for file in written:
                job.add_output(file)
    for note in notes:
        progress.note(note)
    return ExportResult(optset, notes, written)
