"""IMOD projects: `tilt.com`, `newst.com`, `.xf`, `.tlt`, `.xtilt`, excluded views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.rotations import rotation_x, rotation_y, rotation_z
from tiltwise.interchange import choices
from tiltwise.interchange.assemble import assemble
from tiltwise.interchange.conventions import IMOD_ALIGNMENT, IMOD_AS_RELION5, AlignmentConvention
from tiltwise.interchange.drafts import Imported, Optics, SeriesDraft
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.particle_lists import read_particle_lists
from tiltwise.interchange.stack import Stack, find_stack, pixel_size_of
from tiltwise.interchange.views import Views, axis_notes, ctf_of, dose_before, find_ctf
from tiltwise.io.foreign.imod_alignment import ImodTransforms, read_angles, read_xf
from tiltwise.io.foreign.imod_commands import (
    EtomoProject,
    NewstCommand,
    TiltCommand,
    read_etomo_project,
    read_newst_command,
    read_tilt_command,
)

F64 = NDArray[np.float64]
X_TILT_LIMIT_DEG = 0.1
"""Rotation about x that moves a point 500 pixels from the centre by less than a pixel: it may be ignored."""
_STACKS = ("{name}.st", "{name}.mrc", "{name}_raw.mrc", "{name}.mrcs")


@dataclass(frozen=True, slots=True)
class ImodFiles:
    """Files of one data set."""

    folder: Path
    name: str
    transforms: ImodTransforms
    tilt_deg: F64
    """(F,) of all sections of the raw stack, OFFSET added"""
    offset_deg: float
    """OFFSET, which is not in the .tlt"""
    stage_deg: F64 | None
    x_tilt_deg: F64
    excluded: tuple[int, ...]
    """views from 1 that tilt.com or the .edf leave out"""
    tilt: TiltCommand | None
    newst: NewstCommand | None
    project: EtomoProject | None
    notes: tuple[str, ...]


def recognises(options: ImportOptions) -> bool:
    """Whether the input is a folder with an IMOD alignment, or a folder of such folders."""
    return options.input.is_dir() and bool(folders(options.input))


def folders(root: Path) -> list[Path]:
    """Folders with an IMOD alignment: `root` itself, else those directly in it."""
    found = [one for one in (root, *sorted(path for path in root.iterdir() if path.is_dir())) if _is_imod(one)]
    return [root] if root in found else found


def read(options: ImportOptions) -> Imported:
    """Read one or several IMOD projects, and the particles of `--p`.

    Raises
    ------
    FormatError, DataError
        if files are missing, cannot be read or contradict each other.
    """
    where = folders(options.input)
    if not where:
        raise DataError(
            "there is no IMOD alignment",
            where=f"--i {options.input}",
            expected="a folder with NAME.xf and NAME.tlt, or folders that have them",
            fix="name the folder of a tilt series that etomo aligned, or the one above such folders",
        )
    series = [series_of(read_folder(one), options) for one in where]
    return assemble(series, read_particle_lists(options, {one.name: one.pixel_size_angstrom for one in series}))


def read_folder(folder: Path) -> ImodFiles:
    """Read the files of one data set as they stand, and join those of the same sections.

    Raises
    ------
    FormatError, DataError
        if files are missing, cannot be read, or differ in the number of sections.
    """
    notes: list[str] = []
    tilt = read_tilt_command(folder / "tilt.com") if (folder / "tilt.com").is_file() else None
    newst = read_newst_command(folder / "newst.com") if (folder / "newst.com").is_file() else None
    projects = sorted(folder.glob("*.edf"))
    project = read_etomo_project(projects[0]) if len(projects) == 1 else None
    transform_file = _file(folder, newst.transform_file if newst else None, "xf", notes)
    transforms = read_xf(transform_file)
    count = len(transforms.matrix)
    tilt_file = _file(folder, tilt.tilt_file if tilt else None, "tlt", notes)
    angles = read_angles(tilt_file)
    excluded = tuple(sorted({*(tilt.exclude_views if tilt else ()), *(project.exclude_views if project else ())}))
    if len(angles) != count:
        angles = _spread(angles, count, excluded, f"{tilt_file} and {transform_file}")
    raw = folder / f"{transform_file.stem}.rawtlt"
    stage = read_angles(raw, views=count) if raw.is_file() else None
    about_x = np.full(count, tilt.x_axis_tilt_deg if tilt else 0.0)
    x_file = _named(folder, tilt.x_tilt_file if tilt else None) or next(folder.glob("*.xtilt"), None)
    if x_file is not None:
        about_x = about_x + read_angles(x_file, views=count)
    for entry, text in ((tilt and tilt.local_file, "local alignment"), (tilt and tilt.z_factor_file, "z factors")):
        if entry:
            notes.append(f"{folder}: {text} ({entry}) is not read; align with particles instead: tiltwise align")
    return ImodFiles(
        folder=folder,
        name=transform_file.stem,
        transforms=transforms,
        tilt_deg=angles + (tilt.angle_offset_deg if tilt else 0.0),
        offset_deg=tilt.angle_offset_deg if tilt else 0.0,
        stage_deg=stage,
        x_tilt_deg=about_x,
        excluded=excluded,
        tilt=tilt,
        newst=newst,
        project=project,
        notes=tuple(notes),
    )


def kept_sections(files: ImodFiles) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(F,) 0-based sections that are neither excluded nor left unaligned, and what to tell the user.

    Raises
    ------
    DataError
        if an excluded view does not exist, or none is left.
    """
    count = len(files.tilt_deg)
    keep = np.isfinite(files.tilt_deg)
    listed = set(files.excluded)
    beyond = [view for view in sorted(listed) if view > count]
    if beyond:
        raise DataError(
            "an excluded view does not exist",
            where=str(files.folder),
            expected=f"views 1 to {count}",
            found=", ".join(map(str, beyond)),
            fix="correct EXCLUDELIST in tilt.com: views count from 1",
        )
    keep[[view - 1 for view in listed]] = False
    notes = [f"{files.name}: views {', '.join(map(str, sorted(listed)))} are excluded"] if listed else []
    identity = files.transforms.is_identity & keep
    if identity.any() and not files.transforms.is_identity.all():
        keep &= ~identity
        views = ", ".join(str(n + 1) for n in np.flatnonzero(identity))
        notes.append(f"{files.name}: views {views} have no alignment (identity in the .xf) and are left out")
    if not keep.any():
        raise DataError(
            "no view is left",
            where=str(files.folder),
            found="all are excluded or unaligned",
            fix="correct EXCLUDELIST in tilt.com, or align the series in etomo",
        )
    return np.flatnonzero(keep).astype(np.int64), tuple(notes)


