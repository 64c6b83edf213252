"""Tomogram sets of RELION-4 (embedded tables) and RELION-5 (one file per tilt series) to `TiltSeries`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, FormatError
from tiltwise.geometry.projection import projection_matrices_from_angles
from tiltwise.io.deformations import read_deformation
from tiltwise.io.mrc import MrcHeader, read_header, split_image_name
from tiltwise.io.paths import PathResolver, missing_files
from tiltwise.io.star import Reader, StarBlock, StarDocument, read_star
from tiltwise.model import TiltSeries

MATRIX_LABELS = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ", "rlnTomoProjW")
ANGLE_LABELS = ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")
SIZE_LABELS = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
TABLE_FILE_LABEL = "rlnTomoTiltSeriesStarFile"


@dataclass(frozen=True, slots=True)
class TomogramSet:
    """Tilt series and the documents they came from."""

    series: tuple[TiltSeries, ...]
    document: StarDocument
    tables: dict[str, StarDocument]
    """per tilt series; empty for RELION-4"""
    sizes_known: bool
    notes: tuple[str, ...]

    @property
    def is_relion4(self) -> bool:
        """Whether the tables are embedded, which makes RELION-4's coordinate rule apply."""
        return not self.tables


@dataclass(frozen=True, slots=True)
class _Images:
    files: tuple[str, ...]
    index: NDArray[np.int64]
    size: tuple[int, int]


def read_tomograms(path: str, *, need_images: bool, read: Reader = read_star) -> TomogramSet:
    """Read a tomogram set.

    With `need_images`, every tilt image must exist; otherwise series without images get no `image_files` and
    the image size (0, 0), and a note.

    Raises
    ------
    FormatError
        if files, blocks or columns are missing or cannot be read.
    DataError
        if values contradict each other.
    """
    document = read(path)
    table = document["global"]
    notes: list[str] = []
    names = table.text("rlnTomoName")
    if not names:
        raise DataError(
            "a tomogram set is empty",
            where=table.where(),
            expected="at least one tilt series",
            fix="give a set with tilt series, or import them anew",
        )
    _refuse_duplicates(names, table)
    tables: dict[str, StarDocument] = {}
    blocks: list[StarBlock] = []
    if TABLE_FILE_LABEL in table:
        resolver = PathResolver(path)
        files = table.text(TABLE_FILE_LABEL)
        found = [resolver.find(file) for file in files]
        missing = [file for file, hit in zip(files, found, strict=True) if hit is None]
        if missing:
            raise missing_files("tilt series STAR files", missing, path)
        for name, hit in zip(names, found, strict=True):
            tables[name] = read(str(hit))
            blocks.append(_named_block(tables[name], name))
    else:
        for i, name in enumerate(names):
            if name not in document and f"tomo_{i}" in document:
                notes.append(f"{path}: table of {name} found under its old name data_tomo_{i}")
                blocks.append(document[f"tomo_{i}"])
            else:
                blocks.append(_named_block(document, name))
    sizes, known = _tomogram_sizes(table, notes)
    missing_images: list[str] = []
    series = []
    for row, (name, block) in enumerate(zip(names, blocks, strict=True)):
        if not len(block):
            raise DataError(
                "a tilt series is empty",
                where=block.where(),
                expected="at least one tilt",
                fix="take the series out of the tomogram set, or write its table anew",
            )
        images, missing = _images(table, row, block, need_images)
        if missing and not need_images:
            notes.append(
                f"{name}: tilt images not found ({missing[0]}"
                + (f" and {len(missing) - 1} more)" if missing[1:] else ")")
            )
        missing_images += missing
        series.append(_series(table, row, name, block, sizes[row], images, embedded=not tables, notes=notes))
    if missing_images and need_images:
        raise missing_files("tilt images", missing_images, path)
    if not known and any(label in block for block in blocks for label in MATRIX_LABELS):
        raise DataError(
            "the size of the tomograms is unknown",
            where=table.where(),
            expected=" ".join(f"_{label}" for label in SIZE_LABELS) + " (projection matrices count from a corner)",
            found="no or negative sizes",
            fix="add the size the tomograms were reconstructed with",
        )
    return TomogramSet(tuple(series), document, tables, known, tuple(notes))


def _named_block(document: StarDocument, name: str) -> StarBlock:
    if name in document:
        return document[name]
    names = [f"data_{block.name}" for block in document if block.name != "global"]
    raise FormatError(
        "the table of a tilt series is missing",
        where=document.path,
        expected=f"a block data_{name}, named as its rlnTomoName",
        found=", ".join(names[:8]) or "no such block",
        fix="rename the block, or rlnTomoName",
    )


