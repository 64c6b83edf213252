"""AreTomo projects: `.aln` with global and local alignment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.geometry.deformation import Deformation, DeformationModel
from tiltwise.geometry.projection import project_points
from tiltwise.geometry.rotations import rotation_y, rotation_z
from tiltwise.interchange import choices
from tiltwise.interchange.assemble import assemble
from tiltwise.interchange.conventions import ARETOMO_ALIGNMENT, centre_px
from tiltwise.interchange.drafts import Imported, Optics, SeriesDraft
from tiltwise.interchange.join import join_by_angle
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.particle_lists import read_particle_lists
from tiltwise.interchange.stack import find_stack, pixel_size_of
from tiltwise.interchange.views import Views, axis_notes, ctf_of, dose_before, find_ctf, find_mdoc
from tiltwise.io.foreign.aretomo import AreTomoAlignment, LocalAlignment, read_aln
from tiltwise.io.foreign.imod_alignment import read_angles
from tiltwise.model import OptimisationSet, TiltSeries

F64 = NDArray[np.float64]
GRID, SAMPLES = (5, 5), 33
"""Nodes of the spline that a local alignment becomes; places along an axis where it is fitted to AreTomo's field."""
_CHUNK = 2000
"""particles whose displacements are computed at a time: 20 MB for 41 tilts and 16 patches"""


def recognises(options: ImportOptions) -> bool:
    """Whether the input is an `.aln` file or a folder with some."""
    return bool(files(options.input))


def files(path: Path) -> list[Path]:
    """The `.aln` file, or those in a folder."""
    if path.is_dir():
        return sorted(path.glob("*.aln"))
    return [path] if path.suffix == ".aln" and path.is_file() else []


def name_of(path: Path) -> str:
    """Name of a tilt series: AreTomo adds `.aln` to that of the stack, some versions with its suffix."""
    return path.name.removesuffix(".aln").removesuffix(".mrc").removesuffix(".st")


def read(options: ImportOptions) -> Imported:
    """Read one or several alignments, and the particles of `--p`; the local alignment displaces these or the images.

    Raises
    ------
    FormatError, DataError
        if files are missing, cannot be read or contradict each other.
    """
    found = files(options.input)
    if not found:
        raise DataError(
            "there is no AreTomo alignment",
            where=f"--i {options.input}",
            expected="NAME.aln",
            fix="name the folder that AreTomo wrote its .aln files to",
        )
    alignments = {name_of(path): read_aln(path) for path in found}
    series = [series_of(name, one, options) for name, one in alignments.items()]
    imported = assemble(series, read_particle_lists(options, {one.name: one.pixel_size_angstrom for one in series}))
    return with_local_alignment(imported, alignments, options)


def series_of(name: str, alignment: AreTomoAlignment, options: ImportOptions) -> SeriesDraft:
    """Tilt series of one alignment.

    Raises
    ------
    FormatError, DataError
        if sizes, pixel size, dose or CTF are not known or do not fit.
    """
    folder = Path(alignment.path).parent
    notes: list[str] = []
    stack = find_stack(folder, [f"{name}.mrc", f"{name}.st", f"{name}.mrcs"], alignment.raw_size[2])
    image_size = alignment.raw_size[:2]
    if stack is not None and stack.image_size != image_size:
        raise DataError(
            "the raw stack does not fit the alignment",
            where=str(stack.path),
            expected=f"{image_size[0]} x {image_size[1]} pixels, RawSize of {alignment.path}",
            found=f"{stack.image_size[0]} x {stack.image_size[1]}",
            fix="give the stack that AreTomo aligned, not a binned or cropped one",
        )
    pixel_size = pixel_size_of(options, stack, alignment.path)
    size = _tomogram_size(alignment, options, notes)
    rotation = rotation_z(alignment.rotation_deg) @ rotation_y(alignment.tilt_deg)
    projection = ARETOMO_ALIGNMENT.projection(rotation, alignment.shift_px, image_size=image_size, tomogram_size=size)
    section = _sections(name, alignment, options, folder)
    if len(alignment.dark_tilt_deg):
        angles = ", ".join(f"{angle:g}" for angle in alignment.dark_tilt_deg)
        notes.append(f"{name}: AreTomo left out {len(alignment.dark_tilt_deg)} dark views at {angles} degrees")
    if section is None:
        notes.append(f"{name}: no angle per section is known ({name}.rawtlt or mdoc); images are not known")
    elif stack is None:
        notes.append(f"{name}: the raw stack is not beside the alignment; images are not known")
    attached = stack if section is not None else None
    count = len(alignment.tilt_deg)
    views = Views(
        name=name,
        where=alignment.path,
        section=np.arange(count) if section is None else section,
        sections=alignment.raw_size[2],
        tilt_deg=alignment.tilt_deg,
        stage_deg=alignment.nominal_tilt_deg,
        sections_known=section is not None,
        of_aretomo=True,
    )
    dose, dose_from = dose_before(views, options, folder)
    ctf, ctf_from, ctf_notes = ctf_of(views, options, find_ctf(name, options, folder))
    return SeriesDraft(
        name=name,
        where=alignment.path,
        pixel_size_angstrom=pixel_size,
        image_size=image_size,
        tomogram_size=size,
        projection=projection,
        tilt_deg=alignment.nominal_tilt_deg,
        pre_exposure=dose,
        ctf=ctf,
        image_files=() if attached is None else attached.files(count),
        image_index=views.section,
        hand=choices.hand(-1.0, options),
        optics=choices.optics(Optics(), options),
        applied=(ARETOMO_ALIGNMENT.applied, *dose_from, *ctf_from),
        notes=(*notes, *axis_notes(name, alignment.rotation_deg, options, folder), *ctf_notes),
    )


