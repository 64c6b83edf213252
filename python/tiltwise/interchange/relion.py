"""Import of RELION-4 and RELION-5 projects, and of what other programs write in these forms."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.interchange import choices
from tiltwise.interchange.conventions import RELION4, RELION5, RELION5_PIXEL, CoordinateConvention
from tiltwise.interchange.drafts import Imported
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.relion_forms import even_sizes, to_relion5
from tiltwise.io.documents import CoordinateStyle, Documents
from tiltwise.io.optimisation_set import LABELS, load_optimisation_set, notes_of
from tiltwise.io.paths import PathResolver
from tiltwise.io.star import StarDocument, read_star
from tiltwise.io.tomograms import MATRIX_LABELS, SIZE_LABELS, TABLE_FILE_LABEL, TomogramSet, read_tomograms
from tiltwise.model import OptimisationSet, Particles, TiltSeries

F64 = NDArray[np.float64]
UNSET = -999
"""RELION-5's value of a tomogram size that is not set"""


def recognises(options: ImportOptions, source: str) -> bool:
    """Whether the tomogram set is of RELION-4 (embedded tables) or RELION-5 (one table per tilt series)."""
    path = options.tomograms or options.input
    if path.suffix != ".star" or not path.is_file():
        return False
    if options.tomograms is None and not _is_relion(read_star(path)):
        return False
    tomograms = _tomogram_document(path)
    return tomograms is not None and (TABLE_FILE_LABEL in tomograms["global"]) == (source == "relion5")


def read(options: ImportOptions, source: str) -> Imported:
    """Read a RELION project, and turn it into RELION-5's form with even tomogram sizes.

    Raises
    ------
    FormatError, DataError
        if files cannot be read or contradict each other.
    """
    optset = _load(options)
    documents = optset.documents
    assert isinstance(documents, Documents)
    exported = _binning_of_warptools(documents, options)
    if exported is not None:
        optset = _load(options.model_copy(update={"coordinate_binning": exported}))
        documents = optset.documents
        assert isinstance(documents, Documents)
    embedded = not documents.tilt_tables
    if embedded != (source == "relion4"):
        found = "RELION-4 (embedded tables)" if embedded else "RELION-5 (one table per tilt series)"
        raise DataError(
            "the tomogram set is of another version",
            where=documents.tomograms.path,
            expected=source,
            found=found,
            fix=f"give --from {'relion4' if embedded else 'relion5'}",
        )
    notes = notes_of(optset)
    if exported is not None:
        notes += (
            f"WarpTools wrote this set: coordinates are in pixels of the extracted images, {exported:g} unbinned ones; "
            "its frame is the mirror image of Warp's own along z, with particles to match",
        )
    size = choices.image_size(options)
    if size is not None:
        optset = with_image_size(optset, size)
    convention = _convention(documents)
    if options.hand is not None:
        optset = replace(optset, series=tuple(replace(one, hand=float(options.hand)) for one in optset.series))
    unknown = [one.name for one in optset.series if min(one.tomogram_size) <= 0]
    optset, more = _known_sizes(optset, options)
    notes += more
    optset, more = _one_centre(optset, options, unknown)
    notes += more
    optset, more = even_sizes(optset)
    notes += more
    optset, more = to_relion5(optset)
    notes += more
    notes = tuple(note for note in notes if "odd tomogram sizes" not in note and "no tomogram sizes" not in note)
    applied = f"{documents.particle_table.path}: coordinates as {convention.key} has them ({convention.columns})"
    if convention is not RELION5:
        applied += f", {convention.offset:g} added, {documents.coordinates.binning:g} unbinned pixels per pixel"
    return Imported(optset, notes, (applied,) if len(optset.particles) else ())


