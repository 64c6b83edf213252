"""Write particles: the columns that changed, everything else as it was read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.io.columns import set_any, update_floats, update_integers, update_text, update_vectors
from tiltwise.io.documents import CoordinateStyle, Documents
from tiltwise.io.mrc import split_image_name
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
from tiltwise.io.paths import PathWriter, path_text
from tiltwise.io.star import StarBlock, StarDocument, write_star
from tiltwise.model import OpticsGroup, OptimisationSet, Particles

Column = Sequence[object] | NDArray[np.generic]


def write_particles(
    path: str | os.PathLike[str],
    optset: OptimisationSet,
    *,
    particles: Particles | None = None,
    extra_columns: Mapping[str, Column] | None = None,
) -> None:
    """Write a particle file: optics and particles of the set, in the style of the file they came from.

    Only values that differ from what was read are rewritten; unknown columns and blocks are kept.  Particles
    may be a selection of those read, in any order; a set that was not read from files is written in
    RELION-5's style.

    Parameters
    ----------
    particles
        in place of `optset.particles`.
    extra_columns
        label -> one value per particle: numbers, whole numbers, strings or vectors.

    Raises
    ------
    DataError
        if a particle was not in the file that was read, its half set is unknown while others' are known, or
        a value is NaN or infinite.
    OutputError
        if the file cannot be written.
    """
    new = optset.particles if particles is None else particles
    documents = optset.documents if isinstance(optset.documents, Documents) else None
    if documents is not None and not documents.particle_table.blocks:
        documents = None  # only the tilt series were read from files
    if documents is None:
        block, old = StarBlock("particles", "loop", {}), None
        block.set_text("rlnTomoName", new.tomogram)
        document, style = StarDocument([]), CoordinateStyle()
    else:
        document, style = documents.particle_table, documents.coordinates
        block, old = _rows_of(documents, new)
    if "rlnTomoParticleName" not in block:
        block.set_text("rlnTomoParticleName", new.name)
    if style.offset and optset.stacks_are_2d:
        # A file that mentions 2D stacks is read by RELION-5's rule, which adds nothing to pixel coordinates.
        block.drop(*PIXEL_LABELS)
        style = CoordinateStyle()
    _coordinates(block, style, optset, new, old)
    for labels, attribute in (
        (ORIGIN_LABELS, "origin_angstrom"),
        (ANGLE_LABELS, "angles_deg"),
        (SUBTOMOGRAM_ANGLE_LABELS, "subtomogram_angles_deg"),
    ):
        values, before = getattr(new, attribute), None if old is None else getattr(old, attribute)
        absent = 0.0 if not values.any() else None  # all three columns, or none of them
        for axis, label in enumerate(labels):
            update_floats(block, label, values[:, axis], None if before is None else before[:, axis], absent)
    _half_sets(block, new, old, os.fspath(path))
    _images(block, path, new, old)
    numbers = np.array([optset.optics[i].number for i in new.optics_index], np.int64)
    before_numbers = None
    if old is not None and documents is not None:
        before_numbers = np.array([documents.optics[i].number for i in old.optics_index], np.int64)
    optics = _optics_block(document.get("optics"), optset.optics, documents)
    if "rlnOpticsGroup" in block or (optics is not None and (len(optset.optics) > 1 or "optics" not in document)):
        update_integers(block, "rlnOpticsGroup", numbers, before_numbers)
    for label, column in (extra_columns or {}).items():
        if len(column) != len(new):
            raise ValueError(f"column {label} has {len(column)} values for {len(new)} particles")
        set_any(block, label, column)
    write_star(path, _assemble(document, block, optics, optset.stacks_are_2d, documents))


def _rows_of(documents: Documents, new: Particles) -> tuple[StarBlock, Particles]:
    """The rows of the file for these particles, and their values when they were read."""
    table, read = documents.particle_table, documents.particles
    block = table[particle_block_name(table)]
    if new.name == read.name:
        return block.copy(), read
    row_of = {name: row for row, name in enumerate(read.name)}
    unknown = [name for name in new.name if name not in row_of]
    if unknown:
        raise DataError(
            "particles to be written were not in the file that was read",
            where=table.path,
            found=f"{len(unknown)} of {len(new)}, first {', '.join(unknown[:5])}",
        )
    rows = np.array([row_of[name] for name in new.name], np.int64)
    return block.take(rows), read.take(rows)


def _coordinates(
    block: StarBlock, style: CoordinateStyle, optset: OptimisationSet, new: Particles, old: Particles | None
) -> None:
    series = {one.name: one for one in optset.series}
    if style.kind == "pixel":
        labels, stored = PIXEL_LABELS, (new.coordinate_px - style.offset) / style.binning
    else:
        size = np.array([series[name].tomogram_size for name in new.tomogram], np.float64).reshape(-1, 3)
        pixel = np.array([series[name].pixel_size_angstrom for name in new.tomogram])
        labels, stored = CENTRED_LABELS, (new.coordinate_px - size / 2.0) * pixel[:, None]
    for axis, label in enumerate(labels):
        # Compared as positions, because going to stored units and back is not exact.
        before = (
            None
            if old is None
            else np.where(new.coordinate_px[:, axis] == old.coordinate_px[:, axis], stored[:, axis], np.nan)
        )
        update_floats(block, label, stored[:, axis], before)


def _half_sets(block: StarBlock, new: Particles, old: Particles | None, where: str) -> None:
    known = new.half_set != 0
    if not known.any():
        block.drop("rlnRandomSubset")
        return
    if not known.all():
        raise DataError(
            "half sets of some particles are unknown",
            where=where,
            expected="1 or 2 for all particles, or none",
            found=f"{int((~known).sum())} of {len(new)} unknown",
        )
    update_integers(block, "rlnRandomSubset", new.half_set, None if old is None else old.half_set)


def _images(block: StarBlock, path: str | os.PathLike[str], new: Particles, old: Particles | None) -> None:
    writer = PathWriter(path)
    for label, files, before in (
        ("rlnImageName", new.image_files, () if old is None else old.image_files),
        ("rlnCtfImage", new.ctf_files, () if old is None else old.ctf_files),
    ):
        if files and files == before:
            names = block.text(label)
            update_text(block, label, [writer.image(name, file) for name, file in zip(names, files, strict=True)])
        elif files:
            update_text(block, label, [path_text(split_image_name(file)[0], path) for file in files])
        elif before:
            block.drop(label)
    if new.visible:
        update_vectors(block, VISIBLE_LABEL, new.visible, old.visible if old is not None and old.visible else None)
    elif old is not None and old.visible:
        block.drop(VISIBLE_LABEL)


def _assemble(
    document: StarDocument,
    block: StarBlock,
    optics: StarBlock | None,
    stacks_are_2d: bool,
    documents: Documents | None,
) -> StarDocument:
    """Document with the particles, the optics and the flag of 2D stacks."""
    result = document.replace(block)
    if optics is not None:
        result = result.replace(optics)
    if documents is None or stacks_are_2d != documents.stacks_are_2d:
        old = result.get("general")
        general = StarBlock("general", "list", {}) if old is None else old.copy()
        general.columns[STACKS_LABEL] = [str(int(stacks_are_2d))] * max(len(general), 1)
        result = result.replace(general)
    if len(result.blocks) > len(document.blocks):
        # RELION reads blocks in any order; people expect this one.
        order = {"general": 0, "optics": 1}
        result.blocks.sort(key=lambda one: order.get(one.name, 2))
    return result


def _optics_block(
    block: StarBlock | None, optics: tuple[OpticsGroup, ...], documents: Documents | None
) -> StarBlock | None:
    """Optics table with what changed; None if the file has no table and needs none."""
    old: tuple[OpticsGroup, ...] | None = None
    if block is not None and documents is not None:
        row_of = {group.number: row for row, group in enumerate(documents.optics)}
        numbers = [group.number if group.split_from is None else group.split_from for group in optics]
        if all(number in row_of for number in numbers):
            rows = [row_of[number] for number in numbers]
            block = block.take(rows)
            old = tuple(documents.optics[row] for row in rows)
            if any(group.split_from is not None for group in optics):
                block.set_integers("rlnOpticsGroup", [group.number for group in optics])
    elif documents is not None and all(a is b for a, b in zip(optics, documents.optics, strict=False)):
        return None
    if block is None or old is None:
        block = StarBlock("optics", "loop", {})
        block.set_integers("rlnOpticsGroup", [group.number for group in optics])
    if "rlnOpticsGroupName" in block or old is None:
        update_text(block, "rlnOpticsGroupName", [group.name for group in optics])
    for label, attribute, whole in _OPTICS_COLUMNS:
        new_values = [getattr(group, attribute) for group in optics]
        old_values = None if old is None else [getattr(group, attribute) for group in old]
        if new_values == old_values:
            continue
        if any(value is None for value in new_values):
            block.drop(label)
        elif whole:
            block.set_integers(label, new_values)
        else:
            block.set_floats(label, new_values)
    for label, attribute in (("rlnEvenZernike", "even_zernike"), ("rlnOddZernike", "odd_zernike")):
        before = None if old is None else [getattr(group, attribute) for group in old]
        update_vectors(block, label, [getattr(group, attribute) for group in optics], before)
    return block


_OPTICS_COLUMNS = (
    ("rlnVoltage", "voltage_kv", False),
    ("rlnSphericalAberration", "spherical_aberration_mm", False),
    ("rlnAmplitudeContrast", "amplitude_contrast", False),
    ("rlnTomoTiltSeriesPixelSize", "pixel_size_angstrom", False),
    ("rlnCtfDataAreCtfPremultiplied", "ctf_premultiplied", True),
    ("rlnImageDimensionality", "image_dimensionality", True),
    ("rlnTomoSubtomogramBinning", "binning", False),
    ("rlnImagePixelSize", "image_pixel_size_angstrom", False),
    ("rlnImageSize", "image_size", True),
)
