"""Two jobs side by side: resolution, maps, options, particles, tilt series, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, TiltwiseError
from tiltwise.exec.records import JobRecord
from tiltwise.geometry.pose_errors import PoseErrors, pose_errors
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set, table_of
from tiltwise.kernels.select import load_backend
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.report.curves import fsc_curves
from tiltwise.report.html import Cell, Section, Summary, Table, write_report
from tiltwise.report.overlay import Overlay, lay, overlay_sections
from tiltwise.report.particles import change_histograms
from tiltwise.report.units import duration
from tiltwise.selection.columns import CLASS
from tiltwise.spectral.filters import resample
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.masks import soft_sphere

F64 = NDArray[np.float64]
Volume = NDArray[np.float32]
HALVES = (("half1.mrc", "half2.mrc"), ("run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc"))
MAPS = ("postprocess.mrc", "merged.mrc", "run_class001.mrc", "postprocess/postprocess.mrc")
EDGE_PX = 5.0
LEAST_BOX = 12
"""Voxels of maps that are laid on each other."""
MOST_BOX = 256
"""Voxels to which maps are binned before they are laid on each other: more take minutes and many GB."""
LEAST_SHOWN = 96
"""Voxels to which they are binned at least: fewer are coarse in pictures."""
FINER = 1.5
"""Shells that are kept, over that of the finest resolution."""
SAME_STATED = 0.02
"""Relative difference of stated resolutions that are one."""
SAME_PIXEL = 1e-3
"""Relative difference of pixel sizes that are one."""


@dataclass(frozen=True, slots=True)
class Maps:
    """Map of a job, and its half maps as long as they are needed, on a grid that both jobs share."""

    halves: tuple[Volume, Volume] | None
    map: Volume | None
    pixel_size: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two jobs A and B have and how they differ."""

    records: tuple[JobRecord, JobRecord]
    names: tuple[str, str]
    maps: tuple[Maps, Maps]
    """without half maps"""
    curves: tuple[F64 | None, F64 | None]
    """FSC of the half maps inside one sphere"""
    diameter_angstrom: float
    """of that sphere"""
    sets: tuple[OptimisationSet | None, OptimisationSet | None]
    moved: PoseErrors | None
    """poses of B against those of A, of the particles both have"""
    common: tuple[str, ...]
    """names of these particles"""

    def resolution(self, which: int) -> float | None:
        """Å, of the curve, or as the job states it where it has no half maps."""
        curve = self.curves[which]
        if curve is None or self.curves[1 - which] is None:
            return self.records[which].resolution_angstrom
        return resolution_angstrom(curve, 2 * (len(curve) - 1), self.maps[which].pixel_size)


def compare(first: JobRecord, second: JobRecord) -> Comparison:
    """Read what two jobs left.

    Raises
    ------
    DataError
        if they have neither maps nor particles to compare.
    """
    records = (first, second)
    maps = _on_one_grid(_maps_of(first), _maps_of(second))
    diameter = _diameter(records, maps)
    curves = tuple(_curve(one, diameter) for one in maps)
    maps = (replace(maps[0], halves=None), replace(maps[1], halves=None))
    sets = (_set_of(first), _set_of(second))
    moved, common = _moved(sets, _symmetry(records))
    nothing = all(one.map is None for one in maps) and moved is None
    if nothing and not (first.parameters and second.parameters):
        raise DataError(
            "these folders have nothing to compare",
            where=f"{first.folder} and {second.folder}",
            expected="maps, half maps or optimisation sets of two jobs",
            fix="name two jobs that have finished, as tiltwise report PROJECT lists them",
        )
    names = _names(first, second)
    return Comparison(records, names, maps, (curves[0], curves[1]), diameter, sets, moved, common)


def _names(first: JobRecord, second: JobRecord) -> tuple[str, str]:
    """Short names that differ: of the folder, with that above it where both are called the same."""
    if first.folder.name != second.folder.name:
        return f"A {first.folder.name}", f"B {second.folder.name}"
    return f"A {first.folder.parent.name}/{first.folder.name}", f"B {second.folder.parent.name}/{second.folder.name}"