def series_of(files: ImodFiles, options: ImportOptions) -> SeriesDraft:
    """Tilt series of one data set.

    Raises
    ------
    FormatError, DataError
        if sizes, pixel size, dose or CTF are not known or do not fit.
    """
    kept, notes = kept_sections(files)
    patterns = [pattern.format(name=files.name) for pattern in _STACKS]
    if files.newst is not None:
        patterns.insert(0, files.newst.input_file)
    stack = find_stack(files.folder, patterns, len(files.tilt_deg))
    image_size = stack.image_size if stack is not None else choices.image_size(options)
    if image_size is None:
        raise DataError(
            "the size of the tilt images is not known",
            where=str(files.folder),
            expected=f"the raw stack, such as {patterns[0]}",
            fix="copy or link it into the folder, or give --image-size WIDTH,HEIGHT",
        )
    size = _tomogram_size(files, options)
    projection, more = projections(files, kept, image_size, size, options)
    where = f"{files.folder} ({files.name})"
    stage = None if files.stage_deg is None else files.stage_deg[kept]
    project_pixel = None if files.project is None else files.project.pixel_size_nm * 10.0
    pixel_size = pixel_size_of(options, stack, where, project_pixel)
    written = files.tilt_deg - files.offset_deg
    complete = written if np.isfinite(written).all() else None
    views = Views(files.name, where, kept, len(written), written[kept], stage, complete)
    dose, dose_from = dose_before(views, options, files.folder)
    ctf, ctf_from, ctf_notes = ctf_of(views, options, find_ctf(files.name, options, files.folder))
    return SeriesDraft(
        name=files.name,
        where=where,
        pixel_size_angstrom=pixel_size,
        image_size=image_size,
        tomogram_size=(size[0] + size[0] % 2, size[1] + size[1] % 2, size[2] + size[2] % 2),
        projection=projection,
        tilt_deg=files.tilt_deg[kept] if stage is None else stage,
        pre_exposure=dose,
        ctf=ctf,
        image_files=() if stack is None else stack.files(len(kept)),
        image_index=kept,
        hand=choices.hand(-1.0, options),
        optics=choices.optics(Optics(), options),
        applied=(_convention(options).applied, *dose_from, *ctf_from),
        notes=(
            *files.notes,
            *notes,
            *more,
            *axis_notes(files.name, _turn_deg(files.transforms.matrix[kept]), options, files.folder),
            *ctf_notes,
            *_stack_notes(files, stack),
        ),
    )


