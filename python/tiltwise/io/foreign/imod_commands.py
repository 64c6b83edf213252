"""IMOD's command files `tilt.com` and `newst.com`, and the eTomo project `.edf`.

Views are numbered from 1, as in IMOD.  Sizes, thickness and shifts are in pixels of the unbinned raw stack.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import TextFile, read_text


@dataclass(frozen=True, slots=True)
class TiltCommand:
    """`tilt.com`: how the tomogram was made from the aligned stack."""

    path: str
    input_projections: str
    tilt_file: str
    x_tilt_file: str | None
    full_image: tuple[int, int]
    """(width, height) of the aligned images, unbinned pixels"""
    thickness: float
    """unbinned pixels"""
    image_binned: int
    x_axis_tilt_deg: float
    """one rotation about the image's x axis for all views"""
    angle_offset_deg: float
    """added to every tilt angle"""
    axis_offset: float
    """shift of the tilt axis in x, unbinned pixels"""
    shift: tuple[float, float]
    """(x, z) shift of the output, unbinned pixels"""
    subset_start: tuple[int, int]
    exclude_views: tuple[int, ...]
    """views left out, numbered from 1 in the raw stack"""
    local_file: str | None
    z_factor_file: str | None


@dataclass(frozen=True, slots=True)
class NewstCommand:
    """`newst.com`: how the aligned stack was made from the raw one."""

    path: str
    input_file: str
    output_file: str
    transform_file: str
    bin_by_factor: int
    size_to_output: tuple[int, int] | None
    """binned pixels"""
    offsets: tuple[float, float]


@dataclass(frozen=True, slots=True)
class EtomoProject:
    """`.edf`: what was entered in eTomo."""

    path: str
    dataset_name: str
    pixel_size_nm: float
    image_rotation_deg: float
    """angle from the image's y axis to the tilt axis, anticlockwise"""
    exclude_views: tuple[int, ...]


class _Commands:
    """Lines `Key values` of a command file; a key may be written in any case."""

    def __init__(self, path: str | os.PathLike[str], program: str) -> None:
        self.file: TextFile = read_text(path)
        self.program = program
        self.entries: dict[str, list[int]] = {}
        started = False
        for i in self.file.rows():
            text = self.file.lines[i].strip()
            if text.startswith("$"):
                started = started or bool(re.match(rf"\${program}\b", text))
            elif started:
                self.entries.setdefault(text.split(None, 1)[0].lower(), []).append(i)
        if not started:
            raise FormatError(
                "this is not the command file it should be",
                where=self.file.path,
                expected=f"a line ${program}",
                fix="give the command file that etomo wrote",
            )

    def values(self, key: str) -> tuple[int, str] | None:
        lines = self.entries.get(key.lower())
        if lines is None:
            return None
        return lines[-1], self.file.lines[lines[-1]].strip().partition(" ")[2].replace("\t", " ").strip() or (
            self.file.lines[lines[-1]].strip().partition("\t")[2].strip()
        )

    def text(self, key: str) -> str:
        found = self.optional_text(key)
        if found is None:
            raise FormatError(
                f"an entry is missing: {key}",
                where=f"{self.file.path}, line {len(self.file.lines)}",
                expected=f"a line {key} in the ${self.program} command",
                fix="run the step in eTomo that writes this file to its end",
            )
        return found

    def optional_text(self, key: str) -> str | None:
        found = self.values(key)
        if found is None:
            return None
        if not found[1]:
            raise self.file.error(f"{key} has no value", found[0], len(self.file.lines[found[0]].rstrip()))
        return found[1]

    def numbers(self, key: str, least: int, most: int, default: tuple[float, ...] | None = None) -> list[float]:
        if self.values(key) is None and default is not None:
            return list(default)
        text = self.text(key)
        line = self.entries[key.lower()][-1]
        tokens = [token for token in re.split(r"[,\s]+", text) if token]
        start = self.file.lines[line].find(text)
        if not least <= len(tokens) <= most:
            raise self.file.error(
                f"{key} has the wrong number of values",
                line,
                start,
                expected=str(least) if least == most else f"{least} to {most}",
                found=text,
            )
        found, at = [], start
        for token in tokens:
            at = self.file.lines[line].find(token, at)
            found.append(self.file.number(line, token, key, column=at))
            at += len(token)
        return found

    def whole(self, key: str, least: int, most: int, default: tuple[float, ...] | None = None) -> list[int]:
        numbers = self.numbers(key, least, most, default)
        for number in numbers:
            if number != int(number):
                raise self.file.error(f"{key} is not whole", self.entries[key.lower()][-1], 0, found=str(number))
        return [int(number) for number in numbers]

    def positive(self, key: str, count: int, default: tuple[float, ...] | None = None) -> list[int]:
        numbers = self.whole(key, count, count, default)
        if min(numbers) < 1:
            raise self.file.error(f"{key} is not positive", self.entries[key.lower()][-1], 0, found=str(numbers))
        return numbers

    def views(self, *keys: str) -> tuple[int, ...]:
        found: set[int] = set()
        for key in keys:
            for line in self.entries.get(key.lower(), []):
                text = self.file.lines[line].strip()
                found.update(view_list(self.file, line, text[len(key) :].strip()))
        return tuple(sorted(found))