def _read(folder: Path, name: str) -> tuple[Volume, float] | None:
    """A map and its pixel size; None for what cannot be compared, a map without density among it."""
    try:
        values, pixel = read_map(folder / name)
    except TiltwiseError:
        return None
    low, high = float(values.min()), float(values.max())
    known = np.isfinite([low, high]).all() and low < high  # NaN makes both of them NaN
    return (values, pixel) if len(set(values.shape)) == 1 and pixel > 0 and known else None


def _maps_of(record: JobRecord) -> Maps:
    found = next((one for name in MAPS if (one := _read(record.folder, name)) is not None), None)
    for pair in HALVES:
        one, two = (_read(record.folder, name) for name in pair)
        if one is not None and two is not None and one[0].shape == two[0].shape:
            if found is None or found[0].shape != one[0].shape:
                found = (np.asarray((one[0] + two[0]) / 2, np.float32), one[1])
            return Maps((one[0], two[0]), found[0], one[1])
    return Maps(None, *((None, np.nan) if found is None else found))


def _on_one_grid(first: Maps, second: Maps) -> tuple[Maps, Maps]:
    """Maps of the coarser pixels and the smaller of the boxes, where they differ."""
    if not np.isfinite([first.pixel_size, second.pixel_size]).all():
        return first, second
    pixel = max(first.pixel_size, second.pixel_size)
    if abs(first.pixel_size - second.pixel_size) < SAME_PIXEL * pixel:
        pixel = first.pixel_size
    width = min(_size(one) * one.pixel_size for one in (first, second))
    size = 2 * int(width / pixel / 2 + 1e-6)

    def moved(one: Maps) -> Maps:
        if _size(one) == size and abs(one.pixel_size - pixel) < SAME_PIXEL * pixel:
            return one
        halves = None if one.halves is None else tuple(resample(h, one.pixel_size, pixel, size) for h in one.halves)
        whole = None if one.map is None else resample(one.map, one.pixel_size, pixel, size)
        return Maps(None if halves is None else (halves[0], halves[1]), whole, pixel)

    return moved(first), moved(second)


def _size(one: Maps) -> int:
    """Voxels along each side; 0 without maps."""
    return 0 if one.map is None else len(one.map)


def _diameter(records: tuple[JobRecord, JobRecord], maps: tuple[Maps, Maps]) -> float:
    """Å: the larger of the diameters that the jobs were given, at most the box."""
    given = [one.parameters.get("particle_diameter", {}).get("value") for one in records]
    known = [float(value) for value in given if isinstance(value, (int, float))]
    widths = [_size(one) * one.pixel_size for one in maps if np.isfinite(one.pixel_size)]
    return min([max(known, default=np.inf), *widths])


def _curve(one: Maps, diameter: float) -> F64 | None:
    if one.halves is None:
        return None
    size = len(one.halves[0])
    radius = min(diameter / one.pixel_size / 2 + EDGE_PX, size / 2)
    return fsc(*one.halves, soft_sphere(size, radius, EDGE_PX))


def _set_of(record: JobRecord) -> OptimisationSet | None:
    """The set a job wrote, or the one it was given."""
    given = [path for path in record.inputs if path.name.endswith("optimisation_set.star")]
    for path in ([record.optimisation_set] if record.optimisation_set else []) + given:
        try:
            return load_optimisation_set(path, need_images=False)
        except (TiltwiseError, OSError):
            continue
    return None


def _symmetry(records: tuple[JobRecord, JobRecord]) -> str:
    """The point group of both; C1 where they, or the classes of one, have different ones."""
    names = {str(one.parameters.get("symmetry", {}).get("value") or "C1") for one in records}
    return names.pop() if len(names) == 1 and "," not in next(iter(names)) else "C1"


