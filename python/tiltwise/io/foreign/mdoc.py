"""SerialEM's `.mdoc` (and Tomo5's imitation of it): what was recorded, when and with which dose.

Angles in degrees, pixel spacing in Å, doses in e/Å^2, defocus in µm (negative is underfocus, as the microscope has it),
image sizes in pixels.  Sections are in file order, which is neither that of recording nor that of tilt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import TextFile, read_text

_HEADING = re.compile(r"\[(ZValue|FrameSet|MontSection)\s*=\s*(\S+)\]")
_TIMES = ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%b-%d %H:%M:%S", "%m/%d/%Y %H:%M:%S")


@dataclass(frozen=True, slots=True)
class Mdoc:
    """N recorded images; a value that a section lacks is NaN, a text is empty and a time None."""

    path: str
    kind: str
    """"ZValue" for the images of a stack, "FrameSet" for the mdoc of one movie"""
    section: NDArray[np.int64]
    """(N,) number of the image in its stack, from 0"""
    tilt_deg: NDArray[np.float64]
    exposure_dose: NDArray[np.float64]
    """(N,) dose of the image itself"""
    prior_dose: NDArray[np.float64]
    """(N,) PriorRecordDose"""
    time: tuple[datetime | None, ...]
    sub_frame_path: tuple[str, ...]
    """(N,) movie, with the path it had at the microscope"""
    sub_frames: NDArray[np.float64]
    pixel_spacing_angstrom: NDArray[np.float64]
    target_defocus_um: NDArray[np.float64]
    rotation_angle_deg: NDArray[np.float64]
    """(N,) RotationAngle: that of the camera, not the tilt axis angle"""
    tilt_axis_deg: float | None
    """from the title line "Tilt axis angle = ...": angle from the image's y axis, anticlockwise"""
    voltage_kv: float | None
    image_file: str
    image_size: tuple[int, int] | None
    montage: bool
    entries: tuple[dict[str, str], ...]
    """(N,) all entries of every section as they stand"""


def read_mdoc(path: str | os.PathLike[str]) -> Mdoc:
    """Read a `.mdoc` file.

    Raises
    ------
    FormatError
        if a line is neither `[...]` nor `Key = value`, a section lacks TiltAngle or an entry that every other section
        has (the file is cut off), sections are numbered twice, or a value cannot be read.
    """
    file = read_text(path)
    head: dict[str, tuple[int, str]] = {}
    titles: list[str] = []
    sections: list[tuple[str, int, int, dict[str, tuple[int, str]]]] = []
    entries = head
    for i in file.rows(comment="#"):
        text = file.lines[i].strip()
        heading = _HEADING.fullmatch(text)
        if heading:
            number = int(file.number(i, heading[2], heading[1], column=file.lines[i].find(heading[2]), whole=True))
            entries = {}
            sections.append((heading[1], number, i, entries))
        elif text.startswith("["):
            if not text.endswith("]"):
                raise file.error("a line is cut off", i, len(text), expected="]", found=text)
            titles.append(text.strip("[] "))
        else:
            key, equals, value = text.partition("=")
            if not equals:
                raise file.error("a line cannot be read", i, 0, expected="Key = value or [ZValue = n]", found=text)
            if key.strip() == "T":
                titles.append(text)
            entries[key.strip()] = (i, value.strip())
    kind = "FrameSet" if any(one[0] == "FrameSet" for one in sections) else "ZValue"
    kept = [one for one in sections if one[0] == kind]
    if not kept:
        raise file.empty("sections [ZValue = n] or [FrameSet = n]")
    _check_complete(file, kept)
    axis = next((m for title in titles if (m := re.search(r"Tilt axis angle = ([^,\s]+)", title))), None)
    size = head.get("ImageSize")
    return Mdoc(
        path=file.path,
        kind=kind,
        section=np.array([number for _, number, _, _ in kept], np.int64),
        tilt_deg=_numbers(file, kept, "TiltAngle"),
        exposure_dose=_numbers(file, kept, "ExposureDose"),
        prior_dose=_numbers(file, kept, "PriorRecordDose"),
        time=tuple(_time(file, one[3].get("DateTime")) for one in kept),
        sub_frame_path=tuple(one[3].get("SubFramePath", (0, ""))[1] for one in kept),
        sub_frames=_numbers(file, kept, "NumSubFrames"),
        pixel_spacing_angstrom=_numbers(file, kept, "PixelSpacing"),
        target_defocus_um=_numbers(file, kept, "TargetDefocus"),
        rotation_angle_deg=_numbers(file, kept, "RotationAngle"),
        tilt_axis_deg=None if axis is None else _title_number(file, axis[1]),
        voltage_kv=_entry_number(file, head, "Voltage") if "Voltage" in head else None,
        image_file=head.get("ImageFile", (0, ""))[1],
        image_size=None if size is None else _size(file, *size),
        montage="Montage" in head,
        entries=tuple({key: value for key, (_, value) in one[3].items()} for one in kept),
    )


def acquisition_order(mdoc: Mdoc) -> NDArray[np.intp]:
    """Rows of an mdoc in the order of recording, `(N,)`: by time, else by prior dose, else by number.

    Raises
    ------
    FormatError
        if some sections have a time and others not, or two differ in tilt but not in time.
    """
    known = [time for time in mdoc.time if time is not None]
    if len(known) == len(mdoc.time):
        order = np.array(sorted(range(len(known)), key=lambda row: (known[row], mdoc.section[row])), np.intp)
        for before, after in pairwise(order):
            if known[before] == known[after] and abs(mdoc.tilt_deg[before] - mdoc.tilt_deg[after]) > 0.5:
                raise _no_order(
                    mdoc, f"sections {mdoc.section[before]} and {mdoc.section[after]} have the same DateTime"
                )
        return order
    if known:
        raise _no_order(mdoc, f"{len(known)} of {len(mdoc.time)} sections have a DateTime")
    keys = mdoc.prior_dose if np.isfinite(mdoc.prior_dose).all() else mdoc.section
    return np.argsort(keys, kind="stable")