def projections(
    files: ImodFiles,
    kept: NDArray[np.int64],
    image_size: tuple[int, int],
    tomogram_size: tuple[int, int, int],
    options: ImportOptions,
) -> tuple[F64, tuple[str, ...]]:
    """Matrices `(F, 4, 4)` of sections `kept`, and what to tell the user.

    `(x, y, z)` is the tomogram turned so that y is along the tilt axis and z along the beam (trimvol -rx).

    Raises
    ------
    DataError
        if the alignment rotates about x and `--x-tilt` does not say what to do about it.
    """
    matrix, shift = files.transforms.matrix[kept], files.transforms.shift_px[kept]
    about_x, notes = _x_tilt(files, kept, options)
    # The nearest rotation: IMOD may have fitted magnification and stretch, which tilt series of RELION have not.
    turn = _turn_deg(matrix)
    stretch = np.abs(matrix - np.swapaxes(rotation_z(turn)[:, :2, :2], 1, 2)).max()
    if stretch > 1e-4:
        far = stretch * max(image_size) / 2.0
        notes += (f"{files.name}: magnification or stretch in the .xf is left out, up to {far:.1f} pixels at the edge",)
    rotation = rotation_z(turn) @ rotation_y(files.tilt_deg[kept]) @ rotation_x(about_x)
    moved = np.broadcast_to(_axis_px(files), shift.shape) - shift
    projection = _convention(options).projection(
        rotation,
        np.linalg.solve(matrix, moved[..., None])[..., 0],
        image_size=image_size,
        tomogram_size=tomogram_size,
    )
    if files.tilt is not None and any(files.tilt.shift):
        offset = np.array([files.tilt.shift[0], 0.0, -files.tilt.shift[1]])
        projection[:, :3, 3] -= rotation @ offset
    return projection, notes


def _convention(options: ImportOptions) -> AlignmentConvention:
    return IMOD_ALIGNMENT if options.imod_centre == "imod" else IMOD_AS_RELION5


def _turn_deg(matrix: F64) -> F64:
    """(F,) angles from the image's y axis to the tilt axis, anticlockwise, of `.xf` matrices `(F, 2, 2)`."""
    return np.asarray(
        np.degrees(np.arctan2(matrix[:, 0, 1] - matrix[:, 1, 0], matrix[:, 0, 0] + matrix[:, 1, 1])), np.float64
    )


def _axis_px(files: ImodFiles) -> F64:
    """Place of the tilt axis relative to the centre of the aligned image, unbinned pixels."""
    tilt, newst = files.tilt, files.newst
    if tilt is None:
        return np.zeros(2)
    axis = np.array([tilt.axis_offset, 0.0])
    if newst is not None and newst.size_to_output is not None:
        # FULLIMAGE is the frame of the axis; SUBSETSTART says where in it the aligned image begins.
        aligned = np.array(newst.size_to_output, np.float64) * newst.bin_by_factor
        axis += (np.array(tilt.full_image) - aligned) / 2.0 - np.array(tilt.subset_start)
    return axis