def _refuse_duplicates(names: Sequence[str], table: StarBlock) -> None:
    seen: set[str] = set()
    for row, name in enumerate(names):
        if name in seen:
            raise DataError(
                "a tilt series occurs twice",
                where=table.where(row, "rlnTomoName"),
                found=name,
                fix="take one of the two rows out, or rename it",
            )
        seen.add(name)


def _tomogram_sizes(table: StarBlock, notes: list[str]) -> tuple[list[tuple[int, int, int]], bool]:
    """Sizes, and whether the file has them.  Without, positions count from the centre: size 0."""
    rows = len(table)
    if not all(label in table for label in SIZE_LABELS):
        notes.append(f"{table.path}: no tomogram sizes; positions count from the centre of the tomogram")
        return [(0, 0, 0)] * rows, False
    columns = np.stack([table.integers(label) for label in SIZE_LABELS], axis=1)
    if (columns <= 0).any():
        notes.append(f"{table.path}: tomogram sizes are not set; positions count from the centre of the tomogram")
        return [(0, 0, 0)] * rows, False
    if (columns % 2).any():
        notes.append(
            f"{table.path}: odd tomogram sizes; as in RELION-5, projection counts from size // 2 and centred "
            "coordinates from size / 2, half a pixel apart"
        )
    return [(int(x), int(y), int(z)) for x, y, z in columns], True


def _images(table: StarBlock, row: int, block: StarBlock, need_images: bool) -> tuple[_Images, list[str]]:
    """Where the images of a series are; and the names of those that are missing."""
    count = len(block)
    none = _Images((), np.arange(count, dtype=np.int64), (0, 0))
    if "rlnTomoTiltSeriesName" in table:
        name = split_image_name(table.text("rlnTomoTiltSeriesName")[row])[0]
        path = PathResolver(table.path).find(name)
        if path is None:
            return none, [name]
        header = read_header(path)
        frames = int(table.integers("rlnTomoFrameCount")[row]) if "rlnTomoFrameCount" in table else count
        if not frames == count == header.shape[0]:
            raise DataError(
                "a tilt stack and its table differ in length",
                where=path,
                expected=f"{count} sections, one per row of data_{block.name}",
                found=f"{header.shape[0]} sections, rlnTomoFrameCount {frames}",
                fix="remove the same tilts from the stack and from the table",
            )
        return _Images((path,) * count, none.index, _common_size([header])), []
    if "rlnMicrographName" not in block and not need_images:
        return none, [f"no _rlnMicrographName in {block.path}"]
    resolver = PathResolver(block.path)
    names = [split_image_name(name) for name in block.text("rlnMicrographName")]
    paths = {name: resolver.find(name) for name, _ in names}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        return none, missing
    headers = {name: read_header(str(path)) for name, path in paths.items()}
    index = np.zeros(count, np.int64)
    for tilt, (name, section) in enumerate(names):
        sections = headers[name].shape[0]
        if (section is None and sections != 1) or (section is not None and section >= sections):
            raise DataError(
                "a tilt image has no such section",
                where=block.where(tilt, "rlnMicrographName"),
                expected=f"N@{name} with N from 1 to {sections}",
                found=block.text("rlnMicrographName")[tilt],
                fix="correct the number before @: sections count from 1",
            )
        index[tilt] = section or 0
    files = tuple(str(paths[name]) for name, _ in names)
    return _Images(files, index, _common_size(list(headers.values()))), []


def _common_size(headers: Sequence[MrcHeader]) -> tuple[int, int]:
    first = headers[0]
    for header in headers:
        if header.shape[1:] != first.shape[1:]:
            raise DataError(
                "the images of a tilt series differ in size",
                where=header.path,
                expected=f"{first.shape[2]} x {first.shape[1]} pixels as {first.path}",
                found=f"{header.shape[2]} x {header.shape[1]}",
                fix="give images that were cut and binned alike, or take this one out of the series",
            )
    return first.shape[2], first.shape[1]