def view_list(file: TextFile, line: int, text: str) -> list[int]:
    """Views of a list such as `1-3,5`, numbered from 1; `file` and `line` are for messages.

    Raises
    ------
    FormatError
        if the list cannot be read.
    """
    views: list[int] = []
    column = max(file.lines[line].find(text), 0)
    for part in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 10_000:
            raise file.error(
                "a list of views cannot be read",
                line,
                column,
                expected="numbers from 1 and ranges, such as 1-3,5",
                found=text,
            )
        views.extend(range(first, last + 1))
    return views


def read_tilt_command(path: str | os.PathLike[str]) -> TiltCommand:
    """Read `tilt.com`.

    Raises
    ------
    FormatError
        if the file is not a tilt command, or FULLIMAGE, THICKNESS, TILTFILE or InputProjections is missing or wrong.
    """
    command = _Commands(path, "tilt")
    offset = command.numbers("OFFSET", 1, 2, (0.0,))
    shift = command.numbers("SHIFT", 1, 2, (0.0, 0.0))
    width, height = command.positive("FULLIMAGE", 2)
    subset = command.whole("SUBSETSTART", 2, 2, (0.0, 0.0))
    return TiltCommand(
        path=command.file.path,
        input_projections=command.text("InputProjections"),
        tilt_file=command.text("TILTFILE"),
        x_tilt_file=command.optional_text("XTILTFILE"),
        full_image=(width, height),
        thickness=float(command.positive("THICKNESS", 1)[0]),
        image_binned=command.positive("IMAGEBINNED", 1, (1.0,))[0],
        x_axis_tilt_deg=command.numbers("XAXISTILT", 1, 1, (0.0,))[0],
        angle_offset_deg=offset[0],
        axis_offset=offset[1] if len(offset) > 1 else 0.0,
        shift=(shift[0], shift[1] if len(shift) > 1 else 0.0),
        subset_start=(subset[0], subset[1]),
        exclude_views=command.views("EXCLUDELIST", "EXCLUDELIST2", "EXCLUDE"),
        local_file=command.optional_text("LOCALFILE"),
        z_factor_file=command.optional_text("ZFACTORFILE"),
    )


def read_newst_command(path: str | os.PathLike[str]) -> NewstCommand:
    """Read `newst.com`.

    Raises
    ------
    FormatError
        if the file is not a newstack command, or InputFile, OutputFile or TransformFile is missing.
    """
    command = _Commands(path, "newstack")
    has_size = command.values("SizeToOutputInXandY") is not None
    size = command.positive("SizeToOutputInXandY", 2) if has_size else None
    offsets = command.numbers("OffsetsInXandY", 2, 2, (0.0, 0.0))
    return NewstCommand(
        path=command.file.path,
        input_file=command.text("InputFile"),
        output_file=command.text("OutputFile"),
        transform_file=command.text("TransformFile"),
        bin_by_factor=command.positive("BinByFactor", 1, (1.0,))[0],
        size_to_output=(size[0], size[1]) if size else None,
        offsets=(offsets[0], offsets[1]),
    )


def read_etomo_project(path: str | os.PathLike[str]) -> EtomoProject:
    """Read what tiltwise needs of an eTomo `.edf`.

    Raises
    ------
    FormatError
        if a line is no `key=value`, or the data set name, pixel size or image rotation of axis A is missing or wrong.
    """
    file = read_text(path)
    entries: dict[str, tuple[int, str]] = {}
    for i in file.rows():
        key, equals, value = file.lines[i].partition("=")
        if not equals:
            raise file.error("a line cannot be read", i, 0, expected="key=value", found=file.lines[i])
        entries[key.strip()] = (i, value.strip())

    def entry(key: str) -> tuple[int, str]:
        if key in entries and not entries[key][1]:
            raise file.error(f"{key} has no value", entries[key][0], len(file.lines[entries[key][0]]))
        if key not in entries:
            raise FormatError(
                f"an entry is missing: {key}",
                where=f"{file.path}, line {len(file.lines)}",
                expected=f"{key}=value",
                fix="check that this is an eTomo .edf file and complete",
            )
        return entries[key]

    def number(key: str) -> float:
        line, text = entry(key)
        return file.number(line, text, key, column=file.lines[line].find(text, len(key)))

    line, excluded = entries.get("Setup.AxisA.ExcludeProjections", (0, ""))
    return EtomoProject(
        path=file.path,
        dataset_name=entry("Setup.DatasetName")[1],
        pixel_size_nm=number("Setup.PixelSize"),
        image_rotation_deg=number("Setup.ImageRotationA"),
        exclude_views=tuple(sorted(set(view_list(file, line, excluded)))) if excluded else (),
    )
