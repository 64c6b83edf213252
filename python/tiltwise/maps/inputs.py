"""The data of a command that works on particle images, as its options name them."""

from __future__ import annotations

from tiltwise.exec import Job, Progress
from tiltwise.extract.source import ParticleSource
from tiltwise.io.optimisation_set import load_optimisation_set, notes_of
from tiltwise.maps.options import BoxOptions
from tiltwise.model import OptimisationSet


def read_set(options: BoxOptions, *, need_images: bool | None) -> OptimisationSet:
    """Tilt series and particles; `need_images` and errors as `load_optimisation_set`."""
    return load_optimisation_set(
        options.input,
        tomograms=options.tomograms,
        particles=options.particles,
        trajectories=options.trajectories,
        need_images=need_images,
        coordinate_binning=options.coordinate_binning,
    )


def record(optset: OptimisationSet, job: Job, progress: Progress) -> None:
    """Notes the files of a set in the manifest, and shows what a user should know of them."""
    for path in optset.paths.values():
        job.add_input(path)
    for note in notes_of(optset):
        progress.note(note)


def source_of(options: BoxOptions, optset: OptimisationSet, diameter_angstrom: float | None = None) -> ParticleSource:
    """Images in the boxes that are asked for; errors as `ParticleSource`."""
    return ParticleSource(
        optset,
        box_px=options.box,
        crop_px=options.map_size,
        binning=options.binning,
        diameter_angstrom=diameter_angstrom,
    )
