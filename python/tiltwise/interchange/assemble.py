"""Drafts to an optimisation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.interchange.drafts import Imported, ParticleDraft, SeriesDraft
from tiltwise.interchange.relion_forms import even_sizes
from tiltwise.model import OpticsGroup, OptimisationSet, Particles, TiltSeries


def assemble(series: Sequence[SeriesDraft], particles: Sequence[ParticleDraft]) -> Imported:
    """Set of tilt series and particles, with the conventions that were applied.

    A set without particles is allowed: it is one to pick in.

    Raises
    ------
    DataError
        if lengths, names, sizes or numbers do not make sense.
    """
    if not series:
        raise DataError("there is no tilt series to import", fix="name a folder or files of one of the programs")
    names = [draft.name for draft in series]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            "two tilt series have the same name",
            where=", ".join(draft.where for draft in series if draft.name == twice[0]),
            found=twice[0],
            fix="import one at a time, or rename a folder",
        )
    models = tuple(series_of(draft) for draft in series)
    groups = _optics(series)
    table, columns = _particles(particles, {one.name: one for one in models}, _group_rows(series))
    notes = [note for draft in series for note in draft.notes] + [note for draft in particles for note in draft.notes]
    optset, more = even_sizes(OptimisationSet(models, table, groups, {}, False, None, {}))
    return Imported(
        optset,
        tuple(dict.fromkeys((*notes, *more))),
        tuple(dict.fromkeys([*(text for draft in series for text in draft.applied), *map(_applied, particles)])),
        columns,
        {draft.name: draft.columns for draft in series},
    )


def with_particles(imported: Imported, particles: Sequence[ParticleDraft]) -> Imported:
    """A set of tilt series with these particles in place of its own.

    Raises
    ------
    DataError
        as `assemble`.
    """
    optset = imported.optset
    groups: dict[str, OpticsGroup] = {}
    for one in optset.series:
        groups.setdefault(
            one.optics_group_name,
            OpticsGroup(
                len(groups) + 1,
                one.optics_group_name,
                one.voltage_kv,
                one.spherical_aberration_mm,
                one.amplitude_contrast,
                one.pixel_size_angstrom,
            ),
        )
    order = {name: row for row, name in enumerate(groups)}
    group_of = {one.name: order[one.optics_group_name] for one in optset.series}
    table, columns = _particles(particles, {one.name: one for one in optset.series}, group_of)
    return replace(
        imported,
        optset=replace(optset, particles=table, optics=tuple(groups.values()), trajectories={}),
        notes=tuple(dict.fromkeys([*imported.notes, *(note for draft in particles for note in draft.notes)])),
        conventions=tuple(dict.fromkeys(_applied(draft) for draft in particles)),
        particle_columns=columns,
    )


def series_of(draft: SeriesDraft) -> TiltSeries:
    """Tilt series of a draft whose numbers make sense.

    Raises
    ------
    DataError
        if they do not.
    """
    _check_series(draft)
    count = len(draft.projection)
    zeros = np.zeros(count)
    ctf = draft.ctf
    return TiltSeries(
        name=draft.name,
        optics_group_name=draft.optics.group_name,
        pixel_size_angstrom=draft.pixel_size_angstrom,
        image_size=draft.image_size,
        tomogram_size=draft.tomogram_size,
        projection=draft.projection,
        defocus_u_angstrom=zeros if ctf is None else ctf.defocus_u_angstrom,
        defocus_v_angstrom=zeros if ctf is None else ctf.defocus_v_angstrom,
        defocus_angle_deg=zeros if ctf is None else ctf.defocus_angle_deg,
        phase_shift_deg=zeros if ctf is None or ctf.phase_shift_deg is None else ctf.phase_shift_deg,
        ctf_scale=np.ones(count) if draft.ctf_scale is None else draft.ctf_scale,
        ctf_bfactor_angstrom2=zeros,
        pre_exposure=draft.pre_exposure,
        nominal_tilt_deg=draft.tilt_deg,
        voltage_kv=draft.optics.voltage_kv,
        spherical_aberration_mm=draft.optics.spherical_aberration_mm,
        amplitude_contrast=draft.optics.amplitude_contrast,
        hand=draft.hand,
        defocus_slope=1.0,
        bfactor_per_dose=0.0,
        image_files=draft.image_files,
        image_index=draft.image_index,
    )


def _check_series(draft: SeriesDraft) -> None:
    count = len(draft.projection)
    arrays: dict[str, NDArray[np.float64]] = {"tilt angles": draft.tilt_deg, "doses": draft.pre_exposure}
    if draft.ctf_scale is not None:
        arrays["scales"] = draft.ctf_scale
    if draft.ctf is not None:
        arrays["defocus"] = draft.ctf.defocus_u_angstrom
        arrays["second defocus"] = draft.ctf.defocus_v_angstrom
        arrays["angles of astigmatism"] = draft.ctf.defocus_angle_deg
        if draft.ctf.phase_shift_deg is not None:
            arrays["phase shifts"] = draft.ctf.phase_shift_deg
    for what, array in arrays.items():
        if array.shape != (count,):
            raise DataError(
                f"{what} do not fit the views",
                where=draft.where,
                expected=f"{count} values",
                found=str(array.shape),
                fix="check that the file belongs to this tilt series and has all its views",
            )
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array))[0])
            raise DataError(
                f"{what} are NaN or infinite",
                where=f"{draft.where}, view {row + 1}",
                fix="correct the number in the file, or leave this view out of the series",
            )
    if count == 0 or draft.projection.shape != (count, 4, 4) or not np.isfinite(draft.projection).all():
        raise DataError(
            "the geometry of a tilt series cannot be used",
            where=draft.where,
            expected="one finite 4 x 4 matrix per view, and at least one view",
            found=f"{draft.projection.shape}",
            fix="take the damaged alignment out of the folder, or align the series anew",
        )
    if draft.image_files and not len(draft.image_files) == len(draft.image_index) == count:
        raise DataError(
            "images do not fit the views",
            where=draft.where,
            expected=f"{count} images",
            found=f"{len(draft.image_files)}",
            fix="give the stack that was aligned, with all its images",
        )
    for what, value, valid, expected in (
        ("pixel size", draft.pixel_size_angstrom, draft.pixel_size_angstrom > 0, "Å, above 0 (--angpix)"),
        ("voltage", draft.optics.voltage_kv, 10 <= draft.optics.voltage_kv <= 3000, "kV, such as 300 (--voltage)"),
        ("hand", draft.hand, abs(draft.hand) == 1, "1 or -1 (--hand)"),
        ("tomogram size", min(draft.tomogram_size), min(draft.tomogram_size) > 0, "pixels (--tomogram-size)"),
    ):
        if not valid:
            raise DataError(
                f"the {what} is not known",
                where=draft.where,
                expected=expected,
                found=f"{value:g}",
                fix="give it by the option that is named above",
            )
    dose = draft.pre_exposure
    if (dose < 0).any():
        raise DataError(
            "a dose is negative",
            where=draft.where,
            expected="e/Å², 0 or more",
            found=f"{dose.min():g}",
            fix="correct the dose in the mdoc or list of doses, or give --dose",
        )


def _optics(series: Sequence[SeriesDraft]) -> tuple[OpticsGroup, ...]:
    groups: dict[str, OpticsGroup] = {}
    for draft in series:
        optics = draft.optics
        group = OpticsGroup(
            groups[optics.group_name].number if optics.group_name in groups else len(groups) + 1,
            optics.group_name,
            optics.voltage_kv,
            optics.spherical_aberration_mm,
            optics.amplitude_contrast,
            draft.pixel_size_angstrom,
        )
        known = groups.setdefault(optics.group_name, group)
        values = (known.voltage_kv, known.spherical_aberration_mm, known.amplitude_contrast, known.pixel_size_angstrom)
        if values != (
            group.voltage_kv,
            group.spherical_aberration_mm,
            group.amplitude_contrast,
            group.pixel_size_angstrom,
        ):
            raise DataError(
                "tilt series of one optics group differ in their optics",
                where=draft.where,
                expected=f"{values} as {known.name} (kV, mm, amplitude contrast, Å)",
                found=f"{optics}, {draft.pixel_size_angstrom:g} Å",
                fix="give them different optics groups",
            )
    return tuple(groups.values())


def _group_rows(series: Sequence[SeriesDraft]) -> dict[str, int]:
    order = {name: row for row, name in enumerate(dict.fromkeys(draft.optics.group_name for draft in series))}
    return {draft.name: order[draft.optics.group_name] for draft in series}


def _particles(
    drafts: Sequence[ParticleDraft], series: Mapping[str, TiltSeries], group_of: Mapping[str, int]
) -> tuple[Particles, dict[str, Sequence[object]]]:
    for draft in drafts:
        _check_particles(draft, series)
    tomogram = [name for draft in drafts for name in draft.tomogram]
    named = bool(drafts) and all(draft.name for draft in drafts)
    names = [name for draft in drafts for name in draft.name] if named else _default_names(tomogram)
    if len(set(names)) != len(names):
        raise DataError(
            "a particle name occurs twice",
            where=", ".join(draft.where for draft in drafts),
            fix="give every particle a name of its own, or take the names out: particles are then numbered",
        )
    count = len(tomogram)

    def joined(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(parts) if parts else np.zeros((0, 3))

    halves = all(draft.half_set is not None for draft in drafts) and count > 0
    half = (
        np.concatenate([draft.half_set for draft in drafts if draft.half_set is not None])
        if halves
        else np.zeros(count)
    )
    particles = Particles(
        name=tuple(names),
        tomogram=tuple(tomogram),
        coordinate_px=joined([positions_px(draft, series) for draft in drafts]),
        origin_angstrom=np.zeros((count, 3)),
        angles_deg=joined([_angles(draft) for draft in drafts]),
        subtomogram_angles_deg=np.zeros((count, 3)),
        half_set=half.astype(np.int64),
        optics_index=np.array([group_of[name] for name in tomogram], np.int64),
        image_files=(),
        ctf_files=(),
        visible=(),
    )
    columns: dict[str, Sequence[object]] = {}
    for label in dict.fromkeys(label for draft in drafts for label in draft.columns):
        if all(label in draft.columns for draft in drafts):  # a column that one list lacks has no value there
            columns[label] = [value for draft in drafts for value in draft.columns[label]]
    return particles, columns


def positions_px(draft: ParticleDraft, series: Mapping[str, TiltSeries]) -> NDArray[np.float64]:
    """(P, 3) 0-based positions in unbinned pixels from the corner."""
    own = [series[name] for name in draft.tomogram]
    stored = draft.coordinate if draft.shift is None else draft.coordinate + draft.shift
    return draft.convention.to_position_px(
        stored,
        binning=draft.coordinate_binning,
        tomogram_size=np.array([one.tomogram_size for one in own], np.float64).reshape(-1, 3),
        pixel_size_angstrom=np.array([one.pixel_size_angstrom for one in own]),
    )


def _angles(draft: ParticleDraft) -> NDArray[np.float64]:
    if draft.angles_deg is None or draft.euler is None:
        return np.zeros((len(draft), 3))
    return matrix_to_euler(draft.euler.to_matrix(draft.angles_deg))


def _default_names(tomogram: Sequence[str]) -> list[str]:
    counts: dict[str, int] = {}
    names = []
    for name in tomogram:
        counts[name] = counts.get(name, 0) + 1
        names.append(f"{name}/{counts[name]}")
    return names


def _check_particles(draft: ParticleDraft, series: Mapping[str, TiltSeries]) -> None:
    if not len(draft):
        raise DataError(
            "a list of particles is empty",
            where=draft.where,
            expected="at least one particle",
            fix="take the empty list out, or give the right one by --p",
        )
    unknown = list(dict.fromkeys(name for name in draft.tomogram if name not in series))
    if unknown:
        raise DataError(
            "particles belong to tilt series that are not imported",
            where=draft.where,
            expected=", ".join(list(series)[:5]),
            found=", ".join(unknown[:5]),
            fix="import these tilt series too, or give the names of the tomograms",
        )
    arrays = {"coordinates": draft.coordinate, "angles": draft.angles_deg, "shifts": draft.shift}
    for what, array in arrays.items():
        if array is None:
            continue
        if array.shape != (len(draft), 3):
            raise DataError(
                f"{what} of particles do not fit",
                where=draft.where,
                expected=f"({len(draft)}, 3)",
                found=f"{array.shape}",
                fix="write the list anew with three numbers for every particle",
            )
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise DataError(
                f"{what} of a particle are NaN or infinite",
                where=f"{draft.where}, particle {row + 1}",
                fix="correct the numbers of this particle, or take it out of the list",
            )
    if not draft.coordinate_binning > 0:
        raise DataError(
            "the binning of coordinates is not valid",
            where=draft.where,
            expected="unbinned pixels per pixel, above 0",
            found=f"{draft.coordinate_binning:g}",
            fix="give --coord-binning, such as 4 for coordinates in a tomogram binned 4 times",
        )
    if draft.convention.unit == "Å" and draft.coordinate_binning != 1.0:
        raise DataError(
            "coordinates in Å have no binning",
            where=draft.where,
            found=f"{draft.coordinate_binning:g}",
            fix="leave --coord-binning and --coord-angpix out",
        )
    if draft.half_set is not None and not np.isin(draft.half_set, (1, 2)).all():
        raise DataError(
            "a half set is neither 1 nor 2",
            where=draft.where,
            fix="correct the column of half sets, or take it out: half sets are then drawn",
        )


def _applied(draft: ParticleDraft) -> str:
    convention = draft.convention
    unit = convention.unit if convention.unit == "Å" else f"pixels of {draft.coordinate_binning:g} unbinned ones"
    origin = f"centre {convention.centre}" if convention.origin == "centre" else f"first voxel {convention.first:g}"
    text = f"{draft.where}: coordinates as {convention.key} has them ({convention.columns}): {unit}, {origin}"
    return text if draft.euler is None else f"{text}; angles {draft.euler.columns}, {draft.euler.formula}"
