"""Damaged files of other programs: an error with file and line each time, never another exception."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from helpers.foreign import SAMPLES, Sample
from tiltwise.errors import FormatError
from tiltwise.io.foreign import em, imod_model
from tiltwise.io.foreign.text import MAX_LINE

by_format = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


def attempt(sample: Sample, path: Path, data: bytes) -> FormatError | None:
    """Error that a file of these bytes gives; None if it can be read."""
    path.write_bytes(data)
    found = None
    try:
        sample.read(path)
    except FormatError as error:
        found = error
    if found is not None:
        assert str(found.where).startswith(str(path))
    return found


def change(text: str, line: int, token: int, new: str) -> str:
    """Text with one token of one line replaced; tokens end at blanks, commas and equals signs."""
    lines = text.split("\n")
    found = list(re.finditer(r"[^\s,=]+", lines[line]))[token]
    lines[line] = lines[line][: found.start()] + new + lines[line][found.end() :]
    return "\n".join(lines)


@by_format
def test_whole_files_can_be_read(sample: Sample, tmp_path: Path) -> None:
    assert attempt(sample, tmp_path / "file", sample.text.encode()) is None
    assert attempt(sample, tmp_path / "file", sample.text.replace("\n", "\r\n").encode()) is None
    assert attempt(sample, tmp_path / "file", sample.text.rstrip("\n").encode()) is None


@by_format
@pytest.mark.parametrize("new", ["nan", "inf", "abc", "1_000", "1.2.3", "--1", "0x10", "1e999", "١", "1,5e"])
def test_a_text_for_a_number(sample: Sample, new: str, tmp_path: Path) -> None:
    line, token = sample.number
    if new == "1,5e" and "," in sample.text:
        new = "1;5e"
    error = attempt(sample, tmp_path / "file", change(sample.text, line, token, new).encode())
    assert error is not None
    assert f"line {line + 1}" in str(error.where)
    assert "column" in str(error.where)


@by_format
def test_a_value_is_missing(sample: Sample, tmp_path: Path) -> None:
    line, token = sample.number
    error = attempt(sample, tmp_path / "file", change(sample.text, line, token, "").encode())
    if sample.name not in ("tlt", "dose"):  # one value per line: it is as if the line were not there
        assert error is not None
        assert f"line {line + 1}" in str(error.where)


@by_format
def test_cut_off_anywhere(sample: Sample, tmp_path: Path) -> None:
    ends = {i for i, char in enumerate(sample.text) if char == "\n"} | set(range(0, len(sample.text), 7))
    for end in sorted(ends):
        attempt(sample, tmp_path / "file", sample.text[:end].encode())
    assert attempt(sample, tmp_path / "file", b"") is not None
    assert attempt(sample, tmp_path / "file", b"\n\n") is not None


@by_format
def test_encodings_and_line_ends(sample: Sample, tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        error = attempt(sample, tmp_path / "file", sample.text.encode(encoding))
        assert error is not None
        assert "UTF-16" in str(error)
    lines = sample.text.encode().split(b"\n")
    for mixed in (b"\r\n".join(lines[:2]) + b"\n" + b"\n".join(lines[2:]), b"\n".join(lines[:1]) + b"\r\n" + lines[1]):
        error = attempt(sample, tmp_path / "file", mixed + b"\n")
        assert error is not None
        assert "line 2" in str(error.where) or "line 1" in str(error.where)
    assert attempt(sample, tmp_path / "file", sample.text.replace("\n", "\r").encode()) is not None
    assert attempt(sample, tmp_path / "file", sample.text.encode("utf-8-sig")) is None
    attempt(sample, tmp_path / "file", sample.text.encode() + b"\xff\xe9\xb5\n")
    attempt(sample, tmp_path / "file", np.random.default_rng(1).bytes(5000))


@by_format
def test_a_line_of_ten_megabytes(sample: Sample, tmp_path: Path) -> None:
    error = attempt(sample, tmp_path / "file", sample.text.encode() + b"1 " * 5_000_000 + b"\n")
    assert error is not None
    assert f"at most {MAX_LINE}" in str(error)


@by_format
def test_no_file(sample: Sample, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FormatError, match="cannot be read"):
            sample.read(path)


def em_bytes(values: np.ndarray, order: str = "<") -> bytes:
    depth, height, width = values.shape
    head = bytes([6 if order == "<" else 5, 0, 0, 5]) + struct.pack(f"{order}3i", width, height, depth)
    return head + bytes(512 - len(head)) + values.astype(f"{order}f4").tobytes()


def motives() -> np.ndarray:
    values = np.random.default_rng(3).normal(size=(1, 4, 20)).astype("f4").astype(float)
    for row, numbers in ((4, range(1, 5)), (5, [7, 7, 8, 8]), (6, [1, 1, 1, 2]), (20, [1, 1, 2, 2])):
        values[0, :, row - 1] = list(numbers)
    return values


@pytest.mark.parametrize("order", ["<", ">"])
def test_em_files(order: str, tmp_path: Path) -> None:
    path, values = tmp_path / "motl.em", motives()
    path.write_bytes(em_bytes(values, order))
    found = em.read_motives(path)
    np.testing.assert_array_equal(found.values, values[0])
    np.testing.assert_array_equal(found.coordinate, values[0, :, 7:10])
    np.testing.assert_array_equal(found.shift, values[0, :, 10:13])
    np.testing.assert_array_equal(found.angles_deg, values[0, :, 16:19])
    assert found.tomogram_number.tolist() == [7, 7, 8, 8]


def test_em_files_that_are_damaged(tmp_path: Path) -> None:
    path, good = tmp_path / "motl.em", em_bytes(motives())
    for end in range(0, len(good), 7):
        path.write_bytes(good[:end])
        with pytest.raises(FormatError, match="byte"):
            em.read_motives(path)
    for bad in (good + b"\0", b"\1" + good[1:], good[:3] + b"\x08" + good[4:], good[:4] + b"\xff" * 12 + good[16:]):
        path.write_bytes(bad)
        with pytest.raises(FormatError):
            em.read_motives(path)
    for row, value, text in ((3, np.nan, "particle 3, row 3"), (5, 1.5, "particle 3, row 5"), (17, np.inf, "row 17")):
        values = motives()
        values[0, 2, row - 1] = value
        path.write_bytes(em_bytes(values))
        with pytest.raises(FormatError, match=text):
            em.read_motives(path)
    path.write_bytes(em_bytes(np.zeros((1, 2, 3))))
    with pytest.raises(FormatError, match="not a motive list"):
        em.read_motives(path)


def model_bytes() -> bytes:
    def chunk(tag: bytes, *parts: bytes) -> bytes:
        return tag + b"".join(parts)

    def contour(points: list[list[float]]) -> bytes:
        return chunk(b"CONT", struct.pack(">4i", len(points), 0, 0, 0), np.array(points, ">f4").tobytes())

    head = b"IMODV1.2" + b"model".ljust(128, b"\0") + struct.pack(">4i", 100, 90, 40, 2) + bytes(64)
    head += struct.pack(">f2i", 1.35, -10, 0) + bytes(12)
    body = chunk(b"OBJT", b"first".ljust(176, b"\0")) + contour([[1, 2, 3], [4, 5, 6.5]]) + contour([[7, 8, 9]])
    body += chunk(b"MESH", struct.pack(">2iI2h", 1, 2, 0, 0, 0), bytes(12 + 8))
    body += chunk(b"OBJT", b"second".ljust(176, b"\0")) + chunk(b"IMAT", struct.pack(">i", 4), bytes(4))
    return head + body + contour([[10, 11, 12]]) + b"IEOF"


def test_models(tmp_path: Path) -> None:
    path, good = tmp_path / "points.mod", model_bytes()
    path.write_bytes(good)
    found = imod_model.read_model(path)
    assert found.points.tolist() == [[1, 2, 3], [4, 5, 6.5], [7, 8, 9], [10, 11, 12]]
    assert found.object_number.tolist() == [1, 1, 1, 2]
    assert found.contour_number.tolist() == [1, 1, 2, 1]
    assert found.object_names == ("first", "second")
    assert found.volume_size == (100, 90, 40)
    assert (found.pixel_size, found.pixel_unit) == (pytest.approx(1.35), "Å")
    for end in range(0, len(good), 5):
        path.write_bytes(good[:end])
        with pytest.raises(FormatError):
            imod_model.read_model(path)
    at = good.index(b"CONT") + 20
    path.write_bytes(good[:at] + np.array([np.nan], ">f4").tobytes() + good[at + 4 :])
    with pytest.raises(FormatError, match="object 1, contour 1"):
        imod_model.read_model(path)
    path.write_bytes(good.replace(b"IMAT", b"I\0\0T"))
    with pytest.raises(FormatError, match="damaged"):
        imod_model.read_model(path)
