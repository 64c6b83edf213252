"""One block of a STAR file, with typed access to its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.star_text import format_number, format_vector, quote, unquote

T = TypeVar("T")
LARGEST = 1e30
"""A number beyond this is damage: nothing that is measured comes near, and its square would overflow."""
BlockKind = Literal["loop", "list"]


@dataclass(slots=True)
class StarBlock:
    """One `data_` block: a loop (a table) or a list (one value per label).

    `columns` maps a label to the exact text of its values, quotes included; a list has one value each.
    Use the typed accessors to read numbers, and the `set_` methods to change or add a column.
    """

    name: str
    kind: BlockKind
    columns: dict[str, list[str]]
    comments: list[str] = field(default_factory=lambda: ["# version 50001"])
    """comment lines before the block (and those found inside it)"""
    path: str = ""
    """file the block was read from, for messages"""
    lines: Sequence[int] = ()
    """1-based line of every row (loop) or label (list)"""

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def copy(self) -> StarBlock:
        """Copy that can be changed without changing this block."""
        columns = {label: list(values) for label, values in self.columns.items()}
        return StarBlock(self.name, self.kind, columns, list(self.comments), self.path, self.lines)

    def where(self, row: int | None = None, label: str | None = None) -> str:
        """File, line, block and column as text for an error message."""
        parts = [self.path or "(new document)"]
        if row is not None:
            index = row if self.kind == "loop" else list(self.columns).index(label) if label in self.columns else 0
            if 0 <= index < len(self.lines):
                parts[0] += f", line {self.lines[index]}"
        parts.append(f"block data_{self.name}")
        if label is not None:
            parts.append(f"column _{label}")
        return ", ".join(parts)

    def text(self, label: str) -> list[str]:
        """Values of a column without their quotes.

        Raises
        ------
        FormatError
            if the column is missing.
        """
        return [unquote(value) for value in self._column(label)]

    def floats(self, label: str) -> NDArray[np.float64]:
        """Values of a column as finite numbers, float64 (rows,).

        Raises
        ------
        FormatError
            if the column is missing, or a value is not a finite number.
        """
        column = self._column(label)
        try:
            if not _plain(column):
                raise ValueError(label)
            values = np.array(list(map(float, column)), np.float64)
        except ValueError:
            values = np.array([self._parse(_number, row, label, "a number") for row in range(len(column))], np.float64)
        usable = np.abs(values) <= LARGEST  # not NaN either
        if not usable.all():
            row = int(np.flatnonzero(~usable)[0])
            finite = bool(np.isfinite(values[row]))
            raise FormatError(
                "a number is too large" if finite else "a number is NaN or infinite",
                where=self.where(row, label),
                expected="a finite number",
                found=f"{column[row]} ({int((~usable).sum())} such rows)",
                fix="remove these rows, or repeat the job that wrote them",
            )
        return values

    def integers(self, label: str) -> NDArray[np.int64]:
        """Values of a column as whole numbers, int64 (rows,); `3` and `3.000000` are both accepted.

        Raises
        ------
        FormatError
            if the column is missing, or a value is not a whole number.
        """
        column = self._column(label)
        try:
            if not _plain(column):
                raise ValueError(label)
            return np.array(list(map(int, column)), np.int64)
        except (ValueError, OverflowError):
            return np.array([self._parse(_whole, row, label, "a whole number") for row in range(len(column))], np.int64)

    def vectors(self, label: str) -> list[NDArray[np.float64]]:
        """Values of a column of vectors such as `[1,2.5]`; `[]` gives an empty vector.

        Raises
        ------
        FormatError
            if the column is missing, or a value is not a vector of finite numbers.
        """
        cache: dict[str, NDArray[np.float64]] = {}
        result = []
        for row, value in enumerate(self._column(label)):
            vector = cache.get(value)
            if vector is None:
                vector = self._parse(_vector, row, label, "a vector [a,b,c] of finite numbers")
                cache[value] = vector
            result.append(vector)
        return result

    def value(self, label: str) -> str:
        """Only value of a column of a list or of a loop with one row, unquoted.

        Raises
        ------
        FormatError
            if the column is missing, or the block has several rows.
        """
        values = self.text(label)
        if len(values) != 1:
            raise FormatError(
                "a block has several rows where one value is needed",
                where=self.where(label=label),
                expected="one row",
                found=f"{len(values)} rows",
                fix="leave the row that is meant",
            )
        return values[0]

    def set_text(self, label: str, values: Sequence[str]) -> None:
        """Set or append a column of strings; quotes are added where needed."""
        self._set(label, [quote(value) for value in values])

    def set_floats(self, label: str, values: Iterable[float] | NDArray[np.floating]) -> None:
        """Set or append a column of numbers with at least six decimals (`format_number`)."""
        self._set(label, [format_number(value) for value in values])

    def set_integers(self, label: str, values: Iterable[int] | NDArray[np.integer] | NDArray[np.bool_]) -> None:
        """Set or append a column of whole numbers."""
        self._set(label, [str(int(value)) for value in values])

    def set_vectors(self, label: str, values: Iterable[Sequence[float] | NDArray[np.generic]]) -> None:
        """Set or append a column of vectors with 12 significant digits (`format_vector`)."""
        self._set(label, [format_vector(value) for value in values])

    def drop(self, *labels: str) -> None:
        """Remove columns where they exist."""
        for label in labels:
            self.columns.pop(label, None)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> StarBlock:
        """Copy with the given rows only, in the given order."""
        taken = self.copy()
        taken.columns = {label: [values[i] for i in rows] for label, values in self.columns.items()}
        taken.lines = [self.lines[i] for i in rows] if len(self.lines) == len(self) else ()
        return taken

    def _set(self, label: str, values: list[str]) -> None:
        if self.columns and len(values) != len(self):
            raise ValueError(f"column {label} has {len(values)} values, block data_{self.name} has {len(self)} rows")
        self.columns[label] = values

    def _column(self, label: str) -> list[str]:
        try:
            return self.columns[label]
        except KeyError:
            raise FormatError(
                f"a column is missing: _{label}",
                where=self.where(),
                expected=f"_{label}",
                found=" ".join(f"_{name}" for name in self.columns) or "no columns",
                fix="check that this is the right file, or add the column",
            ) from None

    def _parse(self, parse: Callable[[str], T], row: int, label: str, expected: str) -> T:
        value = self.columns[label][row]
        try:
            return parse(unquote(value))
        except ValueError:
            raise FormatError(
                "a value cannot be read",
                where=self.where(row, label),
                expected=expected,
                found=value or "nothing",
                fix="correct the value in this line",
            ) from None


def _plain(column: list[str]) -> bool:
    """Whether Python reads these numbers as everyone else: it takes 1_000 and digits of other scripts as well."""
    text = "".join(column)
    return text.isascii() and "_" not in text


def _number(value: str) -> float:
    if not _plain([value]):
        raise ValueError(value)
    return float(value)


def _whole(value: str) -> int:
    number = _number(value)
    if not abs(number) < 2**63 or number != int(number):
        raise ValueError(value)
    return int(number)


def _vector(value: str) -> NDArray[np.float64]:
    inner = value.strip()
    if not (inner.startswith("[") and inner.endswith("]")):
        raise ValueError(value)
    inner = inner[1:-1].strip()
    vector = np.array([float(part) for part in inner.split(",")] if inner else [], np.float64)
    if not (np.abs(vector) <= LARGEST).all():
        raise ValueError(value)
    return vector