def _moved(
    sets: tuple[OptimisationSet | None, OptimisationSet | None], symmetry: str
) -> tuple[PoseErrors | None, tuple[str, ...]]:
    first, second = sets
    if first is None or second is None:
        return None, ()
    rows = [{name: row for row, name in enumerate(one.particles.name)} for one in (first, second)]
    common = tuple(name for name in rows[0] if name in rows[1])
    if len(common) < 3:
        return None, common
    (ra, pa), (rb, pb) = (
        tuple(values[[of[name] for name in common]] for values in poses_of(one))
        for one, of in zip((first, second), rows, strict=True)
    )
    return pose_errors(rb, pb, ra, pa, symmetry=symmetry_matrices(symmetry), remove_common=True), common


def sentence(result: Comparison) -> str:
    """The verdict."""
    a, b = result.resolution(0), result.resolution(1)
    fair = result.curves[0] is not None and result.curves[1] is not None
    if a is None or b is None:
        missing = [name for name, value in zip(result.names, (a, b), strict=True) if value is None]
        return f"No verdict: no resolution is known of {' and '.join(missing)}."
    how = (
        f"FSC 0.143 inside one sphere of {result.diameter_angstrom:.0f} Å"
        if fair
        else "as the jobs state it; masks may differ"
    )
    better = "B" if b < a else "A"
    width = _size(result.maps[0]) * result.maps[0].pixel_size
    shells = abs(width / a - width / b) if fair else abs(a - b) / (SAME_STATED * a)
    if shells < 1.0:
        near = "less than one shell apart" if fair else f"less than {SAME_STATED:.0%} apart"
        return f"No difference: A {a:.2f} Å, B {b:.2f} Å, {near} ({how})."
    best, other = (b, a) if better == "B" else (a, b)
    return f"{better} is better: {best:.2f} Å against {other:.2f} Å ({how})."


