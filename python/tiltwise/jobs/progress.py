"""What the user sees while a stage runs: on a terminal, in a log file, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from tiltwise.exec import Progress, Task
from tiltwise.exec.protocols import Scalar
from tiltwise.jobs.table import cell, lines

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_LOG_SECONDS = 30.0
_LOG_FRACTION = 0.05
_LOG_MINIMUM_SECONDS = 5.0


def choose_progress(*, quiet: bool, json: bool) -> Progress:
    """Progress for a command: silent if `quiet`, bars on a terminal, else plain lines.

    With `json`, standard output belongs to the summary and everything else goes to standard error.
    """
    stream = sys.stderr if json else sys.stdout
    if quiet:
        return SilentProgress(sys.stderr)
    return TerminalProgress(stream) if stream.isatty() else LineProgress(stream)


class _Counter:
    """Task that counts and shows nothing."""

    def advance(self, n: int = 1) -> None:
        """Count nothing."""


class SilentProgress:
    """Shows warnings alone, or nothing at all when made without a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def title(self, text: str, facts: Mapping[str, Scalar]) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Write the warning."""
        if self._stream is not None:
            print(f"warning: {text}", file=self._stream, flush=True)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Show nothing."""
        yield _Counter()

    def iteration(self, row: Mapping[str, Scalar]) -> None:
        """Show nothing."""


class LineProgress:
    """One line per 5 % or 30 seconds, without colours or carriage returns."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._first = True

    def title(self, text: str, facts: Mapping[str, Scalar]) -> None:
        """Write what runs and on how much data."""
        self._print("  ".join([text, *(f"{name} {cell(value)}" for name, value in facts.items())]))

    def note(self, text: str) -> None:
        """Write a sentence."""
        self._print(text)

    def warn(self, text: str) -> None:
        """Write a warning."""
        self._print(f"warning: {text}")

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Write how far the work is."""
        yield _LineTask(self._print, name, total)

    def iteration(self, row: Mapping[str, Scalar]) -> None:
        """Write a row, and the headings before the first one."""
        for line in lines(row, first=self._first):
            self._print(line)
        self._first = False

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class _LineTask:
    """Writes when enough work or time has passed; short tasks write nothing."""

    def __init__(self, write: Callable[[str], None], name: str, total: int) -> None:
        self._write, self._name, self._total = write, name, total
        self._done, self._shown = 0, 0
        self._began = self._last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count, and write a line if it is time."""
        self._done += n
        now = time.monotonic()
        enough = self._done - self._shown >= _LOG_FRACTION * self._total and now - self._last >= _LOG_MINIMUM_SECONDS
        if enough or now - self._last >= _LOG_SECONDS:
            share = 100.0 * self._done / max(self._total, 1)
            self._write(f"  {self._name}: {self._done}/{self._total} ({share:.0f} %), {now - self._began:.0f} s")
            self._shown, self._last = self._done, now


class TerminalProgress:
    """Bars for the work in progress, above them the table of iterations."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._first = True
        self._bars: Bars | None = None

    def title(self, text: str, facts: Mapping[str, Scalar]) -> None:
        """Print what runs and on how much data."""
        from rich.text import Text

        line = Text(text, style="bold")
        for name, value in facts.items():
            line.append(f"  {name} ", style="not bold dim").append(cell(value), style="not bold")
        self._console.print(line)

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._console.print(f"warning: {text}", markup=False, style="yellow")

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Show a bar while the block runs."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        if self._bars is not None:
            yield _BarTask(self._bars, name, total)
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=self._console, transient=True) as self._bars:
            try:
                yield _BarTask(self._bars, name, total)
            finally:
                self._bars = None

    def iteration(self, row: Mapping[str, Scalar]) -> None:
        """Print a row, and the headings before the first one."""
        for number, line in enumerate(lines(row, first=self._first)):
            self._console.print(line, markup=False, style="bold" if self._first and number == 0 else "", soft_wrap=True)
        self._first = False


class _BarTask:
    """One bar."""

    def __init__(self, bars: Bars, name: str, total: int) -> None:
        self._bars = bars
        self._id = bars.add_task(name, total=total)

    def advance(self, n: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._id, n)