def with_image_size(optset: OptimisationSet, size: tuple[int, int]) -> OptimisationSet:
    """The set with the size of tilt images that are not at hand; projections from angles count from their centre."""
    documents = optset.documents
    assert isinstance(documents, Documents)
    series = []
    for one in optset.series:
        if min(one.image_size) > 0:
            series.append(one)
            continue
        projection = one.projection
        table = documents.tilt_tables.get(one.name)
        if table is not None and not all(label in table[one.name] for label in MATRIX_LABELS):
            projection = projection.copy()
            projection[:, 0, 3] += size[0] // 2
            projection[:, 1, 3] += size[1] // 2
        series.append(replace(one, image_size=size, projection=projection))
    return replace(optset, series=tuple(series))


def _load(options: ImportOptions) -> OptimisationSet:
    particles = options.particles
    if particles is None and not _names_particles(options.input):
        tomograms = options.tomograms or _named_tomograms(options.input)
        return _without_particles(read_tomograms(os.path.abspath(tomograms), need_images=False))
    return load_optimisation_set(
        options.input,
        tomograms=options.tomograms,
        particles=particles,
        trajectories=options.trajectories,
        need_images=False,
        coordinate_binning=_binning(options),
    )


def _binning(options: ImportOptions) -> float | None:
    if options.coordinate_pixel_size is None:
        if options.pixel_size is not None:
            raise ConfigError("--angpix has no effect without --coord-angpix", fix="the pixel size is in the files")
        return options.coordinate_binning
    if options.pixel_size is None:
        raise ConfigError(
            "--coord-angpix needs --angpix", fix="give the pixel size of the tilt images, or --coord-binning"
        )
    return choices.coordinate_binning(RELION5_PIXEL, options, options.pixel_size)


def _binning_of_warptools(documents: Documents, options: ImportOptions) -> float | None:
    """Unit of pixel coordinates of `ts_export_particles` in unbinned pixels; None for other programs, or if given."""
    given = options.coordinate_binning is not None or options.coordinate_pixel_size is not None
    if given or documents.coordinates.kind != "pixel" or not len(documents.particles):
        return None
    if not all(one.name.endswith(".tomostar") for one in documents.series):
        return None
    optics = documents.particle_table.get("optics")
    label = "rlnTomoSubtomogramBinning"
    factors = optics.floats(label) if optics is not None and label in optics else np.ones(0)
    return float(factors[0]) if len(set(factors.tolist())) == 1 and factors[0] > 0 else None


def _names_particles(path: Path) -> bool:
    document = read_star(path)
    return any(LABELS["particles"] in block for block in document) or (
        "global" not in document and any("rlnTomoName" in block for block in document)
    )


def _named_tomograms(path: Path) -> Path:
    """Tomogram set of an optimisation set without particles, or the file itself."""
    for block in read_star(path):
        if LABELS["tomograms"] in block:
            name = block.value(LABELS["tomograms"])
            return Path(PathResolver(path).require(name, f"the file of _{LABELS['tomograms']}"))
    return path


def _is_relion(document: StarDocument) -> bool:
    """Whether a file is a tomogram set, or an optimisation set that names one."""
    return "global" in document or any(LABELS["tomograms"] in block for block in document)


def _tomogram_document(path: Path) -> StarDocument | None:
    document = read_star(_named_tomograms(path))
    return document if "global" in document else None


def _without_particles(tomograms: TomogramSet) -> OptimisationSet:
    none = np.zeros((0, 3))
    whole = np.zeros(0, np.int64)
    particles = Particles((), (), none, none, none, none, whole, whole, (), (), ())
    documents = Documents(
        tomograms=tomograms.document,
        tilt_tables=tomograms.tables,
        particle_table=StarDocument([]),
        coordinates=CoordinateStyle(),
        series=tomograms.series,
        particles=particles,
        optics=(),
        stacks_are_2d=False,
        notes=tomograms.notes,
    )
    return OptimisationSet(tomograms.series, particles, (), {}, False, documents, {})


def _convention(documents: Documents) -> CoordinateConvention:
    if documents.coordinates.kind == "centred":
        return RELION5
    return RELION4 if documents.coordinates.offset else RELION5_PIXEL