def with_local_alignment(
    imported: Imported, alignments: dict[str, AreTomoAlignment], options: ImportOptions
) -> Imported:
    """Set in which particles, or images, are displaced as the patches of AreTomo are.

    Raises
    ------
    ConfigError
        if `--local-alignment motion` has no particles to move.
    """
    local = {name: one for name, one in alignments.items() if one.local is not None}
    kind = options.local_alignment
    if not local:
        return imported
    if kind == "ignore":
        note = f"the local alignment of {', '.join(local)} is ignored"
        return replace(imported, notes=(*imported.notes, note))
    particles = len(imported.optset.particles) > 0
    if kind == "motion" and not particles:
        raise ConfigError(
            "there are no particles that a local alignment could move",
            where="--local-alignment motion",
            fix="give particles (--p), or --local-alignment deformation",
        )
    if kind == "deformation" or not particles:
        return _with_deformation(imported, local)
    return _with_motion(imported, local)


def _with_motion(imported: Imported, local: dict[str, AreTomoAlignment]) -> Imported:
    optset = imported.optset
    tomogram = np.array(optset.particles.tomogram, dtype=object)
    trajectories: dict[str, F64] = {}
    largest = 0.0
    for one in optset.series:
        rows = np.flatnonzero(tomogram == one.name)
        moved = np.zeros((len(rows), one.n_tilts, 3))
        if one.name in local:
            moved = trajectories_of(optset, one, local[one.name], rows)
        trajectories.update({optset.particles.name[row]: moved[k] for k, row in enumerate(rows)})
        largest = max(largest, float(np.abs(moved).max(initial=0.0)))
    text = (
        f"local alignment of {len(local)} tilt series: particles are displaced in the plane of every image, up to "
        f"{largest:.1f} Å (motion.star)"
    )
    optset = replace(optset, trajectories=trajectories)
    return replace(imported, optset=optset, conventions=(*imported.conventions, text))


def _with_deformation(imported: Imported, local: dict[str, AreTomoAlignment]) -> Imported:
    texts, series = [], []
    for one in imported.optset.series:
        if one.name in local:
            deformation, rms, residual = deformation_of(local[one.name], one)
            one = replace(one, deformation=deformation)
            texts.append(
                f"{one.name}: local alignment as a spline of {GRID[0]} x {GRID[1]} nodes over every image; "
                f"displacements of {rms:.1f} pixels (r.m.s.) are met to {residual:.1f}"
            )
        series.append(one)
    optset = replace(imported.optset, series=tuple(series))
    return replace(imported, optset=optset, conventions=(*imported.conventions, *texts))


def deformation_of(alignment: AreTomoAlignment, series: TiltSeries) -> tuple[Deformation, float, float]:
    """Cubic spline fields that displace images as AreTomo does; r.m.s. of the displacement, and of what is left.

    Least squares at `SAMPLES` places along x and y.  AreTomo's own field is nearly constant around every patch, with
    steps between them, which no spline of RELION follows.
    """
    local = alignment.local
    assert local is not None
    model = DeformationModel("spline", GRID, series.image_size)
    axes = [(np.arange(SAMPLES) + 0.5) / SAMPLES * size for size in series.image_size]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    centre = centre_px(series.image_size, ARETOMO_ALIGNMENT.image_centre)
    wanted = displacement(local, (points - centre)[:, None] - alignment.shift_px, series.image_size)
    functions, _ = model.functions(points)
    flat = wanted.reshape(len(points), -1)
    vectors = np.linalg.pinv(functions) @ flat
    left = functions @ vectors - flat
    coefficients = model.coefficients(vectors.reshape(-1, series.n_tilts, 2).swapaxes(0, 1))
    scale = np.sqrt(2.0)  # both components
    rms, residual = (float(np.sqrt(np.mean(values**2)) * scale) for values in (flat, left))
    return Deformation(model, coefficients), rms, residual


