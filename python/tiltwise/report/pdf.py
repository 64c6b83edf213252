"""The figures of a report as a PDF file, which RELION's "Display" menu opens as the log file of a job.

Figures are pixels, which come with those of the page: drawing them anew as curves, and the fonts for them, would take
as long as the rest of a report.  Text is text, in the fonts that every reader has.
"""

from __future__ import annotations

import struct
import textwrap
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltwise.files import atomic_path
from tiltwise.report.html import Section, Summary

_WIDTH = 532.0
"""Of a page, points; margins come to it."""
_MARGIN = 14.0
_LINE, _SIZE = 13.5, 9.0
"""Distance of lines and size of their letters, points."""
_HEADING = 13.0
_COLUMNS = 104
"""Letters that fit into a line, at least on the average."""
_WORDS = str.maketrans({"→": "->", "−": "-", "≤": "<=", "≥": ">=", "≈": "~", "σ": "sigma", "τ": "tau", "λ": "lambda"})


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as a PNG file of 8 bit per colour, without transparency or interlace, and its width on paper."""

    png: bytes
    inches: float


def write_pdf(path: Path, title: str, summary: Summary, figures: Sequence[tuple[Section, Picture]]) -> None:
    """Write a page of text and a page for every figure: its title, the figure, what it means.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    file = _File()
    file.page(_WIDTH, _words(title, summary), None)
    for section, picture in figures:
        lines = [(_HEADING, section.title), (_SIZE, "")]
        below = [(_SIZE, line) for line in textwrap.wrap(section.caption, _columns(picture))]
        file.page(max(_WIDTH, 72.0 * picture.inches), lines, picture, below)
    with atomic_path(path) as temporary:
        temporary.write_bytes(file.content())


def _columns(picture: Picture) -> int:
    return round(_COLUMNS * max(_WIDTH, 72.0 * picture.inches) / _WIDTH)


def _words(title: str, summary: Summary) -> list[tuple[float, str]]:
    """Lines of the first page, with their sizes."""
    lines = [*textwrap.wrap(summary.sentence, _COLUMNS), ""]
    lines += [f"{name}: {value}" for name, value in summary.facts.items()]
    for warning in summary.warnings:
        lines += ["", *textwrap.wrap(f"Warning: {warning}", _COLUMNS)]
    if summary.next_command:
        lines += ["", "Next:", *textwrap.wrap(summary.next_command, _COLUMNS, break_on_hyphens=False)]
    lines += ["", "report.html in the same folder has the tables, and the data behind every figure."]
    heading = [(_HEADING, line) for line in textwrap.wrap(title, _COLUMNS * 2 // 3)]
    return [*heading, (_SIZE, ""), *((_SIZE, line) for line in lines)]


class _File:
    """Objects of a PDF file; numbers 1 to 3 are the catalogue, the pages and the font."""

    def __init__(self) -> None:
        self.objects: list[bytes] = [b"", b"", b""]
        self.pages: list[int] = []

    def add(self, words: str, data: bytes | None = None) -> int:
        """Number of a new object: a dictionary, or a stream with one."""
        body = f"<< {words} >>".encode("ascii")
        if data is not None:
            body = f"<< {words} /Length {len(data)} >>\nstream\n".encode("ascii") + data + b"\nendstream"
        self.objects.append(body)
        return len(self.objects)

    def page(
        self,
        width: float,
        above: Sequence[tuple[float, str]],
        picture: Picture | None,
        below: Sequence[tuple[float, str]] = (),
    ) -> None:
        """Add a page with lines, a picture, and lines."""
        tall, resources = 0.0, "/Font << /F1 3 0 R >>"
        if picture is not None:
            columns, rows, image = self._image(picture)
            across = 72.0 * picture.inches
            tall = across * rows / columns
            resources += f" /XObject << /Im {image} 0 R >>"
        height = sum(_height(size) for size, _ in (*above, *below)) + tall + 2 * _MARGIN + (_LINE if below else 0.0)
        y = height - _MARGIN
        parts, y = _lines(above, y)
        if picture is not None:
            y -= tall
            parts.append(f"q {across:.2f} 0 0 {tall:.2f} {_MARGIN:.2f} {y:.2f} cm /Im Do Q".encode("ascii"))
            y -= 0.5 * _LINE
        parts += _lines(below, y)[0]
        content = self.add("/Filter /FlateDecode", zlib.compress(b"\n".join(parts)))
        self.pages.append(
            self.add(
                f"/Type /Page /Parent 2 0 R /MediaBox [0 0 {width + 2 * _MARGIN:.2f} {height:.2f}] "
                f"/Resources << {resources} >> /Contents {content} 0 R"
            )
        )

    def _image(self, picture: Picture) -> tuple[int, int, int]:
        """Width and height in pixels, and number of the object: compressed rows of a PNG file are those of a PDF."""
        header, rows = b"", []
        for kind, data in _chunks(picture.png):
            if kind == b"IHDR":
                header = data
            elif kind == b"IDAT":
                rows.append(data)
        columns, lines, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
        if (depth, colour, interlace) != (8, 2, 0):
            raise ValueError("the picture is not a plain PNG file of three colours")
        number = self.add(
            f"/Type /XObject /Subtype /Image /Width {columns} /Height {lines} /ColorSpace /DeviceRGB "
            "/BitsPerComponent 8 /Filter /FlateDecode "
            f"/DecodeParms << /Predictor 15 /Colors 3 /BitsPerComponent 8 /Columns {columns} >>",
            b"".join(rows),
        )
        return columns, lines, number

    def content(self) -> bytes:
        """The file."""
        kids = " ".join(f"{number} 0 R" for number in self.pages)
        self.objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
        self.objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(self.pages)} >>".encode("ascii")
        self.objects[2] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
        text, places = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
        for number, body in enumerate(self.objects, 1):
            places.append(len(text))
            text += f"{number} 0 obj\n".encode("ascii") + body + b"\nendobj\n"
        table = "".join(f"{place:010d} 00000 n \n" for place in places)
        count = len(places) + 1
        end = f"xref\n0 {count}\n0000000000 65535 f \n{table}trailer\n<< /Size {count} /Root 1 0 R >>\n"
        return text + f"{end}startxref\n{len(text)}\n%%EOF\n".encode("ascii")


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and contents of the parts of a PNG file."""
    place = 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += length + 12


def _height(size: float) -> float:
    return _LINE * size / _SIZE


def _lines(lines: Sequence[tuple[float, str]], y: float) -> tuple[list[bytes], float]:
    """Commands that write lines of text from a height downwards, and the height after them."""
    parts = []
    for size, line in lines:
        y -= _height(size)
        text = _encoded(line).replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
        place = f"BT /F1 {size:g} Tf {_MARGIN:.2f} {y + 0.3 * size:.2f} Td (".encode("ascii")
        parts.append(place + text + b") Tj ET")
    return parts, y


def _encoded(line: str) -> bytes:
    """In the letters of the font; what it has not is written otherwise."""
    line = line.translate(_WORDS)
    result = b""
    for letter in line:
        try:
            result += letter.encode("cp1252")
        except UnicodeEncodeError:
            result += unicodedata.normalize("NFKD", letter).encode("ascii", "ignore") or b"?"
    return result