def _x_tilt(files: ImodFiles, kept: NDArray[np.int64], options: ImportOptions) -> tuple[F64, tuple[str, ...]]:
    angles = files.x_tilt_deg[kept]
    if options.x_tilt == "ignore" or np.abs(angles).max() <= X_TILT_LIMIT_DEG:
        ignored = np.abs(angles).max() > 0
        note = f"{files.name}: a rotation about x of up to {np.abs(angles).max():g} degrees is ignored"
        return np.zeros(len(angles)), (note,) if ignored else ()
    if options.x_tilt == "refuse":
        raise DataError(
            "the alignment rotates the specimen about x",
            where=str(files.folder),
            expected=f"no rotation about x of more than {X_TILT_LIMIT_DEG} degrees",
            found=f"XAXISTILT and .xtilt: {angles.min():g} to {angles.max():g} degrees",
            fix="--x-tilt apply if particles are from the rotated tomogram (reverse: other sign), else --x-tilt ignore",
        )
    sign = 1.0 if options.x_tilt == "apply" else -1.0
    note = f"{files.name}: rotated about x by {sign * angles.mean():g} degrees (--x-tilt {options.x_tilt})"
    return sign * angles, (note,)


def _tomogram_size(files: ImodFiles, options: ImportOptions) -> tuple[int, int, int]:
    given = choices.tomogram_size(options)
    if given is not None:
        return given
    if files.tilt is None:
        raise DataError(
            "the size of the tomogram is not known",
            where=str(files.folder),
            expected="FULLIMAGE and THICKNESS in tilt.com",
            fix="make a tomogram in eTomo, or give --tomogram-size X,Y,Z in unbinned pixels",
        )
    return (*files.tilt.full_image, round(files.tilt.thickness))


def _spread(angles: F64, count: int, excluded: tuple[int, ...], where: str) -> F64:
    """Angles of kept views at their places among all sections; NaN for the others."""
    if len(angles) != count - len(excluded) or any(view > count for view in excluded):
        raise DataError(
            "files of one alignment differ in the number of views",
            where=where,
            expected=f"{count} angles, or {count - len(excluded)} without the {len(excluded)} excluded views",
            found=str(len(angles)),
            fix="use .tlt and .xf of the same run of the alignment",
        )
    full = np.full(count, np.nan)
    full[[section for section in range(count) if section + 1 not in excluded]] = angles
    return full


def _stack_notes(files: ImodFiles, stack: Stack | None) -> tuple[str, ...]:
    if stack is None:
        return (f"{files.name}: the raw stack is not beside the alignment; images are not known",)
    return ()


def _is_imod(folder: Path) -> bool:
    return bool(next(folder.glob("*.xf"), None)) and bool(next(folder.glob("*.tlt"), None))


def _named(folder: Path, name: str | None) -> Path | None:
    return folder / name if name and (folder / name).is_file() else None


def _file(folder: Path, name: str | None, ending: str, notes: list[str]) -> Path:
    """File that a command names, else the only one of its kind."""
    named = _named(folder, name)
    if named is not None:
        return named
    found = sorted(folder.glob(f"*.{ending}"))
    if len(found) > 1 and ending in ("xf", "tlt"):
        # eTomo keeps those of earlier steps as NAME_fid.xf, NAME_nonfid.xf
        found = [one for one in found if not one.stem.endswith(("_fid", "_nonfid", "_ali"))]
    if len(found) != 1:
        raise DataError(
            f"the .{ending} file of an alignment is not clear",
            where=str(folder),
            expected=name or f"one *.{ending}",
            found=", ".join(one.name for one in found) or "none",
            fix="run the fine alignment in eTomo, or keep one data set per folder",
        )
    if name:
        notes.append(f"{folder}: {name} is named but not there; {found[0].name} is used")
    return found[0]
