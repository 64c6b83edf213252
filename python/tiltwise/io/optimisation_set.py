"""Optimisation sets: the file that ties tomograms, particles, trajectories and references together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.documents import Documents
from tiltwise.io.particles import particle_block_name, read_particles
from tiltwise.io.paths import PathResolver, path_text
from tiltwise.io.star import Reader, StarBlock, StarDocument, read_star, write_star
from tiltwise.io.tomograms import read_tomograms
from tiltwise.io.trajectories import read_trajectories, write_trajectories
from tiltwise.io.write_particles import write_particles
from tiltwise.io.write_tomograms import refuse_nonrigid, write_tomograms
from tiltwise.model import OptimisationSet

__all__ = [
    "LABELS",
    "has_table",
    "load_optimisation_set",
    "notes_of",
    "refuse_nonrigid",
    "table_of",
    "with_columns",
    "with_copies",
    "write_optimisation_set",
    "write_particles",
    "write_tomograms",
    "write_trajectories",
]

LABELS = {
    "particles": "rlnTomoParticlesFile",
    "tomograms": "rlnTomoTomogramsFile",
    "trajectories": "rlnTomoTrajectoriesFile",
    "manifolds": "rlnTomoManifoldsFile",
    "half1": "rlnTomoReferenceMap1File",
    "half2": "rlnTomoReferenceMap2File",
    "mask": "rlnTomoReferenceMaskFile",
    "fsc": "rlnTomoReferenceFscFile",
}
"""what a set may name, in RELION's order"""

_COMPULSORY = ("tomograms", "particles", "trajectories")

Name = str | os.PathLike[str]


def load_optimisation_set(
    path: Name | None = None,
    *,
    tomograms: Name | None = None,
    particles: Name | None = None,
    trajectories: Name | None = None,
    need_images: bool | None = True,
    coordinate_binning: float | None = None,
    read: Reader = read_star,
) -> OptimisationSet:
    """Read tilt series, particles, optics and trajectories of a RELION-4 or RELION-5 project.

    Parameters
    ----------
    path
        an optimisation_set.star, or a particles.star together with `tomograms`.
    tomograms, particles, trajectories
        files that replace those named in the set.
    need_images
        refuse a set whose tilt images are not at hand.  Without, such series have no `image_files`, and
        `notes` says so: enough for work on extracted stacks or on metadata.  None: refuse unless the particles
        have extracted 2D stacks or pseudo-subtomograms instead.
    coordinate_binning
        unit of rlnCoordinateX, Y, Z in unbinned pixels; RELION writes unbinned pixels, Warp those of the
        extracted images.
    read
        reads STAR files of tomograms and particles; documents that it returns become part of the set.

    Raises
    ------
    FormatError
        if a file is missing or cannot be read; with file, line and column.
    DataError
        if files are readable but contradict each other.
    """
    paths: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    if path is not None:
        paths, notes = _named_files(os.fspath(path))
    for key, given in (("tomograms", tomograms), ("particles", particles), ("trajectories", trajectories)):
        if given is not None:
            paths[key] = os.path.abspath(os.fspath(given))
    for key, option in (("tomograms", "--t"), ("particles", "--p")):
        if key not in paths:
            raise FormatError(
                f"no {key} file is given",
                where=None if path is None else os.fspath(path),
                expected=f"an optimisation set with {LABELS[key]}",
                fix=f"give {option} {key}.star, or an optimisation_set.star that names it",
            )
    tomogram_set = read_tomograms(paths["tomograms"], need_images=bool(need_images), read=read)
    particle_set = read_particles(paths["particles"], tomogram_set, coordinate_binning=coordinate_binning, read=read)
    extracted = particle_set.particles.image_files if particle_set.stacks_are_2d else particle_set.particles.ctf_files
    if need_images is None and not extracted and not all(series.image_files for series in tomogram_set.series):
        read_tomograms(paths["tomograms"], need_images=True)  # raises, and names all that are missing
    notes += tomogram_set.notes + particle_set.notes
    motion: dict[str, NDArray[np.float64]] = {}
    if "trajectories" in paths:
        series = {one.name: one for one in tomogram_set.series}
        motion, motion_notes = read_trajectories(paths["trajectories"], particle_set.particles, series)
        notes += motion_notes
    documents = Documents(
        tomograms=tomogram_set.document,
        tilt_tables=tomogram_set.tables,
        particle_table=particle_set.document,
        coordinates=particle_set.coordinates,
        series=tomogram_set.series,
        particles=particle_set.particles,
        optics=particle_set.optics,
        stacks_are_2d=particle_set.stacks_are_2d,
        notes=notes,
    )
    return OptimisationSet(
        series=tomogram_set.series,
        particles=particle_set.particles,
        optics=particle_set.optics,
        trajectories=motion,
        stacks_are_2d=particle_set.stacks_are_2d,
        documents=documents,
        paths=paths,
    )


