"""Write tomogram sets: the columns that changed, everything else as it was read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.projection import angles_from_projection_matrices
from tiltwise.io.columns import set_any, update_floats, update_text, update_vectors
from tiltwise.io.deformations import update_deformations
from tiltwise.io.documents import Documents
from tiltwise.io.mrc import split_image_name
from tiltwise.io.paths import PathWriter, path_text
from tiltwise.io.star import StarBlock, StarDocument, write_star
from tiltwise.io.tomograms import ANGLE_LABELS, MATRIX_LABELS, SIZE_LABELS, TABLE_FILE_LABEL
from tiltwise.model import OptimisationSet, TiltSeries

TILT_COLUMNS = (
    ("rlnDefocusU", "defocus_u_angstrom", None),
    ("rlnDefocusV", "defocus_v_angstrom", None),
    ("rlnDefocusAngle", "defocus_angle_deg", None),
    ("rlnMicrographPreExposure", "pre_exposure", None),
    ("rlnPhaseShift", "phase_shift_deg", 0.0),
    ("rlnCtfScalefactor", "ctf_scale", 1.0),
    ("rlnCtfBfactor", "ctf_bfactor_angstrom2", 0.0),
)
"""label, attribute of TiltSeries, value meant by an absent column"""


def write_tomograms(
    path: str | os.PathLike[str],
    optset: OptimisationSet,
    *,
    series: Sequence[TiltSeries] | None = None,
    global_columns: Mapping[str, NDArray[np.float64]] | None = None,
    extra_columns: Mapping[str, Mapping[str, Sequence[object]]] | None = None,
) -> None:
    """Write a tomogram set in the format it came in: embedded tables (RELION-4), or `tilt_series/NAME.star` beside it.

    Only values that differ from what was read are rewritten; unknown columns and blocks are kept.  Changed
    geometry is written as matrices to RELION-4 sets, and as angles and shifts to RELION-5 sets, where
    matrices beside the angles are removed because RELION-5 would prefer them.  A set that was not read from
    files is written in RELION-5's format.

    Parameters
    ----------
    series
        in place of `optset.series`: the same tilt series or some of them, with the same tilts.
    global_columns
        label -> one number per tilt series, for the table of all series.
    extra_columns
        per tilt series: label -> one value per tilt, numbers, whole numbers, strings or vectors.

    Raises
    ------
    DataError
        if changed geometry cannot be written as angles, a series was not read, or a value is NaN or infinite.
    OutputError
        if a file cannot be written.
    """
    chosen = tuple(optset.series if series is None else series)
    documents = optset.documents if isinstance(optset.documents, Documents) else None
    embedded = documents is not None and not documents.tilt_tables
    old = {one.name: one for one in documents.series} if documents is not None else {}
    table = _global_table(path, chosen, documents, old)
    for label, values in (global_columns or {}).items():
        table.set_floats(label, values)
    folder = Path(path).parent / "tilt_series"
    blocks, files = [], []
    for one in chosen:
        file = Path(path) if embedded else folder / f"{one.name.replace('/', '_')}.star"
        document, block = _tilt_table(one, documents, embedded)
        _update_tilts(block, one, old.get(one.name), embedded)
        _update_images(block, one, old.get(one.name), file)
        for label, column in (extra_columns or {}).get(one.name, {}).items():
            set_any(block, label, column)
        blocks.append(block)
        files.append((file, document))
    update_deformations(table, blocks, chosen, [old.get(one.name) for one in chosen])
    if embedded and documents is not None:
        old_names = {block.name for block in _tables_of(documents)}
        others = [block for block in documents.tomograms if block.name not in old_names and block.name != "global"]
        write_star(path, StarDocument([table, *blocks, *others], trailer=documents.tomograms.trailer))
        return
    folder.mkdir(parents=True, exist_ok=True)
    for (file, document), block in zip(files, blocks, strict=True):
        write_star(file, document.replace(block))
    update_text(table, TABLE_FILE_LABEL, [path_text(file, path) for file, _ in files])
    source = documents.tomograms if documents is not None else StarDocument([])
    write_star(path, source.replace(table))


def refuse_nonrigid(optset: OptimisationSet, series: Sequence[TiltSeries]) -> None:
    """Raises DataError, before any work, if changed geometry of these series could not be written.

    RELION-5 sets hold angles: matrices beside them that magnify, stretch or mirror have no place there.
    """
    documents = optset.documents
    if isinstance(documents, Documents) and not documents.tilt_tables:
        return
    for one in series:
        angles_from_projection_matrices(
            one.projection, one.pixel_size_angstrom, one.tomogram_size, one.image_size, name=one.name
        )


def _global_table(
    path: str | os.PathLike[str],
    chosen: Sequence[TiltSeries],
    documents: Documents | None,
    old: dict[str, TiltSeries],
) -> StarBlock:
    if documents is None:
        table = StarBlock("global", "loop", {})
        table.set_text("rlnTomoName", [one.name for one in chosen])
        table.set_floats("rlnVoltage", [one.voltage_kv for one in chosen])
        table.set_floats("rlnSphericalAberration", [one.spherical_aberration_mm for one in chosen])
        table.set_floats("rlnAmplitudeContrast", [one.amplitude_contrast for one in chosen])
        table.set_floats("rlnMicrographOriginalPixelSize", [one.pixel_size_angstrom for one in chosen])
        table.set_floats("rlnTomoHand", [one.hand for one in chosen])
        table.set_text("rlnOpticsGroupName", [one.optics_group_name for one in chosen])
        table.set_floats("rlnTomoTiltSeriesPixelSize", [one.pixel_size_angstrom for one in chosen])
        for axis, label in enumerate(SIZE_LABELS):
            table.set_integers(label, [one.tomogram_size[axis] for one in chosen])
    else:
        row_of = {one.name: row for row, one in enumerate(documents.series)}
        unknown = [one.name for one in chosen if one.name not in row_of]
        if unknown:
            raise DataError(
                "tilt series to be written were not in the set that was read",
                where=documents.tomograms.path,
                found=", ".join(unknown[:5]),
            )
        table = documents.tomograms["global"].take([row_of[one.name] for one in chosen])
        if "rlnTomoTiltSeriesName" in table:
            writer, names = PathWriter(path), table.text("rlnTomoTiltSeriesName")
            update_text(
                table,
                "rlnTomoTiltSeriesName",
                [
                    writer.image(name, one.image_files[0]) if one.image_files else name
                    for name, one in zip(names, chosen, strict=True)
                ],
            )
    if old and any(one.optics_group_name != old[one.name].optics_group_name for one in chosen):
        table.set_text("rlnOpticsGroupName", [one.optics_group_name for one in chosen])
    for label, attribute, default in (
        ("rlnSphericalAberration", "spherical_aberration_mm", None),
        ("rlnTomoHand", "hand", None),
        ("rlnTomoDefocusSlope", "defocus_slope", 1.0),
        ("rlnCtfBfactorPerElectronDose", "bfactor_per_dose", 0.0),
    ):
        new = np.array([getattr(one, attribute) for one in chosen], np.float64)
        before = np.array([getattr(old[one.name], attribute) for one in chosen], np.float64) if old else None
        update_floats(table, label, new, before, default)
    return table


def _tables_of(documents: Documents) -> list[StarBlock]:
    """Embedded tables of the tilt series, which very old files call tomo_0, tomo_1, ..."""
    tables = []
    for i, one in enumerate(documents.series):
        name = one.name if one.name in documents.tomograms else f"tomo_{i}"
        tables.append(documents.tomograms[name])
    return tables


def _tilt_table(one: TiltSeries, documents: Documents | None, embedded: bool) -> tuple[StarDocument, StarBlock]:
    if documents is None:
        return StarDocument([]), StarBlock(one.name, "loop", {})
    if not embedded:
        document = documents.tilt_tables[one.name]
        return document, document[one.name].copy()
    index = next(i for i, old in enumerate(documents.series) if old.name == one.name)
    block = _tables_of(documents)[index].copy()
    block.name = one.name
    return documents.tomograms, block


def _update_tilts(block: StarBlock, one: TiltSeries, old: TiltSeries | None, embedded: bool) -> None:
    if old is not None and old.n_tilts != one.n_tilts:
        raise ValueError(f"{one.name} has {one.n_tilts} tilts, {old.n_tilts} were read")
    if old is None:
        block.set_floats("rlnTomoNominalStageTiltAngle", one.nominal_tilt_deg)
    for label, attribute, absent in TILT_COLUMNS:
        # A new file states everything: RELION-5 fills in an absent scale factor with cos(tilt).
        default = None if old is None else absent
        before: NDArray[np.float64] | None = None if old is None else getattr(old, attribute)
        update_floats(block, label, getattr(one, attribute), before, default)
    if old is not None and np.array_equal(one.projection, old.projection):
        return
    if embedded:
        for axis, label in enumerate(MATRIX_LABELS):
            before_rows = list(old.projection[:, axis]) if old is not None and label in block else None
            update_vectors(block, label, list(one.projection[:, axis]), before_rows)
        block.drop(*ANGLE_LABELS)
        return
    had_matrices = all(label in block for label in MATRIX_LABELS)
    angles = angles_from_projection_matrices(
        one.projection, one.pixel_size_angstrom, one.tomogram_size, one.image_size, name=one.name
    )
    same = np.zeros(one.n_tilts, np.bool_)
    if old is not None and not had_matrices:
        same = np.all(one.projection == old.projection, axis=(1, 2))
    block.drop(*MATRIX_LABELS)
    for label, values in zip(ANGLE_LABELS, angles, strict=True):
        default = 0.0 if label == "rlnTomoXTilt" and old is not None else None
        update_floats(block, label, values, np.where(same, values, np.nan), default)


def _update_images(block: StarBlock, one: TiltSeries, old: TiltSeries | None, file: Path) -> None:
    if not one.image_files:
        return
    if old is not None and "rlnMicrographName" in block:
        writer = PathWriter(file)
        names = block.text("rlnMicrographName")
        kept = [writer.image(name, path) for name, path in zip(names, one.image_files, strict=True)]
        update_text(block, "rlnMicrographName", kept)
    elif old is None:
        block.set_text(
            "rlnMicrographName",
            [
                f"{index + 1:06d}@{path_text(split_image_name(path)[0], file)}"
                for path, index in zip(one.image_files, one.image_index, strict=True)
            ],
        )
