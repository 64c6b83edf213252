"""Order, dose and CTF of the views of a tilt series, from files of other programs.

Every table is joined to the views by section number, file name or angle, with the angles as a check: never by row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.interchange import choices
from tiltwise.interchange.drafts import ViewCtf
from tiltwise.interchange.join import TOLERANCE_DEG, join_by_angle, join_by_key
from tiltwise.interchange.options import ImportOptions
from tiltwise.io.foreign.ctffind import read_ctffind
from tiltwise.io.foreign.ctfplotter import CtfplotterTable, read_defocus
from tiltwise.io.foreign.gctf import read_gctf
from tiltwise.io.foreign.imod_alignment import read_angles, read_dose_list, read_order_list
from tiltwise.io.foreign.mdoc import Mdoc, acquisition_order, join_movies, pre_exposure, read_mdoc

F64 = NDArray[np.float64]
AXIS_LIMIT_DEG = 10.0
"""Difference of tilt axes that is worth a word: alignment moves them by some degrees."""
_CTF_PATTERNS = (
    "{name}.defocus",
    "{name}_CTF.txt",
    "{name}_ctf.txt",
    "{name}_ctffind4.txt",
    "{name}_ctffind5.txt",
    "{name}_output.txt",
    "{name}_gctf.star",
)


@dataclass(frozen=True, slots=True)
class Views:
    """The F views of a tilt series that are kept."""

    name: str
    where: str
    """files they are from, for messages"""
    section: NDArray[np.int64]
    """(F,) 0-based in the raw stack"""
    sections: int
    """of the raw stack"""
    tilt_deg: F64
    """(F,) after alignment, as in the angle file of the program"""
    stage_deg: F64 | None
    """(F,) before alignment; None: not known, `tilt_deg` may differ from it by a constant"""
    all_tilt_deg: F64 | None = None
    """`tilt_deg` of all sections of the raw stack, where they are known"""
    sections_known: bool = True
    """false where `section` is only the place in the list of kept views"""
    of_aretomo: bool = False
    """whether they are the rows of an alignment of AreTomo, whose CTF table is numbered as these"""

    def rows_by_angle(self, others_deg: F64, others_where: str) -> NDArray[np.intp]:
        """Row in a table of stage angles of every view.

        Raises
        ------
        DataError
            if a view has no partner or several, or if an unknown offset of the aligned angles could hide that views
            were left out.
        """
        join = partial(join_by_angle, views_where=self.where, others_where=others_where)
        if self.stage_deg is not None:
            return join(self.stage_deg, others_deg)
        if self.all_tilt_deg is not None and len(self.all_tilt_deg) == len(others_deg):
            return join(self.all_tilt_deg, others_deg, offset=True)[self.section]
        if len(self.tilt_deg) == len(others_deg):
            return join(self.tilt_deg, others_deg, offset=True)
        raise DataError(
            "views cannot be joined by angle",
            where=f"{self.where} and {others_where}",
            expected="angles of the stage, or as many rows as the raw stack has sections",
            found=f"angles after alignment, which may be shifted by some degrees, and {len(others_deg)} rows for "
            f"{self.sections} sections",
            fix=f"put {self.name}.rawtlt beside the alignment",
        )


def dose_before(views: Views, options: ImportOptions, folder: Path) -> tuple[F64, tuple[str, ...]]:
    """Dose before every view, `(F,)` e/Å², and what it is from.

    From `--dose-list`, an order list or an mdoc, in this order; the last may lie beside the alignment.

    Raises
    ------
    FormatError, DataError
        if a file cannot be read or joined, or the dose is not known.
    """
    if options.dose_list is not None:
        doses = read_dose_list(options.dose_list, views=views.sections)
        _need_sections(views, f"--dose-list {options.dose_list}")
        return doses[views.section], (f"{views.name}: dose before every view from {options.dose_list}",)
    if options.order_list is not None:
        order = read_order_list(options.order_list)
        if options.dose_per_view is None:
            raise _no_dose(views, "an order list has no dose", "give the dose of one view: --dose")
        rows = views.rows_by_angle(order.tilt_deg, order.path)
        note = f"{views.name}: {options.dose_per_view:g} e/Å² per view, order of {order.path}"
        return np.asarray(rows * options.dose_per_view, np.float64), (note,)
    mdoc = find_mdoc(views.name, options, folder)
    if mdoc is None:
        raise _no_dose(
            views, "neither mdoc nor order list is there", "give --mdoc, or --order-list with --dose, or --dose-list"
        )
    rows = mdoc_rows(views, mdoc)
    if options.dose_per_view is not None:
        rank = np.empty(len(mdoc.section), np.int64)
        rank[acquisition_order(mdoc)] = np.arange(len(rank))
        note = f"{views.name}: {options.dose_per_view:g} e/Å² per view, order of {mdoc.path}"
        return np.asarray(rank[rows] * options.dose_per_view, np.float64), (note,)
    doses_or_none = pre_exposure(mdoc)
    if doses_or_none is None:
        raise _no_dose(views, f"{mdoc.path} has no doses", "give the dose of one view: --dose")
    return doses_or_none[rows], (f"{views.name}: order and dose of {mdoc.path}",)


def mdoc_rows(views: Views, mdoc: Mdoc) -> NDArray[np.intp]:
    """Row of an mdoc of every view: by section where it describes this stack, else by angle.

    Raises
    ------
    DataError
        if a view cannot be found, or could be several.
    """
    if views.sections_known and mdoc.kind == "ZValue" and len(mdoc.section) == views.sections:
        rows = join_by_key(
            [int(n) for n in views.section],
            [int(n) for n in mdoc.section],
            views_where=views.where,
            others_where=mdoc.path,
            what="section number",
        )
        known = views.stage_deg if views.stage_deg is not None else views.tilt_deg
        difference = known - mdoc.tilt_deg[rows]
        if np.abs(difference - (0.0 if views.stage_deg is not None else np.median(difference))).max() <= TOLERANCE_DEG:
            return rows
    return views.rows_by_angle(mdoc.tilt_deg, mdoc.path)


def axis_notes(name: str, turn_deg: F64, options: ImportOptions, folder: Path) -> tuple[str, ...]:
    """What to tell the user where the tilt axis is not where the mdoc has it; angles as `rlnTomoZRot`."""
    mdoc = find_mdoc(name, options, folder)
    if mdoc is None or mdoc.tilt_axis_deg is None:
        return ()
    axis = float(np.degrees(np.angle(np.exp(1j * np.radians(turn_deg)).mean())))
    off = abs((axis - mdoc.tilt_axis_deg + 180.0) % 360.0 - 180.0)
    if off <= AXIS_LIMIT_DEG:
        return ()
    text = (
        f"{name}: the tilt axis is at {axis:.1f} degrees in the alignment and at {mdoc.tilt_axis_deg:g} in {mdoc.path}"
    )
    if off > 180.0 - AXIS_LIMIT_DEG:
        text += ": if the alignment is turned by 180 degrees, maps are mirrored and --hand is the other"
    return (text,)


def find_mdoc(name: str, options: ImportOptions, folder: Path) -> Mdoc | None:
    """The mdoc of a tilt series: `--mdoc`, or NAME.mdoc, NAME.st.mdoc, ... in that folder or beside the alignment.

    A folder of mdocs of single movies is read as one.

    Raises
    ------
    FormatError, DataError
        if it cannot be read, or `--mdoc` names a folder without one.
    """
    if options.mdoc is not None and options.mdoc.is_file():
        return read_mdoc(options.mdoc)
    place = options.mdoc if options.mdoc is not None else folder
    for ending in (".mdoc", ".mrc.mdoc", ".st.mdoc", ".tif.mdoc"):
        path = place / f"{name}{ending}"
        if path.is_file():
            return read_mdoc(path)
    movies = sorted(place.glob(f"{escape(name)}[_.]*.mdoc"))
    if movies:
        return join_movies([read_mdoc(path) for path in movies], str(place))
    if options.mdoc is not None:
        raise DataError(
            "a tilt series has no mdoc",
            where=f"--mdoc {options.mdoc}",
            expected=f"{name}.mdoc or {name}_*.mdoc",
            fix="rename the mdoc after the tilt series, or give --order-list and --dose",
        )
    return None


def find_ctf(name: str, options: ImportOptions, folder: Path) -> Path | None:
    """The CTF table of a tilt series: `--ctf`, or one of the usual names in that folder or beside the alignment."""
    if options.ctf is not None and not options.ctf.is_dir():
        return options.ctf
    place = options.ctf if options.ctf is not None else folder
    found = [place / pattern.format(name=name) for pattern in _CTF_PATTERNS]
    return next((path for path in found if path.is_file()), None)


def ctf_of(
    views: Views, options: ImportOptions, path: Path | None
) -> tuple[ViewCtf | None, tuple[str, ...], tuple[str, ...]]:
    """CTF of every view; what was used; what to tell the user.

    Raises
    ------
    FormatError, DataError
        if the table cannot be read or joined.
    """
    if path is None:
        return None, (), (f"{views.name}: no CTF was found; defocus is 0 until one is given (--ctf)",)
    if path.suffix == ".defocus":
        table = read_defocus(path)
        rows = ctfplotter_rows(views, table)
        ctf = ViewCtf(
            table.defocus_nm[:, 0] * 10.0, table.defocus_nm[:, 1] * 10.0, table.astigmatism_deg, table.phase_shift_deg
        )
        return ctf.take(rows), (f"{views.name}: CTF of {path} (Ctfplotter, joined by tilt angle)",), ()
    if path.suffix == ".star":
        stars = read_gctf(path)
        ctf = ViewCtf(
            stars.defocus_angstrom[:, 0], stars.defocus_angstrom[:, 1], stars.angle_deg, stars.phase_shift_deg
        )
        if stars.tilt_deg is not None:
            return ctf.take(views.rows_by_angle(stars.tilt_deg, str(path))), (f"{views.name}: CTF of {path}",), ()
        numbers = [_number_in_name(name) for name in stars.micrograph_names]
        return ctf.take(_rows_of_table(views, options, numbers, str(path))), (f"{views.name}: CTF of {path}",), ()
    text = read_ctffind(path)
    phase = np.degrees(text.phase_shift_rad)
    ctf = ViewCtf(text.defocus_angstrom[:, 0], text.defocus_angstrom[:, 1], text.azimuth_deg, phase)
    own = text.program == "AreTomo"
    rows = _rows_of_table(views, options, [int(n) for n in text.micrograph], str(path), aretomo=own)
    notes = []
    hand = choices.hand(-1.0, options)
    if text.hand is not None and (text.hand != hand).all():
        notes.append(f"{views.name}: the defocus hand is {text.hand[0]:+d} in {path}, and {hand:+.0f} here (--hand)")
    return ctf.take(rows), (f"{views.name}: CTF of {path}",), tuple(notes)


def ctfplotter_rows(views: Views, table: CtfplotterTable) -> NDArray[np.intp]:
    """Row of every view: of the ranges of angles that hold it, the one whose middle is nearest.

    Raises
    ------
    DataError
        if no range holds a view.
    """
    low, high = table.tilt_deg.min(1), table.tilt_deg.max(1)
    distance = np.abs(views.tilt_deg[:, None] - 0.5 * (low + high))
    outside = np.maximum(low - views.tilt_deg[:, None], views.tilt_deg[:, None] - high)
    distance[outside > TOLERANCE_DEG] = np.inf
    lost = np.flatnonzero(~np.isfinite(distance).any(axis=1))
    if len(lost):
        raise DataError(
            "a view has no defocus",
            where=f"{views.where} and {table.path}",
            expected=f"a range of angles that holds {views.tilt_deg[lost[0]]:g} degrees",
            found=f"{low.min():g} to {high.max():g} degrees; {len(lost)} views are outside of every range",
            fix="run Ctfplotter on the aligned angles of the same tilt series",
        )
    return np.asarray(np.argmin(distance, axis=1), np.intp)


def _rows_of_table(
    views: Views, options: ImportOptions, numbers: Sequence[int], where: str, *, aretomo: bool = False
) -> NDArray[np.intp]:
    """Rows of a table that numbers micrographs from 1: by `--ctf-angles`, by section of the raw stack, or, in a table
    of AreTomo (`aretomo`), as the rows of its alignment.
    """
    if options.ctf_angles is not None:
        return views.rows_by_angle(read_angles(options.ctf_angles, views=len(numbers)), str(options.ctf_angles))
    if aretomo and views.of_aretomo and len(numbers) == len(views.tilt_deg):
        keys = list(range(1, len(numbers) + 1))
    elif not aretomo and views.sections_known and len(numbers) == views.sections:
        keys = [int(n) + 1 for n in views.section]
    else:
        raise DataError(
            "micrographs of a CTF table cannot be told apart",
            where=f"{views.where} and {where}",
            expected="one row for every view of an alignment of AreTomo"
            if aretomo
            else f"one row for each of the {views.sections} sections of the raw stack, and their angles",
            found=f"{len(numbers)} rows for {len(views.tilt_deg)} views that are kept",
            fix="give the tilt angle of every row: --ctf-angles FILE.tlt",
        )
    return join_by_key(keys, list(numbers), views_where=views.where, others_where=where, what="micrograph number")


def _number_in_name(name: str) -> int:
    """Number of a micrograph in a stack: `3@stack.mrcs`, `split.mrc.03`, `TS_1_003.mrc`."""
    at = re.match(r"(\d+)@", name)
    digits = at or re.search(r"(\d+)(?:\.[A-Za-z]\w*)?$", name)
    return int(digits[1]) if digits else 0


def _need_sections(views: Views, where: str) -> None:
    if not views.sections_known:
        raise DataError(
            "views cannot be told apart by section",
            where=f"{views.where} and {where}",
            expected="an alignment that says which section of the raw stack a view is",
            fix="give an mdoc or an order list instead",
        )


def _no_dose(views: Views, found: str, fix: str) -> DataError:
    return DataError(
        "the dose before every view is not known",
        where=views.where,
        expected="an mdoc with doses, or the order of acquisition and the dose of one view",
        found=found,
        fix=fix,
    )