def trajectories_of(
    optset: OptimisationSet, series: TiltSeries, alignment: AreTomoAlignment, rows: NDArray[np.intp]
) -> F64:
    """Displacements `(P, F, 3)` in Å along the axes of the tomogram that move the projections as the patches do."""
    local = alignment.local
    assert local is not None
    plane = series.projection[:, :2, :3]
    centre = centre_px(series.image_size, ARETOMO_ALIGNMENT.image_centre)
    found = np.empty((len(rows), series.n_tilts, 3))
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        seen = project_points(series.projection, optset.particles.coordinate_px[part])[..., :2]
        shift = displacement(local, seen - centre - alignment.shift_px, series.image_size)
        # The smallest displacement in space with this projection lies in the plane of the image.
        found[start : start + _CHUNK] = np.einsum("fij,pfi->pfj", plane, shift) * series.pixel_size_angstrom
    return found


def displacement(local: LocalAlignment, position_px: F64, image_size: tuple[int, int]) -> F64:
    """Displacements `(P, F, 2)` in pixels at positions `(P, F, 2)` relative to the image centre, before TX and TY.

    The mean of the good patches of a tilt with weights exp(-100 |(x - x_k) / (W, H)|^2), which is how AreTomo
    interpolates them; 0 where a tilt has none.
    """
    size = np.asarray(image_size, np.float64)
    distance = (position_px[:, :, None, :] - local.position_px[None]) / size
    exponent = -100.0 * (distance**2).sum(axis=-1)
    exponent = np.where(local.good[None], exponent, -np.inf)
    top = exponent.max(axis=-1, keepdims=True)
    weight = np.exp(exponent - np.where(np.isfinite(top), top, 0.0))
    total = weight.sum(axis=-1, keepdims=True)
    return np.asarray(np.einsum("pfk,fkc->pfc", weight / np.where(total > 0, total, 1.0), local.shift_px))


def _sections(name: str, alignment: AreTomoAlignment, options: ImportOptions, folder: Path) -> NDArray[np.int64] | None:
    """(F,) 0-based sections of the raw stack, by angle; None where no file says which section has which."""
    path = folder / f"{name}.rawtlt"
    if path.is_file():
        angles, where = read_angles(path, views=alignment.raw_size[2]), str(path)
        number = np.arange(len(angles))
    else:
        mdoc = find_mdoc(name, options, folder)
        if mdoc is None or mdoc.kind != "ZValue" or len(mdoc.section) != alignment.raw_size[2]:
            return None
        angles, where, number = mdoc.tilt_deg, mdoc.path, mdoc.section
    rows = join_by_angle(alignment.nominal_tilt_deg, angles, views_where=alignment.path, others_where=where)
    return np.asarray(number[rows], np.int64)


def _tomogram_size(alignment: AreTomoAlignment, options: ImportOptions, notes: list[str]) -> tuple[int, int, int]:
    given = choices.tomogram_size(options)
    if given is not None:
        return _even(given)
    if alignment.thickness_px is None or alignment.thickness_px <= 0:
        raise DataError(
            "the size of the tomogram is not known",
            where=alignment.path,
            expected="# Thickness in the head",
            fix="give --tomogram-size X,Y,Z in unbinned pixels",
        )
    width, height = alignment.raw_size[:2]
    turned = np.abs(np.sin(np.radians(alignment.rotation_deg))).mean() > np.sqrt(0.5)
    size = (height, width, alignment.thickness_px) if turned else (width, height, alignment.thickness_px)
    notes.append(
        f"{alignment.path}: tomogram of {size[0]} x {size[1]} x {size[2]} pixels taken from RawSize, ROT and "
        "Thickness; coordinates from the corner need the true size: --tomogram-size"
    )
    return _even(size)


def _even(size: tuple[int, int, int]) -> tuple[int, int, int]:
    return size[0] + size[0] % 2, size[1] + size[1] % 2, size[2] + size[2] % 2
