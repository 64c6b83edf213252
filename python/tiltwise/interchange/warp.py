"""Import of Warp and M: tilt series `.xml` or `.tomostar`, particle STAR files of Warp, species of M.

Warp's model moves images by grids that RELION's has no words for.  Particles carry what these do as motion, so that
every particle projects where Warp projects it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, FormatError
from tiltwise.geometry.projection import depth_offset_px, project_points
from tiltwise.interchange import choices
from tiltwise.interchange.assemble import assemble, positions_px
from tiltwise.interchange.conventions import WARP_ALIGNMENT
from tiltwise.interchange.drafts import Imported, Optics, SeriesDraft, ViewCtf
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.warp_model import WarpModel
from tiltwise.interchange.warp_particles import WarpParticles, read_warp_particles
from tiltwise.io.foreign.warp import TomoStar, WarpSeries, read_tomostar, read_warp_series
from tiltwise.io.mrc import read_header

F64 = NDArray[np.float64]
SMALL_SHIFT_PX = 0.01
"""Motion below this is not written."""
UNFITTED_PIXEL_SIZE = 1.0
"""What Warp writes where no CTF was fitted, whatever the pixel size."""


@dataclass(frozen=True, slots=True)
class _Series:
    model: WarpModel
    draft: SeriesDraft
    kept: NDArray[np.intp]
    """rows of the tilts that are used"""


def recognises(options: ImportOptions) -> bool:
    """Whether the input is a tilt series of Warp, or a folder of them."""
    path = options.input
    if path.is_dir():
        return bool(_files(path))
    return path.suffix == ".tomostar" or (path.suffix == ".xml" and _is_series(path))


def read(options: ImportOptions) -> Imported:
    """Read tilt series, and particles if they are given.

    Raises
    ------
    FormatError, DataError, ConfigError
        if files cannot be read, a size or pixel size is not known, or particles belong to no series.
    """
    files = _files(options.input) if options.input.is_dir() else [options.input]
    if not files:
        raise FormatError(
            "a folder has no tilt series of Warp",
            where=os.fspath(options.input),
            expected="tilt series .xml, or .tomostar",
            fix="give the processing folder, such as warp_tiltseries",
        )
    series = _optics_groups([_series(path, options) for path in files])
    particles = None
    if options.particles is not None:
        pixel = {one.draft.name: one.draft.pixel_size_angstrom for one in series}
        particles = read_warp_particles(options.particles, pixel, options)
    imported = assemble([one.draft for one in series], [] if particles is None else [particles.draft])
    if particles is None:
        local = [one.draft.name for one in series if _moves(one.model)]
        if local:
            imported = replace(
                imported,
                notes=(
                    *imported.notes,
                    f"{len(local)} tilt series have local deformations, which are carried by particles only: give them "
                    "with --p in the same import",
                ),
            )
        return imported
    return _with_motion(imported, series, particles)


def _files(folder: Path) -> list[Path]:
    """Series of a folder: `.xml`, and `.tomostar` of those that have none."""
    found = {path.stem: path for path in sorted(folder.glob("*.tomostar"))}
    found.update({path.stem: path for path in sorted(folder.glob("*.xml")) if _is_series(path)})
    return [found[name] for name in sorted(found)]


def _is_series(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"<TiltSeries" in file.read(4096).replace(b"\0", b"")
    except OSError:
        return False


def _series(path: Path, options: ImportOptions) -> _Series:
    if path.suffix == ".tomostar":
        warp, ctf_known = _from_tomostar(read_tomostar(path)), False
    else:
        warp = read_warp_series(path)
        ctf_known = "GridCTF" in warp.grids and bool(warp.grids["GridCTF"].values.any())
    notes: list[str] = []
    pixel = _pixel_size(warp, options)
    images, size = _images(path, warp, options)
    if not images:
        notes.append(f"{path.stem}: tilt images not found (first {warp.movies[0] if warp.movies else 'none is named'})")
    volume = _volume(warp, pixel, options)
    model = WarpModel(warp, np.array(volume) * pixel, np.array(size) * pixel)
    if np.isnan(warp.dose).any():
        raise DataError(
            "a tilt series has no doses",
            where=warp.path,
            expected="<Dose> with one number per tilt",
            fix="write them with WarpTools ts_import, or add <Dose> to the file",
        )
    if not warp.use.any():
        raise DataError(
            "no tilt of a series is used",
            where=warp.path,
            expected="<UseTilt> True for some of them",
            fix="select tilts in Warp, or take the file of this series out of the folder",
        )
    kept = np.flatnonzero(warp.use)
    if len(kept) < model.n_tilts:
        notes.append(f"{path.stem}: {model.n_tilts - len(kept)} tilts that Warp does not use are left out")
    if warp.dose.min() > 0:
        notes.append(
            f"{path.stem}: the lowest dose is {warp.dose.min():g} e/Å², so doses may include the tilt itself; they are "
            "taken as doses before the tilt, as Warp and RELION do"
        )
    if (reach := _magnified_px(warp, size)) > SMALL_SHIFT_PX:
        notes.append(
            f"{path.stem}: the magnification correction {warp.magnification} is not applied: up to {reach:.1f} pixels "
            "at the corner of an image, if the images on disk are not corrected"
        )
    if any(model.local(f"GridAngle{axis}") for axis in "XYZ"):
        notes.append(f"{path.stem}: angles that differ from place to place are taken at the centre of the volume")
    draft = SeriesDraft(
        name=path.stem,
        where=warp.path,
        pixel_size_angstrom=pixel,
        image_size=size,
        tomogram_size=volume,
        projection=_projection(model, pixel, size, volume)[kept],
        tilt_deg=warp.tilt_deg[kept],
        pre_exposure=warp.dose[kept],
        ctf=_ctf(model).take(kept) if ctf_known else None,
        image_files=tuple(images[row] for row in kept) if images else (),
        image_index=np.zeros(len(kept), np.int64),
        hand=float(options.hand) if options.hand is not None else -1.0 if warp.angles_inverted else 1.0,
        ctf_scale=_scale(model)[kept],
        optics=choices.optics(
            Optics(
                warp.ctf.get("Voltage", 300.0),
                round(warp.ctf.get("Cs", 2.7), 6),  # single precision: 2.70000004768372
                warp.ctf.get("Amplitude", 0.07),
            ),
            options,
        ),
        notes=(*notes, *(() if ctf_known else (f"{path.stem}: no CTF is known",))),
    )
    return _Series(model, draft, kept)


def _magnified_px(warp: WarpSeries, size: tuple[int, int]) -> float:
    """How far the magnification correction moves the corner of an image; 3 numbers of old versions are x, y, angle."""
    values = warp.magnification
    if len(values) == 4:
        matrix = np.array(values).reshape(2, 2) - np.eye(2)
    else:
        matrix = np.diag([values[0] - 1.0, values[1] - 1.0])
    corner = np.array(size) / 2.0
    return float(max(np.linalg.norm(matrix @ corner), np.linalg.norm(matrix @ (corner * (1, -1)))))


def _optics_groups(series: list[_Series]) -> list[_Series]:
    """Series whose optics groups are numbered by their values: M refines Cs of every series."""
    numbers: dict[tuple[Optics, float], int] = {}
    result = []
    for one in series:
        key = (one.draft.optics, one.draft.pixel_size_angstrom)
        number = numbers.setdefault(key, len(numbers) + 1)
        optics = replace(one.draft.optics, group_name=f"opticsGroup{number}")
        result.append(replace(one, draft=replace(one.draft, optics=optics)))
    return result


def _from_tomostar(star: TomoStar) -> WarpSeries:
    """A series without CTF and grids."""
    return WarpSeries(
        path=star.path,
        angles_inverted=False,
        level_x_deg=0.0,
        level_y_deg=0.0,
        magnification=(1.0, 0.0, 0.0, 1.0),
        volume_size_angstrom=None,
        image_size_angstrom=None,
        tilt_deg=star.tilt_deg,
        dose=star.dose,
        use=np.ones(len(star.tilt_deg), np.bool_),
        axis_deg=star.axis_deg,
        offset_x_angstrom=star.offset_x_angstrom,
        offset_y_angstrom=star.offset_y_angstrom,
        movies=star.movies,
        ctf={},
        grids={},
    )


def _pixel_size(warp: WarpSeries, options: ImportOptions) -> float:
    if options.pixel_size is not None:
        return options.pixel_size
    found = warp.ctf.get("PixelSize", UNFITTED_PIXEL_SIZE)
    if found <= 0 or found == UNFITTED_PIXEL_SIZE:
        raise DataError(
            "the pixel size is not known",
            where=warp.path,
            found=f"{found:g} Å, what Warp writes without a CTF" if "PixelSize" in warp.ctf else "no CTF",
            fix="give --angpix",
        )
    return found


def _volume(warp: WarpSeries, pixel: float, options: ImportOptions) -> tuple[int, int, int]:
    given = choices.tomogram_size(options)
    if given is not None:
        return given
    if warp.volume_size_angstrom is None or min(warp.volume_size_angstrom) <= 0:
        raise DataError(
            "the size of the volume is not known",
            where=warp.path,
            expected="VolumeDimensionsAngstrom",
            fix="give --tomogram-size X,Y,Z in unbinned pixels, the --tomo_dimensions of WarpTools",
        )
    x, y, z = (round(length / pixel) for length in warp.volume_size_angstrom)
    return x, y, z


def _images(path: Path, warp: WarpSeries, options: ImportOptions) -> tuple[list[str], tuple[int, int]]:
    """Files of all tilts, nothing if one is missing, and their size in pixels."""
    given = choices.image_size(options)
    files = [_image(path, name) for name in warp.movies]
    if files and all(files):
        headers = {file: read_header(file).shape for file in files if file is not None}
        sizes = {(shape[2], shape[1]) for shape in headers.values()}
        if len(sizes) != 1 or any(shape[0] != 1 for shape in headers.values()):
            raise DataError(
                "the images of a tilt series cannot be used",
                where=warp.path,
                expected="one image per file, all of one size",
                found=", ".join(f"{shape[2]} x {shape[1]} x {shape[0]}" for shape in set(headers.values())),
                fix="give the averages that Warp wrote, one file for every tilt",
            )
        size = sizes.pop()
        if given is not None and given != size:
            raise DataError(
                "--image-size is not that of the images",
                where=warp.path,
                expected=str(size),
                found=str(given),
                fix="leave --image-size out: the images tell their size",
            )
        return [str(file) for file in files], size
    if given is not None:
        return [], given
    if warp.image_size_angstrom is not None and min(warp.image_size_angstrom) > 0:
        pixel = _pixel_size(warp, options)
        return [], (round(warp.image_size_angstrom[0] / pixel), round(warp.image_size_angstrom[1] / pixel))
    raise DataError(
        "the size of the images is not known",
        where=warp.path,
        expected="averages of the tilts, or ImageDimensionsAngstrom",
        found=f"no file for {warp.movies[0]}" if warp.movies else "no image is named",
        fix="run where the averages are, or give --image-size WIDTH,HEIGHT",
    )


def _image(path: Path, movie: str) -> str | None:
    """Average of a movie: beside it in `average/`, or the file itself where it is an MRC image."""
    name = Path(movie.replace("\\", "/"))
    candidates = [name.parent / "average" / f"{name.stem}.mrc"]
    if name.suffix in (".mrc", ".mrcs", ".st"):
        candidates.append(name)
    for base in (path.parent, path.parent.parent, Path.cwd()):
        for candidate in candidates:
            file = base / candidate
            if file.is_file():
                return os.path.abspath(file)
    return None


def _projection(model: WarpModel, pixel: float, image: tuple[int, int], volume: tuple[int, int, int]) -> F64:
    """(F, 4, 4): orientations exact, positions exact at the centre of the volume."""
    centre = np.repeat(model.volume_angstrom[None, None] / 2.0, model.n_tilts, axis=1)
    seen, _ = model.project(centre)
    shift = (seen[0] - model.image_angstrom / 2.0) / pixel
    return WARP_ALIGNMENT.projection(model.view_rotations(), shift, image_size=image, tomogram_size=volume)


def _ctf(model: WarpModel) -> ViewCtf:
    defocus, delta = (model.per_tilt(name) * 1e4 for name in ("GridCTF", "GridCTFDefocusDelta"))
    phase = model.per_tilt("GridCTFPhase") * 180.0  # stored in units of pi
    return ViewCtf(
        defocus + delta / 2.0,
        defocus - delta / 2.0,
        model.per_tilt("GridCTFDefocusAngle"),
        phase if phase.any() else None,
    )


def _scale(model: WarpModel) -> F64:
    """(F,) amplitude of every tilt: that of M, else the cosine that Warp takes."""
    grid = model.series.grids.get("GridDoseWeights")
    if grid is None or grid.values.size == 1:
        return np.cos(np.radians(model.series.tilt_deg))
    return model.per_tilt("GridDoseWeights", 1.0)


def _moves(model: WarpModel) -> bool:
    names = [f"Grid{kind}{axis}" for kind, axes in (("Movement", "XY"), ("VolumeWarp", "XYZ")) for axis in axes]
    return any(model.local(name) for name in names) or any(model.per_tilt(f"GridAngle{axis}").any() for axis in "XYZ")


def _with_motion(imported: Imported, series: Sequence[_Series], particles: WarpParticles) -> Imported:
    """The set with motion that takes every particle where Warp's model has it, and defocus to match."""
    optset, draft = imported.optset, particles.draft
    models = {one.name: one for one in optset.series}
    position = positions_px(draft, models)
    tomogram = np.array(optset.particles.tomogram, dtype=object)
    motion: dict[str, F64] = {}
    changed, notes, largest = [], [], 0.0
    for one in series:
        target = models[one.draft.name]
        rows = np.flatnonzero(tomogram == target.name)
        if not len(rows):
            changed.append(target)
            continue
        pixel = target.pixel_size_angstrom
        moved = particles.positions_angstrom(rows, position[rows] * pixel, one.model.series.dose)
        image, depth = one.model.project(moved)
        image, depth = image[:, one.kept] / pixel, depth[:, one.kept]
        residual = image - project_points(target.projection, position[rows])[..., :2]
        offset = np.einsum("fji,pfj->pfi", target.projection[:, :2, :3], residual) * pixel
        reach = float(np.abs(residual).max())
        largest = max(largest, reach)
        if reach > SMALL_SHIFT_PX:
            motion.update({optset.particles.name[row]: offset[i] for i, row in enumerate(rows)})
        change = target.hand * depth - target.hand * pixel * depth_offset_px(
            target.projection, position[rows], target.tomogram_size
        )
        mean = change.mean(axis=0)
        if (left := float(np.sqrt(np.mean((change - mean) ** 2)))) > 50.0:
            notes.append(f"{target.name}: defocus of particles differs from Warp's by {left:.0f} Å (rms)")
        changed.append(
            replace(
                target,
                defocus_u_angstrom=target.defocus_u_angstrom + mean,
                defocus_v_angstrom=target.defocus_v_angstrom + mean,
            )
        )
    if motion:
        zero = {name: len(models[one].projection) for name, one in zip(optset.particles.name, tomogram, strict=True)}
        motion = {name: motion.get(name, np.zeros((zero[name], 3))) for name in optset.particles.name}
        notes.append(
            f"local deformations of Warp are written as motion of every particle, up to {largest:.1f} pixels: they "
            "hold for these particles only"
        )
    return replace(
        imported,
        optset=replace(optset, series=tuple(changed), trajectories=motion),
        notes=(*imported.notes, *notes),
    )