def write_comparison(path: Path, result: Comparison) -> None:
    """Write the page.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    a, b = result.records
    facts = {}
    for name, value in zip(result.names, (result.resolution(0), result.resolution(1)), strict=True):
        facts[name] = "unknown" if value is None else f"{value:.2f} Å"
    if result.moved is not None:
        facts["poses moved (median)"] = (
            f"{np.median(result.moved.angle_deg):.2f}°, {np.median(result.moved.distance):.2f} Å"
        )
        facts["particles of both"] = f"{len(result.common):,}"
    laid = _overlay(result)
    if laid is not None:
        facts["maps agree to (FSC 0.5)"] = laid.agreement
    sections = [section for section in (
        _fsc_section(result),
        _options_section(a, b, result.names),
        *([] if laid is None else overlay_sections(laid, result.names)),
        _poses_section(result),
        _classes_section(result),
        _tilts_section(result),
        _times_section(a, b, result.names),
    ) if section is not None]  # fmt: skip
    warnings = [
        f"{name}: {one.state}" for name, one in zip(result.names, (a, b), strict=True) if one.state != "finished"
    ]
    if laid is not None and laid.pose is not None and laid.pose.mirrored:
        warnings.append("B lies better on A as its mirror image: one of them may have the wrong hand")
    summary = Summary(sentence(result), facts, warnings)
    write_report(path, f"{a.name} against {b.name}", summary, sections)


def _fsc_section(result: Comparison) -> Section | None:
    curves = {name: curve for name, curve in zip(result.names, result.curves, strict=True) if curve is not None}
    if not curves or len({len(curve) for curve in curves.values()}) != 1:
        return None
    pixel = next(one.pixel_size for one, curve in zip(result.maps, result.curves, strict=True) if curve is not None)
    length = len(next(iter(curves.values())))
    rows: list[list[Cell]] = [[shell, *(float(curve[shell]) for curve in curves.values())] for shell in range(length)]
    return Section(
        "Fourier shell correlation",
        f"Half maps of each job, all inside one sphere of {result.diameter_angstrom:.0f} Å and on one grid; no masks, "
        "so numbers may differ from those that the jobs state.",
        figure=fsc_curves(curves, pixel),
        data=Table(["shell", *curves], rows),
    )


def _options_section(a: JobRecord, b: JobRecord, names: tuple[str, str]) -> Section:
    rows: list[list[Cell]] = []
    for key in dict.fromkeys([*a.parameters, *b.parameters]):
        values = [_value(one.parameters.get(key)) for one in (a, b)]
        if key != "output" and values[0] != values[1]:
            unit = (a.parameters.get(key) or b.parameters.get(key) or {}).get("unit")
            rows.append([key.replace("_", " "), *values, unit or ""])
    commands = "" if a.command == b.command else f"A is {a.command}, B is {b.command}. "
    text = f"{commands}Options that differ." if rows else f"{commands}All options are the same."
    return Section("Options", text, table=Table(["option", *names, "unit"], rows) if rows else None)


def _value(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    value = entry.get("value")
    return "unset" if value is None else str(value)


def _overlay(result: Comparison) -> Overlay | None:
    """B laid on A; None without two maps of one size."""
    first, second = (one.map for one in result.maps)
    if first is None or second is None or first.shape != second.shape or len(first) < LEAST_BOX:
        return None
    pixel = result.maps[0].pixel_size
    known = [value for value in (result.resolution(0), result.resolution(1)) if value is not None]
    resolution = max([*known, 2.0 * pixel]) if known else 0.25 * len(first) * pixel
    size = _seen(len(first), pixel, min([*known, resolution]))
    if size < len(first):
        coarse = pixel * len(first) / size
        first, second = (resample(one, pixel, coarse, size) for one in (first, second))
        pixel = coarse
    symmetry = symmetry_matrices(_symmetry(result.records))
    radius = result.diameter_angstrom / pixel / 2 + EDGE_PX
    return lay(first, second, pixel, radius, resolution, symmetry, load_backend("auto"))


def _seen(size: int, pixel: float, finest: float) -> int:
    """Voxels along each side that show all up to half again the finest resolution (Å), and that memory allows."""
    return min(size, MOST_BOX, max(LEAST_SHOWN, 2 * int(np.ceil(FINER * size * pixel / finest))))


def _poses_section(result: Comparison) -> Section | None:
    moved = result.moved
    if moved is None or (moved.angle_deg.max() < 1e-3 and moved.distance.max() < 1e-3):
        return (
            None if moved is None else Section("Poses", f"The poses of all {len(result.common):,} particles are equal.")
        )
    rows = np.round(np.stack([moved.angle_deg, moved.distance], axis=1), 4).tolist()
    first, second = (len(one.particles) for one in result.sets if one is not None)
    symmetry = _symmetry(result.records)
    return Section(
        "Poses",
        f"How far B's poses are from A's, of the {len(result.common):,} particles that both have (A {first:,}, B "
        f"{second:,}), without the one rotation and shift of the map that all share. "
        + (f"Mates of {symmetry} count as one." if symmetry != "C1" else ""),
        table=Table(
            ["", "median", "90 %", "largest"],
            [
                ["rotation (°)", *(float(v) for v in np.percentile(moved.angle_deg, [50, 90, 100]))],
                ["position (Å)", *(float(v) for v in np.percentile(moved.distance, [50, 90, 100]))],
            ],
        ),
        figure=change_histograms(moved.angle_deg, moved.distance),
        shape="wide",
        data=Table(["particle", "deg", "angstrom"], [[n, *row] for n, row in zip(result.common, rows, strict=True)]),
    )


def _classes_section(result: Comparison) -> Section | None:
    """Which class of A the particles of a class of B were in, of jobs that both have classes."""
    first, second = (_classes_of(one) for one in result.sets)
    if len(set(first.values())) < 2 or len(set(second.values())) < 2:
        return None
    pairs = [(first[name], second[name]) for name in result.common]
    if not pairs:
        return None
    rows, columns = (sorted(set(values)) for values in zip(*pairs, strict=True))
    counts = Counter(pairs)
    same = sum(max(counts[a, b] for b in columns) for a in rows) / len(pairs)
    table: list[list[Cell]] = [[f"A: class {a}", *(counts[a, b] for b in columns)] for a in rows]
    return Section(
        "Classes",
        f"Particles that both have, by their class in A (rows) and in B (columns). {same:.0%} are in the class of B to "
        "which most particles of their class of A went; numbers of classes mean nothing. Worry if rows are all alike: "
        "then the two have sorted by chance.",
        table=Table(["", *(f"B: class {b}" for b in columns)], table),
    )


def _classes_of(one: OptimisationSet | None) -> Mapping[str, int]:
    """Class of every particle by its name; empty where the file has none."""
    if one is None:
        return {}
    try:
        table = table_of(one)
        found = table.integers(CLASS).tolist() if CLASS in table else []
    except TiltwiseError:
        return {}
    return dict(zip(one.particles.name, found, strict=False))


def _tilts_section(result: Comparison) -> Section | None:
    """Differences of CTF and geometry of the tilt series that both have."""
    first, second = result.sets
    if first is None or second is None:
        return None
    others = {one.name: one for one in second.series}
    rows: list[list[Cell]] = []
    for one in first.series:
        other = others.get(one.name)
        if other is None or other.n_tilts != one.n_tilts:
            rows.append([one.name, "only in A" if other is None else "other tilts in B", *([""] * 4)])
            continue
        defocus = 0.5 * (
            other.defocus_u_angstrom + other.defocus_v_angstrom - one.defocus_u_angstrom - one.defocus_v_angstrom
        )
        stretch = (other.defocus_u_angstrom - other.defocus_v_angstrom) - (
            one.defocus_u_angstrom - one.defocus_v_angstrom
        )
        centre = np.array([[size / 2 for size in one.tomogram_size]])
        shift = (other.project(centre) - one.project(centre))[0, :, :2] * one.pixel_size_angstrom
        turn = np.einsum("fij,fkj->fik", other.projection[:, :3, :3], one.projection[:, :3, :3])
        angle = np.degrees(np.arccos(np.clip((np.trace(turn, axis1=1, axis2=2) - 1) / 2, -1, 1)))
        scale = other.ctf_scale / np.where(one.ctf_scale == 0, np.nan, one.ctf_scale)
        rows.append([one.name, *(f"{_rms(values):.3g}" for values in (defocus, stretch, scale - 1, shift, angle))])
    if all(row[1:] == ["0"] * 5 for row in rows):
        return Section("Tilt series", "CTFs and geometry of all tilt series are the same.")
    return Section(
        "Tilt series",
        "B against A, root mean square over the tilts: mean defocus, difference of the two defoci, relative contrast, "
        "shift of the middle of the tomogram in the images, and direction of view.",
        table=Table(["series", "defocus Å", "astigmatism Å", "scale", "shift Å", "angle °"], rows),
    )


def _rms(values: F64) -> float:
    values = np.asarray(values, np.float64)
    return float(np.sqrt(np.nanmean(values**2))) if np.isfinite(values).any() else float("nan")


def _times_section(a: JobRecord, b: JobRecord, names: tuple[str, str]) -> Section:
    def seconds(value: float | None) -> str:
        return "" if value is None else duration(value)

    rows: list[list[Cell]] = [["all", seconds(a.wall_s), seconds(b.wall_s)]]
    for key in dict.fromkeys([*a.timings_s, *b.timings_s]):
        rows.append([key, seconds(a.timings_s.get(key)), seconds(b.timings_s.get(key))])
    peaks = ["" if one.peak_memory_gb is None else f"{one.peak_memory_gb:.2f} GB" for one in (a, b)]
    rows.append(["peak memory", *peaks])
    if a.iterations or b.iterations:
        rows.append(["iterations", str(len(a.iterations)), str(len(b.iterations))])
    return Section("Time and memory", table=Table(["", *names], rows))
