"""A set that was read from STAR files, in the form of RELION-5 or of RELION-4.

Both functions return a set whose documents already have the new form, so that writing it rewrites no value that did
not change, and keeps every column and block that is not known here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tiltwise.errors import DataError
from tiltwise.geometry.projection import angles_from_projection_matrices, depth_offset_px
from tiltwise.interchange.conventions import RELION4
from tiltwise.io.columns import update_floats
from tiltwise.io.documents import CoordinateStyle, Documents
from tiltwise.io.particles import (
    ANGLE_LABELS,
    CENTRED_LABELS,
    ORIGIN_LABELS,
    PIXEL_LABELS,
    STACKS_LABEL,
    SUBTOMOGRAM_ANGLE_LABELS,
    VISIBLE_LABEL,
    particle_block_name,
)
from tiltwise.io.star import StarBlock, StarDocument
from tiltwise.io.tomograms import ANGLE_LABELS as TILT_ANGLE_LABELS
from tiltwise.io.tomograms import MATRIX_LABELS, SIZE_LABELS, TABLE_FILE_LABEL
from tiltwise.io.write_tomograms import TILT_COLUMNS
from tiltwise.model import OptimisationSet, Particles, TiltSeries

TEXT_PRECISION = 1e-6
"""Å; a coordinate that differs less from its text keeps it"""
TILT_PRIOR_LABEL = "rlnAngleTiltPrior"


def to_relion5(optset: OptimisationSet) -> tuple[OptimisationSet, tuple[str, ...]]:
    """The set in RELION-5's form: one table per tilt series with angles and shifts, centred coordinates in Å.

    Matrices that are no rotations (magnification, anisotropy), or that belong to images whose size is not known, stay
    matrices: RELION-5 reads them.  Matrices that mirror the tomogram are mirrored back along z, with their particles.

    Returns the set and notes.

    Raises
    ------
    DataError
        if the set was not read from STAR files.
    """
    optset, notes = mirrored_back(optset)
    documents = _documents(optset)
    old = {one.name: one for one in documents.series}
    tables: dict[str, StarDocument] = {}
    table = documents.tomograms["global"].copy()
    table.comments = ["# version 50001"]
    for one in optset.series:
        source = documents.tilt_tables.get(one.name)
        block = _tilt_block(documents, one).copy()
        block.name, block.comments = one.name, ["# version 50001"]
        notes += _write_geometry(block, one)
        for label, attribute, absent in TILT_COLUMNS:
            update_floats(block, label, getattr(one, attribute), getattr(old[one.name], attribute), absent)
        if "rlnTomoNominalStageTiltAngle" not in block:
            block.set_floats("rlnTomoNominalStageTiltAngle", one.nominal_tilt_deg)
        if "rlnCtfScalefactor" not in block:  # RELION-5 would fill in cos(tilt)
            block.set_floats("rlnCtfScalefactor", one.ctf_scale)
        tables[one.name] = StarDocument([block]) if source is None else source.replace(block)
    table.set_text(TABLE_FILE_LABEL, [f"tilt_series/{one.name}.star" for one in optset.series])
    for axis, label in enumerate(SIZE_LABELS):
        table.set_integers(label, [one.tomogram_size[axis] for one in optset.series])
    hand, hand_before = (np.array([one.hand for one in all_of]) for all_of in (optset.series, documents.series))
    update_floats(table, "rlnTomoHand", hand, hand_before)
    if "rlnMicrographOriginalPixelSize" not in table:
        table.set_floats("rlnMicrographOriginalPixelSize", [one.pixel_size_angstrom for one in optset.series])
    if "rlnOpticsGroupName" not in table:
        table.set_text("rlnOpticsGroupName", [one.optics_group_name for one in optset.series])
    old_names = {_tilt_block(documents, one).name for one in optset.series}
    others = [block for block in documents.tomograms if block.name not in old_names and block.name != "global"]
    tomograms = StarDocument([table, *others], trailer=documents.tomograms.trailer)
    particles = documents.particle_table
    if len(optset.particles):
        particles = _particles_relion5(optset, documents)
    return (
        replace(
            optset,
            documents=replace(
                documents,
                tomograms=tomograms,
                tilt_tables=tables,
                particle_table=particles,
                coordinates=CoordinateStyle(),
                series=optset.series,
                particles=optset.particles,
            ),
        ),
        notes,
    )


def to_relion4(optset: OptimisationSet) -> tuple[OptimisationSet, tuple[str, ...]]:
    """The set in RELION-4's form: embedded tables with matrices, coordinates in unbinned pixels less 1.

    RELION-4 has no 2D stacks and wants one stack per tilt series; a note says where a set has the one or lacks the
    other.

    Raises
    ------
    DataError
        if the set was not read from STAR files, or image or tomogram sizes are not known.
    """
    documents = _documents(optset)
    notes: tuple[str, ...] = ()
    table = documents.tomograms["global"].copy()
    table.comments = ["# version 30001"]
    table.drop(TABLE_FILE_LABEL)
    blocks = []
    for one in optset.series:
        if not min(one.tomogram_size) > 0 or not min(one.image_size) > 0:
            raise DataError(
                "RELION-4 needs the size of images and tomograms",
                where=one.name,
                found=f"images {one.image_size}, tomogram {one.tomogram_size}",
                fix="give --image-size and --tomogram-size",
            )
        block = _tilt_block(documents, one).copy()
        block.name, block.comments = one.name, ["# version 30001"]
        block.drop(*TILT_ANGLE_LABELS)
        for axis, label in enumerate(MATRIX_LABELS):
            block.set_vectors(label, list(one.projection[:, axis]))
        blocks.append(block)
    for axis, label in enumerate(SIZE_LABELS):
        table.set_integers(label, [one.tomogram_size[axis] for one in optset.series])
    table.set_integers("rlnTomoFrameCount", [one.n_tilts for one in optset.series])
    stacks = [_one_stack(one) for one in optset.series]
    if all(stacks):
        table.set_text("rlnTomoTiltSeriesName", stacks)
    elif "rlnTomoTiltSeriesName" not in table:
        notes += ("RELION-4 wants the images of a tilt series in one stack; these are in one file per tilt",)
    if "rlnOpticsGroupName" not in table:
        table.set_text("rlnOpticsGroupName", [one.optics_group_name for one in optset.series])
    names = {one.name for one in optset.series}
    others = [block for block in documents.tomograms if block.name not in names and block.name != "global"]
    tomograms = StarDocument([table, *blocks, *others], trailer=documents.tomograms.trailer)
    particles, new = documents.particle_table, optset.particles
    if len(new):
        block = particles[particle_block_name(particles)].copy()
        block.comments = ["# version 30001"]
        block.drop(*CENTRED_LABELS)
        stored = new.coordinate_px - RELION4.offset
        for axis, label in enumerate(PIXEL_LABELS):
            block.set_floats(label, stored[:, axis])
        _fill(block, new)
        if optset.stacks_are_2d:
            notes += ("RELION-4 has no 2D stacks: their columns are left out, extract the particles again",)
            block.drop("rlnImageName", VISIBLE_LABEL)
            new = replace(new, image_files=(), visible=())
        particles = _replaced(particles, block)
        particles.blocks = [
            one for one in particles.blocks if one.name != "general" or set(one.columns) - {STACKS_LABEL}
        ]
        if "general" in particles:
            particles["general"].drop(STACKS_LABEL)
    return (
        replace(
            optset,
            particles=new,
            stacks_are_2d=False,
            documents=replace(
                documents,
                tomograms=tomograms,
                tilt_tables={},
                particle_table=particles,
                coordinates=CoordinateStyle("pixel", RELION4.offset, 1.0),
                series=optset.series,
                particles=new,
                stacks_are_2d=False,
            ),
        ),
        notes,
    )


def mirrored_back(optset: OptimisationSet) -> tuple[OptimisationSet, tuple[str, ...]]:
    """The set with tomograms that were mirrored along z (determinant of their matrices -1) turned right.

    RELION-4's import with `flipYZ` alone makes such matrices.  Position z becomes depth - z, a rotation A becomes
    M A M with M = diag(1, 1, -1), which changes the sign of the tilt angle only; a map becomes its mirror image.
    """
    mirrored = {
        one.name for one in optset.series if (np.linalg.det(one.projection[:, :3, :3]) < 0).all() and one.n_tilts
    }
    if not mirrored:
        return optset, ()
    series = tuple(_mirrored_series(one) if one.name in mirrored else one for one in optset.series)
    depth = {one.name: one.tomogram_size[2] for one in series}
    old = optset.particles
    rows = np.array([name in mirrored for name in old.tomogram], np.bool_)
    position, origin = old.coordinate_px.copy(), old.origin_angstrom.copy()
    angles, subtomogram = old.angles_deg.copy(), old.subtomogram_angles_deg.copy()
    position[rows, 2] = np.array([depth[name] for name in old.tomogram], np.float64)[rows] - position[rows, 2]
    origin[rows, 2] *= -1.0
    angles[rows, 1] *= -1.0
    subtomogram[rows, 1] *= -1.0
    prior = old.prior_angles_deg
    if prior is not None:
        prior = prior.copy()
        prior[rows, 1] *= -1.0
    particles = replace(
        old,
        coordinate_px=position,
        origin_angstrom=origin,
        angles_deg=angles,
        subtomogram_angles_deg=subtomogram,
        prior_angles_deg=prior,
        image_files=old.image_files if optset.stacks_are_2d else (),
        ctf_files=(),
    )
    motion = {
        name: values * (1.0, 1.0, -1.0) if name in {old.name[i] for i in np.flatnonzero(rows)} else values
        for name, values in optset.trajectories.items()
    }
    documents = _documents(optset)
    table = documents.particle_table
    if len(old):
        block = table[particle_block_name(table)].copy()
        for label, values in (
            (ORIGIN_LABELS[2], origin[:, 2]),
            (ANGLE_LABELS[1], angles[:, 1]),
            (SUBTOMOGRAM_ANGLE_LABELS[1], subtomogram[:, 1]),
        ):
            if label in block:
                block.set_floats(label, values)
        if TILT_PRIOR_LABEL in block:
            known = block.floats(TILT_PRIOR_LABEL)
            block.set_floats(TILT_PRIOR_LABEL, np.where(rows & (known != 999.0), -known, known))
        if not optset.stacks_are_2d:
            block.drop("rlnImageName", "rlnCtfImage")
        table = _replaced(table, block)
    note = (
        f"{len(mirrored)} tilt series had matrices that mirror the tomogram (IMOD import with flipYZ alone): they are "
        "mirrored back along z with their particles. A map made from them before is the mirror image: flip it along z. "
        "Pseudo-subtomograms of theirs are mirror images too, and are left out"
    )
    new = replace(
        optset,
        series=series,
        particles=particles,
        trajectories=motion,
        documents=replace(documents, particle_table=table),
    )
    return new, (note,)


def even_sizes(optset: OptimisationSet) -> tuple[OptimisationSet, tuple[str, ...]]:
    """The set with even tomogram sizes, where RELION's two centres, N // 2 and N / 2, are one.

    Positions from the corner and projections stay; the centre from which depth counts moves by half a pixel, which is
    added to the defocus.
    """
    odd = [one.name for one in optset.series if any(size % 2 for size in one.tomogram_size)]
    if not odd:
        return optset, ()
    series = tuple(_even_series(one) if one.name in odd else one for one in optset.series)
    note = (
        f"{len(odd)} tomograms have an odd size, first {odd[0]}: sizes are written one smaller, so that all programs "
        "count from the same centre; no position in an image changes"
    )
    return replace(optset, series=series), (note,)


def _even_series(one: TiltSeries) -> TiltSeries:
    size = tuple(n - n % 2 for n in one.tomogram_size)
    new = (size[0], size[1], size[2])
    # The depth of a point was counted from the old half size, and will be from the new one.
    moved = depth_offset_px(one.projection, np.asarray(new, np.float64)[None] / 2.0, one.tomogram_size)[0]
    change = one.hand * one.defocus_slope * one.pixel_size_angstrom * moved
    return replace(
        one,
        tomogram_size=new,
        defocus_u_angstrom=one.defocus_u_angstrom + change,
        defocus_v_angstrom=one.defocus_v_angstrom + change,
    )


def _mirrored_series(one: TiltSeries) -> TiltSeries:
    mirror = np.diag([1.0, 1.0, -1.0, 1.0])
    mirror[2, 3] = one.tomogram_size[2]
    return replace(one, projection=one.projection @ mirror)


def _write_geometry(block: StarBlock, one: TiltSeries) -> tuple[str, ...]:
    """Angles and shifts in place of matrices, where that is possible."""
    had_matrices = all(label in block for label in MATRIX_LABELS)
    if not had_matrices:
        return ()
    block.drop(*TILT_ANGLE_LABELS)
    if min(one.image_size) > 0:
        try:
            angles = angles_from_projection_matrices(
                one.projection, one.pixel_size_angstrom, one.tomogram_size, one.image_size
            )
        except DataError as error:
            reason = f"they are not pure rotations ({error.found})"
        else:
            block.drop(*MATRIX_LABELS)
            for label, values in zip(TILT_ANGLE_LABELS, angles, strict=True):
                block.set_floats(label, values)
            return ()
    else:
        reason = "the size of the images is not known"
    for axis, label in enumerate(MATRIX_LABELS):
        block.set_vectors(label, list(one.projection[:, axis]))
    return (f"{one.name}: projection matrices are kept, because {reason}",)


def _particles_relion5(optset: OptimisationSet, documents: Documents) -> StarDocument:
    document, new = documents.particle_table, optset.particles
    block = document[particle_block_name(document)].copy()
    block.comments = ["# version 50001"]
    sizes = {one.name: np.asarray(one.tomogram_size, np.float64) / 2.0 for one in optset.series}
    pixel = {one.name: one.pixel_size_angstrom for one in optset.series}
    half = np.array([sizes[name] for name in new.tomogram])
    centred = (new.coordinate_px - half) * np.array([pixel[name] for name in new.tomogram])[:, None]
    block.drop(*PIXEL_LABELS)
    for axis, label in enumerate(CENTRED_LABELS):
        values = centred[:, axis]
        stored = block.floats(label) if label in block else np.full(len(new), np.nan)
        update_floats(block, label, values, np.where(np.abs(stored - values) <= TEXT_PRECISION, values, np.nan))
    _fill(block, new)
    result = _replaced(document, block)
    general = result.get("general")
    general = StarBlock("general", "list", {}) if general is None else general.copy()
    general.columns[STACKS_LABEL] = [str(int(optset.stacks_are_2d))] * max(len(general), 1)
    result = result.replace(general)
    if "optics" in result:
        optics = result["optics"].copy()
        if "rlnAmplitudeContrast" not in optics and len(optics) == len(optset.optics):
            optics.set_floats("rlnAmplitudeContrast", [group.amplitude_contrast for group in optset.optics])
        result = result.replace(optics)
    order = {"general": 0, "optics": 1}
    result.blocks.sort(key=lambda one: order.get(one.name, 2))
    return result


def _fill(block: StarBlock, particles: Particles) -> None:
    """Columns that one of the versions must have."""
    if "rlnTomoParticleName" not in block:
        block.set_text("rlnTomoParticleName", particles.name)
    for labels, values in ((ORIGIN_LABELS, particles.origin_angstrom), (ANGLE_LABELS, particles.angles_deg)):
        for axis, label in enumerate(labels):
            if label not in block:
                block.set_floats(label, values[:, axis])


def _replaced(document: StarDocument, block: StarBlock) -> StarDocument:
    """Document with the particles in a block `particles`, which RELION looks for."""
    old = particle_block_name(document)
    named = [block if one.name == old else one for one in document.blocks]
    block.name = "particles"
    return StarDocument(named, document.path, list(document.trailer))


def _one_stack(one: TiltSeries) -> str:
    """File that holds all images of a series in the order of its rows, or nothing."""
    if one.image_files and len(set(one.image_files)) == 1 and np.array_equal(one.image_index, np.arange(one.n_tilts)):
        return one.image_files[0]
    return ""


def _documents(optset: OptimisationSet) -> Documents:
    if not isinstance(optset.documents, Documents):
        raise DataError("this set was not read from STAR files", fix="write it first, then convert the file")
    return optset.documents


def _tilt_block(documents: Documents, one: TiltSeries) -> StarBlock:
    if documents.tilt_tables:
        return documents.tilt_tables[one.name][one.name]
    if one.name in documents.tomograms:
        return documents.tomograms[one.name]
    index = next(i for i, old in enumerate(documents.series) if old.name == one.name)
    return documents.tomograms[f"tomo_{index}"]
