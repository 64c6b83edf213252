"""Lines and numbers of text files, with the file, line and column of whatever is wrong."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.star_block import LARGEST

MAX_LINE = 100_000
"""Characters of a line that still count as text; no program writes longer ones into the formats read here."""
MAX_WHOLE = 2**53
"""Whole numbers beyond this are not exact as floating-point numbers."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class TextFile:
    """Lines of a text file without their ends; `lines[i]` is line i + 1 of messages."""

    path: str
    lines: list[str]
    ends_with_newline: bool = True

    def rows(self, comment: str = "#") -> list[int]:
        """Indices of lines that are neither blank nor a comment."""
        return [i for i, line in enumerate(self.lines) if (text := line.lstrip()) and not text.startswith(comment)]

    def where(self, line: int, column: int | None = None) -> str:
        """File, 1-based line and column (characters) as text; `line` and `column` are 0-based."""
        place = f"{self.path}, line {line + 1}"
        return place if column is None else f"{place}, column {column + 1}"

    def error(
        self,
        what: str,
        line: int,
        column: int | None = None,
        *,
        expected: str | None = None,
        found: str | None = None,
        fix: str | None = None,
    ) -> FormatError:
        """Error about a place in the file; `found` is shortened."""
        shown = None if found is None else found if len(found) <= 120 else f"{found[:117]}..."
        return FormatError(what, where=self.where(line, column), expected=expected, found=shown, fix=fix)

    def column_of(self, line: int, token: int, separator: str | None = None) -> int:
        """0-based character at which a 0-based token of a line begins."""
        text = self.lines[line]
        if separator is not None:
            parts = text.split(separator)
            start = sum(len(part) + len(separator) for part in parts[:token])
            return start + len(text[start:]) - len(text[start:].lstrip())
        starts = [match.start() for match in re.finditer(r"\S+", text)]
        return starts[token] if token < len(starts) else len(text.rstrip())

    def number(
        self, line: int, token: str, name: str, *, column: int = 0, infinite: bool = False, whole: bool = False
    ) -> float:
        """Value of a token that begins at the 0-based character `column`.

        Raises
        ------
        FormatError
            if it is not a finite number (or, where that is asked for, not a whole one).
        """
        text = token.strip()
        if infinite and text.lower().lstrip("+") in ("inf", "infinity"):
            return math.inf
        wanted = f"{'a whole number' if whole else 'a number'} ({name})"
        if _NUMBER.fullmatch(text) is None:
            bad = text.lower().lstrip("+-") in ("nan", "inf", "infinity")
            what = "a number is NaN or infinite" if bad else "a value is not a number"
            raise self.error(what, line, column, expected=wanted, found=text or "nothing")
        value = float(text.replace("d", "e").replace("D", "e"))
        if not abs(value) <= (MAX_WHOLE if whole else LARGEST):
            raise self.error("a number is too large", line, column, expected=wanted, found=text)
        if whole and value != int(value):
            raise self.error("a number is not whole", line, column, expected=wanted, found=text)
        return value

    def tokens(self, line: int, names: Sequence[str], *, optional: int = 0, separator: str | None = None) -> list[str]:
        """Values of a line that must have one for every name, save the last `optional` ones.

        Raises
        ------
        FormatError
            if there are fewer or more.
        """
        found = self.lines[line].split(separator)
        least = len(names) - optional
        if least <= len(found) <= len(names):
            return found
        what = "a line has too few values" if len(found) < least else "a line has too many values"
        column = self.column_of(line, min(len(found), len(names)), separator)
        amount = f"{least}" if not optional else f"{least} to {len(names)}"
        raise self.error(
            what,
            line,
            column,
            expected=f"{amount} values: {' '.join(names)}",
            found=f"{len(found)}: {self.lines[line]}",
        )

    def table(
        self, rows: Sequence[int], names: Sequence[str], *, optional: int = 0, infinite: Iterable[str] = ()
    ) -> NDArray[np.float64]:
        """Numbers of lines of equal length, `(len(rows), columns)`; only columns in `infinite` may be infinite.

        Raises
        ------
        FormatError
            if there are no lines, if they differ in length, or if a value is not a finite number.
        """
        if not rows:
            raise self.empty(f"lines of {' '.join(names)}")
        width = len(self.tokens(rows[0], names, optional=optional))
        split = [self.lines[row].split() for row in rows]
        if all(len(tokens) == width for tokens in split):
            try:
                values = np.array([list(map(float, tokens)) for tokens in split], np.float64)
                # Python would take 1_000 and digits of other scripts as well.
                text = "".join(self.lines[row] for row in rows)
                if (np.abs(values) <= LARGEST).all() and text.isascii() and "_" not in text:
                    return values
            except ValueError:
                pass
        free = set(infinite)
        values = np.empty((len(rows), width))
        for i, (row, tokens) in enumerate(zip(rows, split, strict=True)):
            if len(tokens) != width:
                tokens = self.tokens(row, names[:width])
            for k, token in enumerate(tokens):
                column = self.column_of(row, k)
                values[i, k] = self.number(row, token, names[k], column=column, infinite=names[k] in free)
        return values

    def empty(self, expected: str) -> FormatError:
        """Error: nothing to read."""
        return FormatError(
            "a file has no rows",
            where=self.path,
            expected=expected,
            found="an empty file" if not any(line.strip() for line in self.lines) else "other lines only",
            fix="check that the program that writes it came to its end",
        )

    def count(self, found: int, expected: int | None, what: str) -> None:
        """Check a number of rows against what another file says (None: nothing is known).

        Raises
        ------
        FormatError
            if they differ.
        """
        if expected is not None and found != expected:
            raise FormatError(
                f"the number of {what} is not the one expected" if found > expected else f"{what} are missing",
                where=f"{self.path}, line {len(self.lines)}",
                expected=f"{expected} {what}",
                found=str(found),
                fix="check that the file is complete and belongs to this tilt series",
            )


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Contents of a file.

    Raises
    ------
    FormatError
        if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FormatError(
            "a file cannot be read", where=os.fspath(path), found=error.strerror or str(error), fix="check the path"
        ) from error