def notes_of(optset: OptimisationSet) -> tuple[str, ...]:
    """Sentences about the input that a user should read: what was assumed, ignored or not found."""
    return optset.documents.notes if isinstance(optset.documents, Documents) else ()


def has_table(optset: OptimisationSet) -> bool:
    """Whether the particles were read from a file."""
    return isinstance(optset.documents, Documents) and bool(optset.documents.particle_table.blocks)


def table_of(optset: OptimisationSet) -> StarBlock:
    """The rows of the particle file for the particles of a set, as they were read, with every column there was.

    Raises
    ------
    FormatError
        if the particles were not read from a file.
    """
    documents = optset.documents
    if not has_table(optset) or not isinstance(documents, Documents):
        raise FormatError("the particles were not read from a file", fix="write them first")
    block = documents.particle_table[particle_block_name(documents.particle_table)]
    if optset.particles.name == documents.particles.name:
        return block
    row_of = {name: row for row, name in enumerate(documents.particles.name)}
    return block.take([row_of[name] for name in optset.particles.name])


def with_copies(optset: OptimisationSet, rows: NDArray[np.intp], names: Sequence[str]) -> OptimisationSet:
    """Set with the particles `rows` (n,), each as often as it is named, under new names (n,); motion goes with them.

    Raises
    ------
    FormatError
        if the particles were not read from a file.
    """
    block = table_of(optset).take(rows)
    block.set_text("rlnTomoParticleName", names)
    assert isinstance(optset.documents, Documents)
    particles = replace(optset.particles.take(rows), name=tuple(names))
    old = [optset.particles.name[row] for row in rows]
    motion = {
        name: optset.trajectories[one] for name, one in zip(names, old, strict=True) if one in optset.trajectories
    }
    documents = replace(
        optset.documents, particle_table=optset.documents.particle_table.replace(block), particles=particles
    )
    return replace(optset, particles=particles, trajectories=motion, documents=documents)


def with_columns(optset: OptimisationSet, columns: Mapping[str, NDArray[np.float64]]) -> OptimisationSet:
    """Set whose particle file also has numbers (P,) under other labels, wherever it is written.

    Raises
    ------
    FormatError
        if the particles were not read from a file.
    """
    block = table_of(optset).copy()
    for label, values in columns.items():
        block.set_floats(label, values)
    documents = optset.documents
    assert isinstance(documents, Documents)
    row_of = {name: row for row, name in enumerate(documents.particles.name)}
    read = documents.particles.take(np.array([row_of[name] for name in optset.particles.name], np.intp))
    changed = replace(documents, particle_table=documents.particle_table.replace(block), particles=read)
    return replace(optset, documents=changed)


def write_optimisation_set(path: Name, **files: Name | None) -> None:
    """Write an optimisation set that names `files`, keywords as in `LABELS`; those that are None are left out.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    unknown = sorted(set(files) - set(LABELS))
    if unknown:
        raise TypeError(f"an optimisation set has no {', '.join(unknown)}")
    block = StarBlock("", "list", {})
    for key, label in LABELS.items():
        file = files.get(key)
        if file is not None:
            block.set_text(label, [path_text(file, path)])
    write_star(path, StarDocument([block]))


def _named_files(path: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Absolute paths by key from an optimisation set or a particle file; notes on files that are not there."""
    document = read_star(path)
    for block in document:
        if any(label in block for label in LABELS.values()):
            break
    else:
        if any("rlnTomoName" in block for block in document):
            key = "tomograms" if "global" in document else "particles"
            return {key: os.path.abspath(path)}, ()
        raise FormatError(
            "this is neither an optimisation set nor a particle file",
            where=path,
            expected=" or ".join(f"_{LABELS[key]}" for key in _COMPULSORY[:2]) + ", or particles with _rlnTomoName",
            found=", ".join(f"data_{one.name}" for one in document.blocks[:8]),
            fix="give the optimisation_set.star of a job, or particles.star with --t tomograms.star",
        )
    resolver = PathResolver(path)
    paths = {"optimisation_set": os.path.abspath(path)}
    notes = []
    for key, label in LABELS.items():
        name = block.value(label) if label in block else ""
        if name in ("", "None", "empty"):
            continue
        found = resolver.require(name, f"the file of _{label}") if key in _COMPULSORY else resolver.find(name)
        if found is None:
            notes.append(f"{path}: the file of _{label} is not found ({name})")
        else:
            paths[key] = found
    return paths, tuple(notes)
