"""Parser of RELION's STAR dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tiltwise.errors import FormatError
from tiltwise.io.star_block import StarBlock


class StarParser:
    """Lines of a STAR file to blocks; `at` is the 0-based index of the next line."""

    def __init__(self, lines: list[str], path: str) -> None:
        self.lines, self.path, self.at = lines, path, 0

    def blocks(self) -> tuple[list[StarBlock], list[str]]:
        """Blocks in file order, and the comment lines after the last one.

        Raises
        ------
        FormatError
            with the line, if the text is not in RELION's STAR dialect.
        """
        blocks: list[StarBlock] = []
        comments: list[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at].strip()
            if line.startswith("data_"):
                blocks.append(self._block(line, comments))
                comments = []
            elif not line or line.startswith("#"):
                if line:
                    comments.append(line)
                self.at += 1
            elif blocks:
                after = "a row after the blank line that ended the loop" if blocks[-1].kind == "loop" else "text"
                raise self._error(f"{after} belongs to no block", "data_NAME, a comment or a blank line", line)
            else:
                raise self._error("this is not a STAR file", "data_NAME as first line that is no comment", line)
        if not blocks:
            raise FormatError(
                "a STAR file has no block",
                where=self.path or None,
                expected="a line data_NAME",
                fix="give a STAR file: this one has no data",
            )
        return blocks, comments

    def _block(self, header: str, comments: list[str]) -> StarBlock:
        name = header.split("#", 1)[0].strip()[len("data_") :] if " #" in header else header[len("data_") :]
        self.at += 1
        while self.at < len(self.lines):
            line = self.lines[self.at].strip()
            if line.startswith(("loop_", "_", "data_")):
                break
            if line and not line.startswith("#"):
                raise self._error("a block starts with neither loop_ nor a label", "loop_ or _label", line)
            if line.startswith("#"):
                # A comment after data_NAME may belong to the next block: an empty block ends here.
                if self._next_is_block(self.at + 1):
                    return StarBlock(name, "list", {}, comments, self.path)
                comments.append(line)
            self.at += 1
        if self.at < len(self.lines) and self.lines[self.at].strip().startswith("loop_"):
            return self._loop_block(name, comments)
        return self._list_block(name, comments)

    def _list_block(self, name: str, comments: list[str]) -> StarBlock:
        columns: dict[str, list[str]] = {}
        numbers: list[int] = []
        while self.at < len(self.lines):
            line = self.lines[self.at].strip()
            if line.startswith("_"):
                label, _, rest = line[1:].partition(" ") if "\t" not in line else _partition(line[1:])
                tokens = self._tokens(rest, comments)
                if len(tokens) > 1:
                    raise self._error(f"_{label} has several values", "one value; quote it if it contains blanks", rest)
                self._add_label(columns, label)
                columns[label] = tokens or [""]
                numbers.append(self.at + 1)
            elif line.startswith("#"):
                if self._next_is_block(self.at + 1):
                    break
                comments.append(line)
            elif line:
                break
            self.at += 1
        if self.at < len(self.lines) and self.lines[self.at].strip().startswith("loop_"):
            raise self._error("a block has both single values and a loop", "data_NAME before loop_", "loop_")
        return StarBlock(name, "list", columns, comments, self.path, numbers)

    def _loop_block(self, name: str, comments: list[str]) -> StarBlock:
        self.at += 1
        columns: dict[str, list[str]] = {}
        while self.at < len(self.lines):
            line = self.lines[self.at].strip()
            if line.startswith("_"):
                label = line[1:].split(None, 1)[0] if line[1:].strip() else ""
                self._add_label(columns, label)
                columns[label] = []
            elif line.startswith("#"):
                if self._next_is_block(self.at + 1):
                    break
                comments.append(line)
            elif line:
                break
            self.at += 1
        if not columns:
            raise self._error("a loop has no labels", "_label #1", self.lines[min(self.at, len(self.lines) - 1)])
        values, numbers = self._rows(len(columns), comments)
        for i, label in enumerate(columns):
            columns[label] = values[i :: len(columns)]
        first = numbers[0] if numbers else 0
        contiguous = bool(numbers) and numbers[-1] - first + 1 == len(numbers)
        lines: Sequence[int] = range(first, first + len(numbers)) if contiguous else numbers
        return StarBlock(name, "loop", columns, comments, self.path, lines)

    def _rows(self, width: int, comments: list[str]) -> tuple[list[str], list[int]]:
        """Values row by row, and the line of every row.

        One list for all: a list per row would have the garbage collector look through 100 000 of them again and again.
        """
        values: list[str] = []
        numbers: list[int] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            plain = line.isascii() and not _SPECIAL.search(line)
            if not plain and line.lstrip().startswith("#") and self._next_is_block(self.at + 1):
                break
            tokens = line.split() if plain else self._tokens(line, comments)
            if len(tokens) != width or (width == 1 and tokens[0].startswith("data_")):
                stripped = line.strip()
                if not stripped:
                    break
                if stripped.startswith("#"):
                    self.at += 1
                    continue
                # `data_x 1 2` is a row whose first value happens to start like a block.
                if stripped.startswith("data_") and len(tokens) == 1 and (width > 1 or self._labels_follow()):
                    break
                if len(tokens) != width:
                    raise self._error(
                        "a row has the wrong number of values", f"{width} values", f"{len(tokens)}: {line}"
                    )
            values += tokens
            numbers.append(self.at + 1)
            self.at += 1
        return values, numbers

    def _tokens(self, line: str, comments: list[str]) -> list[str]:
        """Tokens of a line, quotes kept; a comment at its end goes to `comments`."""
        found: list[str] = []
        at = 0
        while match := _TOKEN.match(line, at):
            token = match.group(1)
            if token.startswith("#"):
                comments.append(line[match.start(1) :].rstrip())
                break
            if token[0] in "'\"" and (len(token) < 2 or token[-1] != token[0]):
                raise self._error("a quote is not closed", f"a closing {token[0]}", line.strip())
            found.append(token)
            at = match.end()
        return found

    def _labels_follow(self) -> bool:
        following = self._next_content(self.at + 1)
        return following.startswith(("loop_", "_"))

    def _next_is_block(self, start: int) -> bool:
        return self._next_content(start).startswith("data_") or not self._next_content(start)

    def _next_content(self, start: int) -> str:
        for i in range(start, len(self.lines)):
            line = self.lines[i].strip()
            if line and not line.startswith("#"):
                return line
        return ""

    def _add_label(self, columns: dict[str, list[str]], label: str) -> None:
        if not label:
            raise self._error("a label has no name", "_label", self.lines[self.at].strip())
        if label in columns:
            raise self._error(f"_{label} occurs twice in a block", "each label once", self.lines[self.at].strip())

    def _error(self, what: str, expected: str, found: str) -> FormatError:
        shown = found if len(found) <= 120 else found[:117] + "..."
        place = f"{self.path}, line {self.at + 1}" if self.path else f"line {self.at + 1}"
        return FormatError(
            what,
            where=place,
            expected=expected,
            found=shown,
            fix="correct the file here, or write it anew with the program that made it",
        )


_SPECIAL = re.compile(r"[#'\"\x1c-\x1f\x0b\x0c]")
# A quoted token ends at its quote followed by a blank; any other token ends at a blank.
_TOKEN = re.compile(r"[ \t]*(\"(?:[^\"]|\"(?![ \t]|$))*\"(?=[ \t]|$)|'(?:[^']|'(?![ \t]|$))*'(?=[ \t]|$)|[^ \t]+)")


def _partition(text: str) -> tuple[str, str, str]:
    label, *rest = text.split(None, 1)
    return label, " ", rest[0] if rest else ""