def _known_sizes(optset: OptimisationSet, options: ImportOptions) -> tuple[OptimisationSet, tuple[str, ...]]:
    """Tomogram sizes where the file has none: positions then count from the centre, whatever the size."""
    unknown = [one for one in optset.series if min(one.tomogram_size) <= 0]
    if not unknown:
        return optset, ()
    given = choices.tomogram_size(options)
    if given is not None:
        size = given
        note = "tomogram sizes were not set: --tomogram-size is used"
    else:
        size = _enclosing_size(optset, unknown)
        note = (
            f"tomogram sizes were not set: {size[0]} x {size[1]} x {size[2]} pixels are written, which hold all images "
            "and particles"
        )
    size = (size[0] + size[0] % 2, size[1] + size[1] % 2, size[2] + size[2] % 2)
    half = np.array(size, np.float64) / 2.0
    series = tuple(_resized(one, size) if min(one.tomogram_size) <= 0 else one for one in optset.series)
    rows = np.isin(np.array(optset.particles.tomogram, dtype=object), [one.name for one in unknown])
    position = optset.particles.coordinate_px + rows[:, None] * half
    return replace(optset, series=series, particles=replace(optset.particles, coordinate_px=position)), (note,)


def _resized(one: TiltSeries, size: tuple[int, int, int]) -> TiltSeries:
    projection = one.projection.copy()
    projection[:, :3, 3] -= projection[:, :3, :3] @ (np.asarray(size, np.float64) / 2.0)
    return replace(one, tomogram_size=size, projection=projection)


def _enclosing_size(optset: OptimisationSet, unknown: list[TiltSeries]) -> tuple[int, int, int]:
    image = max(max(one.image_size) for one in unknown)
    reach = np.abs(optset.particles.coordinate_px).max(axis=0) if len(optset.particles) else np.zeros(3)
    wide = [max(image, 2 * int(np.ceil(value / 50.0)) * 50) for value in reach[:2]]
    deep = max(2 * int(np.ceil(reach[2] / 50.0)) * 50, (image // 2) // 100 * 100, 100)
    return max(wide[0], 100), max(wide[1], 100), deep


def _excess(documents: Documents) -> dict[str, F64]:
    """(3,) per tilt series: by how much N / 2 exceeds the centre of projection in RELION-5.0."""
    table = documents.tomograms["global"]
    columns = [table.integers(label) if label in table else np.full(len(table), UNSET) for label in SIZE_LABELS]
    half = np.stack(columns, axis=1) / 2.0
    return {one.name: row for one, row in zip(documents.series, half - np.trunc(half), strict=True)}


def _one_centre(
    optset: OptimisationSet, options: ImportOptions, unknown: list[str]
) -> tuple[OptimisationSet, tuple[str, ...]]:
    """Positions as the declared version used them where a tomogram size is odd or was not set.

    RELION-5.0 adds N / 2 to centred coordinates and projects from N / 2 rounded towards zero: positions are half a
    pixel larger along odd axes.  Sizes that are not set are -999 there, and positions half a pixel smaller.  A program
    with one centre has neither.
    """
    documents = optset.documents
    assert isinstance(documents, Documents)
    if documents.coordinates.kind != "centred" or not len(optset.particles):
        return optset, ()
    relion = _excess(documents)
    # Positions as read have the excess of sizes that are set, and none where these are not.
    excess = {name: np.zeros(3) if name in unknown else value for name, value in relion.items()}
    if not any(value.any() for value in relion.values()):
        return optset, ()
    change = {
        name: relion[name] - excess[name] if options.odd_centre == "relion-5.0" else -excess[name] for name in excess
    }
    moved = optset.particles.coordinate_px + np.array([change[name] for name in optset.particles.tomogram])
    if options.odd_centre == "consistent":
        note = "odd or unset tomogram sizes: coordinates count from the one centre that projection has"
    else:
        note = (
            "odd or unset tomogram sizes: positions are where RELION-5.0 extracts, half a pixel from where a program "
            "with one centre would; if the coordinates are from such a program, give --odd-centre consistent"
        )
    return replace(optset, particles=replace(optset.particles, coordinate_px=moved)), (note,)
