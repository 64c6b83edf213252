"""Damaged files: every reader ends with a result or with an error that names the file, and never hangs or crashes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.readers import READERS, RELION4_PARTICLES, RELION4_TOMOGRAMS, Reader
from tiltwise.cli.main import main
from tiltwise.errors import DataError, FormatError

NUMBER = re.compile(r"(?<![\w.+-])[+-]?\d+(?:\.\d+)?(?![\w.])")


def sampled(count: int, most: int = 12) -> list[int]:
    """Some of `count` positions, both ends among them."""
    return sorted(set(np.linspace(0, count - 1, most).astype(int).tolist())) if count else []


def truncated(text: str) -> Iterator[bytes]:
    lines = text.splitlines(keepends=True)
    for n in sampled(len(lines)):
        yield "".join(lines[:n]).encode()
        yield ("".join(lines[:n]) + lines[n][: len(lines[n]) // 2]).encode()


def without_columns(text: str) -> Iterator[bytes]:
    for drop in (0, 1, -1):
        changed = []
        for line in text.splitlines():
            tokens = line.split()
            if len(tokens) > 2 and NUMBER.search(line):
                del tokens[drop]
                changed.append(" ".join(tokens))
            else:
                changed.append(line)
        yield "\n".join(changed).encode()
    # one row only
    lines = text.splitlines()
    rows = [i for i, line in enumerate(lines) if len(line.split()) > 2 and NUMBER.search(line)]
    for i in sampled(len(rows), 4):
        copy = list(lines)
        copy[rows[i]] = " ".join(copy[rows[i]].split()[:-1])
        yield "\n".join(copy).encode()


def replaced(text: str, by: str) -> Iterator[bytes]:
    found = list(NUMBER.finditer(text))
    for i in sampled(len(found), 16):
        yield (text[: found[i].start()] + by + text[found[i].end() :]).encode()


def line_ends(text: str) -> Iterator[bytes]:
    lines = text.splitlines()
    ends = ("\n", "\r\n", "\r")
    yield "".join(line + ends[i % 2] for i, line in enumerate(lines)).encode()
    yield "".join(line + ends[i % 3] for i, line in enumerate(lines)).encode()
    yield "\r\n".join(lines).encode()


def encoded(text: str) -> Iterator[bytes]:
    yield text.encode("utf-16")
    yield text.encode("utf-16-be")
    yield b"\xef\xbb\xbf" + text.encode()
    yield text.encode()[:200] + b"\xff\xfe\x00" + text.encode()[200:]
    yield b""
    yield b"\x00" * 4096
    yield bytes(np.random.default_rng(5).integers(0, 256, 4096, dtype=np.uint8))


def long_lines(text: str) -> Iterator[bytes]:
    lines = text.splitlines()
    middle = len(lines) // 2
    yield ("\n".join(lines[:middle]) + "\n" + "1.5 " * 2_500_000 + "\n" + "\n".join(lines[middle:])).encode()
    yield ("x" * 10_000_000).encode()


DAMAGES: dict[str, Callable[[str], Iterator[bytes]]] = {
    "truncated": truncated,
    "columns": without_columns,
    "text": lambda text: replaced(text, "12o.5"),
    "nan": lambda text: replaced(text, "nan"),
    "infinite": lambda text: replaced(text, "1e999"),
    "huge": lambda text: replaced(text, "-1e308"),
    "line ends": line_ends,
    "encoding": encoded,
    "long lines": long_lines,
}


def read_damaged(reader: Reader, folder: Path, content: bytes) -> str | None:
    """Message of the error, or None where the file is read after all."""
    path = folder / f"damaged{reader.suffix}"
    path.write_bytes(content)
    try:
        reader.read(path)
    except (FormatError, DataError) as error:
        return str(error)
    return None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared(reader: Reader, folder: Path) -> None:
    for name, text in reader.beside:
        (folder / name).write_text(text)
    assert read_damaged(reader, folder, reader.sample.encode()) is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files(reader: Reader, damage: str, folder: Path) -> None:
    prepared(reader, folder)
    messages = [read_damaged(reader, folder, content) for content in DAMAGES[damage](reader.sample)]
    errors = [message for message in messages if message is not None]
    assert [message for message in errors if f"damaged{reader.suffix}" not in message] == []
    assert [message for message in errors if len(message) > 2000] == []
    if damage in ("text", "nan", "infinite", "huge") or (errors and damage == "columns"):  # such a value is at a line
        assert any("line " in message for message in errors), errors


@pytest.mark.parametrize(
    "reader", [reader for reader in READERS if reader.suffix == ".star"], ids=lambda reader: reader.name
)
def test_line_ends_of_star_files_do_not_matter(reader: Reader, folder: Path) -> None:
    prepared(reader, folder)
    assert [read_damaged(reader, folder, content) for content in line_ends(reader.sample)] == [None] * 3


def test_no_output_of_a_damaged_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tomograms.star").write_text(RELION4_TOMOGRAMS)
    (folder / "particles.star").write_text(RELION4_PARTICLES.replace("103.5", "nan"))
    assert main(["import", "--i", "particles.star", "--t", "tomograms.star", "--o", "out"]) == 3
    assert not list((folder / "out").glob("*.star"))
    message = capsys.readouterr().err
    assert "particles.star, line " in message
    assert "column _rlnCoordinateX" in message
