"""Particle lists of Dynamo, STOPGAP, AV3 and IMOD, and coordinates as CSV, to drafts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError, FormatError
from tiltwise.interchange import choices, relion
from tiltwise.interchange.assemble import with_particles
from tiltwise.interchange.conventions import (
    AV3_ANGLES,
    CSV_ANGSTROM,
    CSV_PIXEL,
    DYNAMO,
    DYNAMO_ANGLES,
    EM_MOTL,
    IMOD,
    RELION_ANGLES,
    STOPGAP,
    CoordinateConvention,
    EulerConvention,
)
from tiltwise.interchange.drafts import Imported, ParticleDraft
from tiltwise.interchange.options import ImportOptions
from tiltwise.io.foreign.csv_coordinates import read_coordinates
from tiltwise.io.foreign.dynamo import DynamoTable, read_table, read_tomogram_list
from tiltwise.io.foreign.em import EmMotives
from tiltwise.io.foreign.em import read_motives as read_em_motives
from tiltwise.io.foreign.imod_model import read_model, read_points
from tiltwise.io.foreign.stopgap import StopgapMotives
from tiltwise.io.foreign.stopgap import read_motives as read_stopgap_motives

MODEL_SUFFIXES, POINT_SUFFIXES = (".mod",), (".pt", ".pts", ".point", ".points")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xyz", ".coords")


def is_particle_list(path: Path) -> bool:
    """Whether a file is a particle list of one of these programs, by its suffix (and by its block, for STAR)."""
    if path.suffix == ".star" and path.is_file():
        return b"data_stopgap_motivelist" in path.read_bytes()[:10_000]
    return path.suffix in (".tbl", ".em", *MODEL_SUFFIXES, *POINT_SUFFIXES, *TABLE_SUFFIXES)


def recognises(options: ImportOptions) -> bool:
    """Whether the input is a particle list, or a folder of them, whose tilt series `--t` gives."""
    if options.tomograms is None:
        return False
    if options.input.is_dir():
        return any(is_particle_list(path) for path in options.input.iterdir())
    return options.input.is_file() and is_particle_list(options.input)


def read(options: ImportOptions) -> Imported:
    """Read a particle list for the tilt series of a RELION set (`--t`).

    Raises
    ------
    ConfigError, FormatError, DataError
        if the set or the list cannot be read, or they do not belong together.
    """
    if options.tomograms is None:
        raise ConfigError("a particle list needs its tilt series", fix="give their tomograms.star: --t")
    inner = options.model_copy(update={"input": options.tomograms, "particles": None, "tomograms": None})
    source = "relion5" if relion.recognises(inner, "relion5") else "relion4"
    tilts = relion.read(inner, source)
    series = {one.name: one.pixel_size_angstrom for one in tilts.optset.series}
    lists = options.model_copy(update={"particles": options.input})
    return with_particles(tilts, read_particle_lists(lists, series))


def read_particle_lists(options: ImportOptions, series: Mapping[str, float]) -> list[ParticleDraft]:
    """Particles of `--p`, for tilt series of these names and pixel sizes in Å; none without the option.

    A folder holds lists of one tilt series each, named after it: `NAME.mod`, `NAME_picks.csv`.

    Raises
    ------
    ConfigError
        if binning, unit or origin are needed and not given.
    FormatError, DataError
        if the list cannot be read, or tomograms cannot be told apart.
    """
    path = options.particles
    if path is None:
        return []
    if path.is_dir():
        return _folder(path, options, series)
    if not is_particle_list(path):
        raise FormatError(
            "this is not a particle list that can be imported with an alignment",
            where=f"--p {path}",
            expected=".tbl (Dynamo), .star (STOPGAP), .em, .mod, .csv",
            fix="import particles of RELION with their tomograms.star: --i particles.star --t tomograms.star",
        )
    if path.suffix == ".tbl":
        return [_dynamo(path, options, series)]
    if path.suffix == ".star":
        return [_stopgap(path, options, series)]
    if path.suffix == ".em":
        return [_em(path, options, series)]
    if path.suffix in MODEL_SUFFIXES + POINT_SUFFIXES:
        return [_model(path, options, series)]
    return [_table(path, options, series)]


def _folder(folder: Path, options: ImportOptions, series: Mapping[str, float]) -> list[ParticleDraft]:
    """Lists of one tilt series each; a note names those of none."""
    drafts: list[ParticleDraft] = []
    foreign: list[str] = []
    for path in sorted(folder.iterdir()):
        if not (path.is_file() and is_particle_list(path)):
            continue
        name = _fitting(path.name, series)
        if name is None:
            foreign.append(path.name)
            continue
        one = options.model_copy(update={"particles": path, "tomogram_names": None})
        drafts += read_particle_lists(one, {name: series[name]})
    if not drafts:
        raise DataError(
            "no list in a folder belongs to a tilt series that is imported",
            where=f"--p {folder}",
            expected=", ".join(f"{name}.mod, {name}_*.csv" for name in list(series)[:3]),
            found=", ".join(foreign[:5]) or "no particle lists",
            fix="name lists after the tilt series they belong to, or give one file by --p",
        )
    if foreign:
        note = f"{folder}: {', '.join(foreign)} belong to no tilt series and are left out"
        drafts[0] = replace(drafts[0], notes=(*drafts[0].notes, note))
    return drafts


def _numbered(
    path: Path,
    options: ImportOptions,
    series: Mapping[str, float],
    found: DynamoTable | StopgapMotives | EmMotives,
    conventions: tuple[CoordinateConvention, EulerConvention],
    **more: Any,
) -> ParticleDraft:
    """Particles of a list that names tomograms by numbers, with what else it holds."""
    convention, binning = _placed(path, options, series, conventions[0])
    return ParticleDraft(
        where=str(path),
        tomogram=_tomograms(found.tomogram_number, options, series, str(path)),
        coordinate=found.coordinate,
        convention=convention,
        coordinate_binning=binning,
        angles_deg=found.angles_deg,
        euler=conventions[1],
        shift=found.shift,
        **more,
    )


def _dynamo(path: Path, options: ImportOptions, series: Mapping[str, float]) -> ParticleDraft:
    table = read_table(path)
    columns: dict[str, Sequence[object]] = {"rlnAutopickFigureOfMerit": list(table.correlation)}
    if (table.class_number > 0).all():
        columns["rlnClassNumber"] = [int(number) for number in table.class_number]
    return _numbered(
        path,
        options,
        series,
        table,
        (DYNAMO, DYNAMO_ANGLES),
        columns=columns,
    )


def _stopgap(path: Path, options: ImportOptions, series: Mapping[str, float]) -> ParticleDraft:
    motives = read_stopgap_motives(path)
    half = None if motives.half_set is None else np.where(np.array(motives.half_set) == "A", 1, 2).astype(np.int64)
    return _numbered(
        path,
        options,
        series,
        motives,
        (STOPGAP, AV3_ANGLES),
        half_set=half,
        columns={
            "rlnAutopickFigureOfMerit": list(motives.score),
            "rlnClassNumber": [int(number) for number in motives.class_number],
        },
    )


def _em(path: Path, options: ImportOptions, series: Mapping[str, float]) -> ParticleDraft:
    motives = read_em_motives(path)
    return _numbered(
        path,
        options,
        series,
        motives,
        (EM_MOTL, AV3_ANGLES),
        columns={
            "rlnAutopickFigureOfMerit": list(motives.score),
            "rlnClassNumber": [int(number) for number in motives.class_number],
        },
    )


def _model(path: Path, options: ImportOptions, series: Mapping[str, float]) -> ParticleDraft:
    convention, binning = _placed(path, options, series, IMOD)
    model = read_model(path) if path.suffix in MODEL_SUFFIXES else read_points(path)
    if len(series) != 1:
        raise _one_series(path, series)
    return ParticleDraft(
        where=str(path),
        tomogram=tuple(series) * len(model.points),
        # x and y count from the edge of the first pixel, z from the centre of the first slice
        coordinate=model.points + np.array([0.0, 0.0, IMOD.first]),
        convention=convention,
        coordinate_binning=binning,
        columns={"rlnTomoManifoldIndex": [int(number) for number in model.contour_number]},
        notes=(f"{path}: points of an IMOD model have no orientation",),
    )


def _table(path: Path, options: ImportOptions, series: Mapping[str, float]) -> ParticleDraft:
    table = read_coordinates(path)
    convention, binning = _placed(path, options, series, _csv_convention(options, path))
    if table.tomogram is not None:
        names = tuple(_series_name(text, series, str(path)) for text in table.tomogram)
    elif len(series) == 1:
        names = tuple(series) * len(table.coordinate)
    else:
        raise _one_series(path, series)
    columns: dict[str, Sequence[object]] = {}
    for name, texts in table.other.items():
        label = name.lstrip("_") if name.lstrip("_").startswith("rln") else f"tiltwise{_label(name)}"
        columns[label] = list(texts)
    return ParticleDraft(
        where=str(path),
        tomogram=names,
        coordinate=table.coordinate,
        convention=convention,
        coordinate_binning=binning,
        angles_deg=table.angles_deg,
        euler=None if table.angles_deg is None else RELION_ANGLES,
        columns=columns,
    )


def _csv_convention(options: ImportOptions, path: Path) -> CoordinateConvention:
    unit, origin = options.coordinate_unit, options.coordinate_origin
    if unit is None or origin is None or (unit == "px" and origin == "corner" and options.coordinate_first is None):
        raise ConfigError(
            "unit and origin of coordinates are not known",
            where=f"--p {path}",
            expected="--coord-units px|angstrom, --coord-origin corner|centre, and for pixels from the corner "
            "--coord-first 0, 1 or 0.5",
            fix="look them up in the program that wrote the file; a wrong guess would move every particle",
        )
    return CSV_ANGSTROM if unit == "angstrom" else CSV_PIXEL


def _placed(
    path: Path, options: ImportOptions, series: Mapping[str, float], program: CoordinateConvention
) -> tuple[CoordinateConvention, float]:
    """Convention and binning of the coordinates of a list.

    Raises
    ------
    ConfigError
        if the binning is not given: it is not in the file, and a wrong guess would move every particle.
    """
    convention = choices.coordinate_convention(program, options)
    if convention.unit == "Å":
        return convention, 1.0
    if options.coordinate_binning is None and options.coordinate_pixel_size is None:
        raise ConfigError(
            "the binning of coordinates is not known",
            where=str(path),
            expected="unbinned pixels per pixel of the coordinates",
            fix="give --coord-binning (1 if they were picked in an unbinned tomogram) or --coord-angpix",
        )
    sizes = sorted(set(series.values()))
    if options.coordinate_pixel_size is not None and len(sizes) != 1:
        raise ConfigError(
            "tilt series differ in pixel size", where="--coord-angpix", found=str(sizes), fix="give --coord-binning"
        )
    return convention, choices.coordinate_binning(convention, options, sizes[0])


def _tomograms(
    numbers: NDArray[np.int64], options: ImportOptions, series: Mapping[str, float], where: str
) -> tuple[str, ...]:
    """Names of tilt series of tomogram numbers."""
    distinct = [int(number) for number in np.unique(numbers)]
    if options.tomogram_names is not None:
        listed = read_tomogram_list(options.tomogram_names)
        unknown = [number for number in distinct if number not in listed.names]
        if unknown:
            raise DataError(
                "a tomogram number has no name",
                where=f"{where} and {listed.path}",
                expected="a line NUMBER NAME for every number",
                found=", ".join(map(str, unknown[:8])),
                fix="add a line for each of these numbers",
            )
        names = {number: _series_name(listed.names[number], series, listed.path) for number in distinct}
    elif len(series) == len(distinct) == 1:
        names = {distinct[0]: next(iter(series))}
    else:
        raise ConfigError(
            "a particle list has numbers of tomograms, not names",
            where=where,
            expected=f"which of the {len(series)} tilt series is meant by {', '.join(map(str, distinct[:8]))}",
            fix="give a file with lines NUMBER NAME: --tomogram-names",
        )
    return tuple(names[int(number)] for number in numbers)


def _series_name(text: str, series: Mapping[str, float], where: str) -> str:
    """Tilt series that a name or the file of a tomogram means: `TS_1`, `TS_1.mrc`, `a/TS_1_bin8.rec`."""
    name = _fitting(Path(text).name, series)
    if name is None:
        raise DataError(
            "a tomogram belongs to no tilt series that is imported",
            where=where,
            expected=", ".join(list(series)[:5]),
            found=text,
            fix="give names of tilt series: --tomogram-names with lines NUMBER NAME, or a column tomogram",
        )
    return name


def _fitting(base: str, series: Mapping[str, float]) -> str | None:
    """The longest name of a tilt series with which a file name begins: TS_1 for TS_1_bin8.rec, not for TS_10.rec."""
    if base in series:
        return base
    return max((name for name in series if base.startswith((f"{name}_", f"{name}."))), key=len, default=None)


def _one_series(path: Path, series: Mapping[str, float]) -> DataError:
    return DataError(
        "it is not known in which tomogram these points are",
        where=str(path),
        expected="one tilt series, or a column with the names of tomograms",
        found=f"{len(series)} tilt series",
        fix="import one tilt series at a time, or give a CSV file with a column tomogram",
    )


def _label(name: str) -> str:
    return "".join(part.capitalize() for part in "".join(c if c.isalnum() else " " for c in name).split())