def pre_exposure(mdoc: Mdoc) -> NDArray[np.float64] | None:
    """Dose before every image, `(N,)` e/Å^2; None where the mdoc does not hold doses.

    PriorRecordDose where all sections have it; otherwise the sum of ExposureDose over the images recorded before.
    """
    if np.isfinite(mdoc.prior_dose).all():
        return mdoc.prior_dose
    if not np.isfinite(mdoc.exposure_dose).all() or not (mdoc.exposure_dose > 0).all():
        return None
    order = acquisition_order(mdoc)
    dose = np.empty(len(order))
    dose[order] = np.concatenate([[0.0], np.cumsum(mdoc.exposure_dose[order])[:-1]])
    return dose


def join_movies(movies: Sequence[Mdoc], path: str) -> Mdoc:
    """One mdoc of many that describe a movie each; sections are numbered in the order given."""

    def joined(arrays: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate(list(arrays))

    return replace(
        movies[0],
        path=path,
        section=np.arange(sum(len(one.section) for one in movies), dtype=np.int64),
        tilt_deg=joined(one.tilt_deg for one in movies),
        exposure_dose=joined(one.exposure_dose for one in movies),
        prior_dose=joined(one.prior_dose for one in movies),
        time=tuple(time for one in movies for time in one.time),
        sub_frame_path=tuple(name for one in movies for name in one.sub_frame_path),
        sub_frames=joined(one.sub_frames for one in movies),
        pixel_spacing_angstrom=joined(one.pixel_spacing_angstrom for one in movies),
        target_defocus_um=joined(one.target_defocus_um for one in movies),
        rotation_angle_deg=joined(one.rotation_angle_deg for one in movies),
        entries=tuple(entry for one in movies for entry in one.entries),
    )


def _check_complete(file: TextFile, sections: list[tuple[str, int, int, dict[str, tuple[int, str]]]]) -> None:
    seen: dict[int, int] = {}
    for kind, number, line, entries in sections:
        if number in seen:
            raise file.error(
                f"a section occurs twice: {kind} = {number}", line, 0, found=f"also line {seen[number] + 1}"
            )
        seen[number] = line
        if "TiltAngle" not in entries:
            raise _cut(file, kind, number, line, "TiltAngle", entries)
    if len(sections) < 3:
        return
    everywhere = set.intersection(*(set(one[3]) for one in sections[:-1]))
    kind, number, line, entries = sections[-1]
    for key in sorted(everywhere - set(entries)):
        raise _cut(file, kind, number, line, key, entries)


def _cut(
    file: TextFile, kind: str, number: int, line: int, key: str, entries: dict[str, tuple[int, str]]
) -> FormatError:
    last = max((at for at, _ in entries.values()), default=line)
    return file.error(
        f"an entry is missing: {key}",
        last,
        len(file.lines[last]),
        expected=f"{key} = ... in section [{kind} = {number}]",
        fix="the file may be cut off: copy it again",
    )


def _numbers(
    file: TextFile, sections: list[tuple[str, int, int, dict[str, tuple[int, str]]]], key: str
) -> NDArray[np.float64]:
    return np.array([_entry_number(file, one[3], key) if key in one[3] else np.nan for one in sections], np.float64)


def _entry_number(file: TextFile, entries: dict[str, tuple[int, str]], key: str) -> float:
    line, text = entries[key]
    return file.number(line, text, key, column=max(file.lines[line].find(text, file.lines[line].find("=")), 0))


def _size(file: TextFile, line: int, text: str) -> tuple[int, int]:
    tokens = text.split()
    if len(tokens) != 2:
        raise file.error("ImageSize has not two values", line, file.lines[line].find("=") + 1, found=text)
    start = file.lines[line].find("=")
    width, height = (
        int(file.number(line, token, "ImageSize", column=file.lines[line].find(token, start), whole=True))
        for token in tokens
    )
    return width, height


def _title_number(file: TextFile, text: str) -> float:
    line = next(i for i, one in enumerate(file.lines) if f"Tilt axis angle = {text}" in one)
    return file.number(line, text, "tilt axis angle", column=file.lines[line].find(text))


def _time(file: TextFile, entry: tuple[int, str] | None) -> datetime | None:
    if entry is None:
        return None
    line, text = entry
    tidy = " ".join(text.split())
    for layout in _TIMES:
        found = _parse_time(tidy, layout)
        if found is not None:
            return found
    raise file.error(
        "a time cannot be read",
        line,
        file.lines[line].find(text) if text else len(file.lines[line]),
        expected="such as 06-Jun-23  23:19:46 or 2023-06-06 23:19:46",
        found=text or "nothing",
    )


def _parse_time(text: str, layout: str) -> datetime | None:
    parse: Callable[[str, str], datetime] = datetime.strptime
    try:
        return parse(text, layout)
    except ValueError:
        return None


def _no_order(mdoc: Mdoc, found: str) -> FormatError:
    return FormatError(
        "the order of recording cannot be told from an mdoc",
        where=mdoc.path,
        expected="a DateTime in every section",
        found=found,
        fix="give the order as a list number,angle",
    )