def read_text(path: str | os.PathLike[str]) -> TextFile:
    """Read a text file, UTF-8 or plain ASCII, whose lines end in LF or, all of them, in CR LF.

    Raises
    ------
    FormatError
        if it cannot be read, is UTF-16 or binary, mixes line ends, or has a line of more than `MAX_LINE` characters.
    """
    name = os.fspath(path)
    raw = read_bytes(path)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(
            "a text file is in UTF-16",
            where=f"{name}, line 1, column 1",
            expected="UTF-8 or plain ASCII",
            fix=f"iconv -f UTF-16 -t UTF-8 {Path(name).name} > converted",
        )
    at = raw.find(b"\0")
    if at >= 0:
        row, column = raw.count(b"\n", 0, at) + 1, at - raw.rfind(b"\n", 0, at)
        raise FormatError(
            "a text file holds zero bytes",
            where=f"{name}, line {row}, column {column}",
            expected="UTF-8 or plain ASCII",
            found="a binary file or UTF-16",
            fix="check the file name; convert UTF-16 with iconv",
        )
    text = raw.decode("utf-8-sig", "surrogateescape")
    lines = text.split("\n")
    complete = lines[-1] == ""
    if complete:
        lines.pop()
    file = TextFile(name, lines, complete)
    crlf = len(lines) > 0 and lines[0].endswith("\r")
    for i, line in enumerate(lines):
        body = line.removesuffix("\r")
        last = i == len(lines) - 1 and not complete
        if "\r" in body or ((body is not line) != crlf and not last) or (last and not crlf and body is not line):
            raise file.error(
                "line ends are mixed",
                i,
                body.find("\r") if "\r" in body else len(body),
                expected="LF everywhere, or CR LF everywhere",
                found="CR LF beside LF" if "\r" not in body else "a lone CR",
                fix=f"dos2unix {Path(name).name}, after a look at why the file was put together from two",
            )
        if len(line) > MAX_LINE:
            raise file.error(
                "a line is too long", i, MAX_LINE, expected=f"at most {MAX_LINE} characters", found=str(len(line))
            )
    if crlf:
        lines = [line.removesuffix("\r") for line in lines]
    return TextFile(name, lines, complete)