def _series(
    table: StarBlock,
    row: int,
    name: str,
    block: StarBlock,
    size: tuple[int, int, int],
    images: _Images,
    *,
    embedded: bool,
    notes: list[str],
) -> TiltSeries:
    count = len(block)

    def of_series(label: str, default: float | None = None) -> float:
        return float(table.floats(label)[row]) if label in table or default is None else default

    def of_tilts(label: str, default: float | None = None) -> NDArray[np.float64]:
        return block.floats(label) if label in block or default is None else np.full(count, default)

    pixel_size = of_series("rlnTomoTiltSeriesPixelSize")
    hand, voltage = of_series("rlnTomoHand"), of_series("rlnVoltage")
    for label, value, valid, expected in (
        ("rlnTomoTiltSeriesPixelSize", pixel_size, pixel_size > 0, "Å per pixel, above 0"),
        ("rlnTomoHand", hand, abs(hand) == 1, "1 or -1"),
        ("rlnVoltage", voltage, 10 <= voltage <= 3000, "kV, such as 300"),
    ):
        if not valid:
            raise DataError(
                "a value is out of range",
                where=table.where(row, label),
                expected=expected,
                found=f"{value:g}",
                fix="correct the value in this file",
            )
    projection = _projection(block, pixel_size, size, images.size, notes)
    if "rlnTomoNominalStageTiltAngle" in block:
        nominal = block.floats("rlnTomoNominalStageTiltAngle")
    else:
        nominal = tilt_angles(projection)
    if "rlnOpticsGroupName" in table:
        group = table.text("rlnOpticsGroupName")[row]
    else:
        group = "opticsGroup1" if embedded else name
    return TiltSeries(
        name=name,
        optics_group_name=group,
        pixel_size_angstrom=pixel_size,
        image_size=images.size,
        tomogram_size=size,
        projection=projection,
        defocus_u_angstrom=of_tilts("rlnDefocusU"),
        defocus_v_angstrom=of_tilts("rlnDefocusV"),
        defocus_angle_deg=of_tilts("rlnDefocusAngle"),
        phase_shift_deg=of_tilts("rlnPhaseShift", 0.0),
        ctf_scale=of_tilts("rlnCtfScalefactor", 1.0),
        ctf_bfactor_angstrom2=of_tilts("rlnCtfBfactor", 0.0),
        pre_exposure=of_tilts("rlnMicrographPreExposure"),
        nominal_tilt_deg=nominal,
        voltage_kv=voltage,
        spherical_aberration_mm=of_series("rlnSphericalAberration"),
        amplitude_contrast=of_series("rlnAmplitudeContrast"),
        hand=hand,
        defocus_slope=of_series("rlnTomoDefocusSlope", 1.0),
        bfactor_per_dose=max(of_series("rlnCtfBfactorPerElectronDose", 0.0), 0.0),
        image_files=images.files,
        image_index=images.index,
        deformation=read_deformation(table, row, block, images.size, notes),
    )


def _projection(
    block: StarBlock, pixel_size: float, size: tuple[int, int, int], image_size: tuple[int, int], notes: list[str]
) -> NDArray[np.float64]:
    """(F, 4, 4) from matrices where the file has them, else from angles: RELION-5 takes them in this order."""
    if not all(label in block for label in MATRIX_LABELS):
        if "rlnTomoYTilt" not in block:
            raise FormatError(
                "a tilt series has no geometry",
                where=block.where(),
                expected=f"{', '.join(ANGLE_LABELS)}, or {', '.join(MATRIX_LABELS)}",
                found=" ".join(f"_{label}" for label in block.columns),
                fix="align the tilt series first, or use the tomogram set of a job that has done it",
            )
        x_tilt = block.floats("rlnTomoXTilt") if "rlnTomoXTilt" in block else np.zeros(len(block))
        y_tilt, z_rot, x_shift, y_shift = (block.floats(label) for label in ANGLE_LABELS[1:])
        return projection_matrices_from_angles(x_tilt, y_tilt, z_rot, x_shift, y_shift, pixel_size, size, image_size)
    if "rlnTomoYTilt" in block:
        notes.append(f"{block.where()}: projection matrices override the angles beside them, as in RELION-5")
    projection = np.empty((len(block), 4, 4))
    for axis, label in enumerate(MATRIX_LABELS):
        for tilt, vector in enumerate(block.vectors(label)):
            if len(vector) != 4 or (axis == 3 and not np.array_equal(vector, [0, 0, 0, 1])):
                raise FormatError(
                    "a projection matrix cannot be read",
                    where=block.where(tilt, label),
                    expected="[0,0,0,1]" if axis == 3 else "four numbers",
                    found=block.columns[label][tilt],
                    fix="write the row as [a,b,c,d], or import the tilt series anew",
                )
            projection[tilt, axis] = vector
    return projection


def tilt_angles(projection: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tilt angle from the beam's direction in the tomogram, signed as RELION-5's YTilt (or XTilt)."""
    beam = projection[:, 2, :3] / np.linalg.norm(projection[:, 2, :3], axis=1, keepdims=True)
    sign = np.where(np.abs(beam[:, 0]) >= np.abs(beam[:, 1]), -beam[:, 0], beam[:, 1])
    return np.asarray(np.copysign(np.degrees(np.arccos(np.clip(beam[:, 2], -1.0, 1.0))), sign))
