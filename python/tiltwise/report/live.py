"""The report of a job while it runs: rewritten as the job goes, and the last word on a job that fails or is stopped.

`LiveReport` stands between a stage and the terminal as its `Progress`: what the stage tells people is what the page
tells.  Rewriting takes at most `SHARE` of the time, and drawing as much again: a job of a few seconds has a page
without figures, one of hours has fresh ones every few minutes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tiltwise.errors import Aborted, TiltwiseError
from tiltwise.exec import Progress, Task
from tiltwise.exec.events import read_iterations, with_row
from tiltwise.exec.protocols import Scalar
from tiltwise.report import pages
from tiltwise.report.html import Cell, Link, PageState, Section, Summary, Table, drawn, write_report
from tiltwise.report.live_figures import Figures, figures_of
from tiltwise.report.units import duration

SHARE = 0.005
"""Of the time of a job, for pages; the same for figures."""
AT_LEAST_S = 2.0
"""Between two pages: a reader is no faster."""
FIRST_FIGURES_S = 1.0
"""What figures are taken to cost before they were drawn once."""
RELOAD_S = (5, 60)
"""Shortest and longest time after which a page loads itself again."""
_NOTES, _STEPS = 40, 60
"""Most lines of the cards."""


@dataclass(slots=True, eq=False)
class _Step:
    """A countable piece of work, or (`total` 0) a job inside this one."""

    name: str
    total: int
    began: float
    href: str = ""
    done: int = 0
    seconds: float | None = None
    """None: not ended"""
    failed: bool = False

    def words(self, now: float) -> str:
        """What is being done, and when it will end."""
        if not self.total:
            return self.name
        text = f"{self.name}: {self.done:,} of {self.total:,}"
        if 0 < self.done < self.total:
            text += f", about {duration((now - self.began) / self.done * (self.total - self.done))} left"
        return text

    def row(self, now: float) -> list[Cell]:
        """Line of the table."""
        state = "running" if self.seconds is None else "failed" if self.failed else "done"
        seconds = now - self.began if self.seconds is None else self.seconds
        units = f"{self.done:,} of {self.total:,}" if self.total else ""
        return [Link(self.name, self.href) if self.href else self.name, state, units, duration(seconds)]


class LiveReport:
    """A `Progress` that passes everything on to another, and keeps a page of it from `begin` on.

    Parameters
    ----------
    progress
        what the user sees.
    clock
        seconds that never go back.
    figures
        figures of a job from the files in its folder; None: those that are made for its command.
    """

    def __init__(
        self, progress: Progress, clock: Callable[[], float] = time.monotonic, figures: Figures | None = None
    ) -> None:
        self._progress, self._clock, self._figures = progress, clock, figures
        self._path: Path | None = None
        self._content: Mapping[str, Any] = {}
        self._facts: dict[str, str] = {}
        self._notes: list[str] = []
        self._rows: list[Mapping[str, Scalar]] = []
        self._steps: list[_Step] = []
        self._open: list[_Step] = []
        self._inside = 0
        self._pictures: list[Section] = []
        self._began = self._written = self._drawn = 0.0
        self._cost, self._drawing = 0.0, FIRST_FIGURES_S
        self._stale = True

    # ---- the life of the page ---------------------------------------------------------------------------

    def begin(self, path: Path, content: Mapping[str, Any], *, anew: bool = False) -> None:
        """Write the first page to `path`; `content` is the manifest of the job, which the job keeps up to date.

        `anew`: rows of earlier runs do not count.
        """
        self._path, self._content = path, content
        self._rows = [] if anew else [*read_iterations(path.parent)]
        if self._figures is None:
            self._figures = figures_of(content["command"])
        self._began = self._drawn = self._clock()
        self._write()

    def end(self, error: BaseException) -> None:
        """Write why the job stopped, with all that was found until then.  An error here never hides `error`."""
        if self._path is None:
            return
        if isinstance(error, (Aborted, KeyboardInterrupt)):
            state = PageState("stopped", str(error) or "The job was stopped at once.")
        else:
            known = isinstance(error, TiltwiseError)
            state = PageState("failed", str(error) if known else f"{type(error).__name__}: {error}\nSee crash.txt.")
        try:
            if not isinstance(error, KeyboardInterrupt):
                self._draw()
            self._write(state)
        except Exception:  # the disk is full, or memory: the terminal and the manifest have the error
            self._path = None

    def finish(self) -> None:
        """Leave the page to the report of what was found."""
        self._path = None

    @contextmanager
    def part(self, name: str, folder: Path) -> Iterator[None]:
        """A job inside this one, with a page of its own: its rows and its work are told there."""
        href = ""
        if self._path is not None:
            place = os.path.relpath((folder / "report.html").resolve(), self._path.parent.resolve())
            href = quote(place.replace(os.sep, "/"))
        self._inside += 1
        try:
            with self._step(name, 0, href):
                yield
        finally:
            self._inside -= 1

    # ---- Progress -----------------------------------------------------------------------------------------

    def title(self, text: str, facts: Mapping[str, Scalar]) -> None:
        """Pass on; the facts head the page."""
        self._progress.title(text, facts)
        if not self._inside:
            self._facts = dict(_fact(name, value) for name, value in facts.items())
        self._tick()

    def note(self, text: str) -> None:
        """Pass on, and keep for the page."""
        self._progress.note(text)
        if not self._inside:
            self._notes.append(text)
        self._tick()

    def warn(self, text: str) -> None:
        """Pass on; the manifest has the warning."""
        self._progress.warn(text)
        self._tick()

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Pass on, and count along."""
        with self._progress.task(name, total) as task, self._step(name, total) as step:
            yield _Task(task, step, self._tick)

    def iteration(self, row: Mapping[str, Scalar]) -> None:
        """Pass on, and keep the row."""
        self._progress.iteration(row)
        if not self._inside:
            self._rows = with_row(self._rows, row)  # a later run does some again
        self._stale = True
        self._tick()

    # ---- writing ------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, name: str, total: int, href: str = "") -> Iterator[_Step]:
        step = _Step(name, total, self._clock(), href)
        if href or not self._inside:
            self._steps.append(step)
        self._open.append(step)
        self._tick()
        try:
            yield step
        except BaseException:
            step.failed = True
            raise
        finally:
            step.seconds = self._clock() - step.began
            self._open.remove(step)
            self._stale = True

    def _tick(self) -> None:
        """Write the page again if that is cheap enough by now."""
        if self._path is None:
            return
        now = self._clock()
        if now - self._written < max(AT_LEAST_S, self._cost / SHARE):
            return
        try:
            if self._stale and now - self._drawn >= self._drawing / SHARE:
                self._draw()
            self._write()
        except Exception as error:
            # A page is not worth a job: a disk too full for it may still have room for a checkpoint.
            self._path = None
            reason = (str(error) or type(error).__name__).splitlines()[0]
            self._progress.warn(f"the report is not kept up to date: {reason}")

    def _draw(self) -> None:
        assert self._path is not None
        began = self._clock()
        try:
            sections = self._iterations() + ([] if self._figures is None else self._figures(self._path.parent))
            self._pictures = [drawn(section) for section in sections]
        except Exception:  # files that are being written, or not as they should be: the page goes on with what it has
            self._figures = None
        self._drawn = self._clock()
        self._drawing = self._drawn - began
        self._stale = False

    def _iterations(self) -> list[Section]:
        if not self._rows:
            return []
        if all({"iteration", "fsc0143_angstrom"} <= row.keys() for row in self._rows):
            return [pages.iterations_section(self._rows, None)]
        columns = list(self._rows[-1])
        rows = [[row.get(column) for column in columns] for row in self._rows]
        return [Section("Rounds", "What each round changed.", table=Table(columns, rows), shape="wide")]

    def _write(self, state: PageState | None = None) -> None:
        assert self._path is not None
        began = self._clock()
        if state is None:
            pause = duration(max(AT_LEAST_S, self._cost / SHARE))
            words = (
                f"{self._now(began)}\nThis page is written anew when there is news and {pause} have passed, figures "
                "every few minutes. Worry if the time below is long ago: then the machine may be down."
            )
            state = PageState("running", words, self._reload())
        content = self._content
        facts = {**self._facts, "time": duration(began - self._began), "peak memory": _gigabytes(content)}
        sentence = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC."
        summary = Summary(
            sentence,
            {name: value for name, value in facts.items() if value},
            content["warnings"],
            "" if state.kind == "running" else content["command_line"],
            state,
        )
        sections = self._pictures + self._cards(began) + pages.provenance_sections(content)
        command = str(content["command"])
        write_report(self._path, f"{command[0].upper()}{command[1:]} {self._path.parent}", summary, sections)
        self._written = self._clock()
        self._cost = self._written - began

    def _cards(self, now: float) -> list[Section]:
        sections: list[Section] = []
        if self._steps:
            rows = [step.row(now) for step in self._steps[-_STEPS:]]
            sections.append(Section("Work", table=Table(["", "state", "units", "time"], rows)))
        if self._notes:
            lines: Sequence[Sequence[Cell]] = [[line] for line in self._notes[-_NOTES:]]
            sections.append(Section("What it says", table=Table([""], lines)))
        return sections

    def _now(self, now: float) -> str:
        """What it is doing, from the outside in."""
        return "; ".join(step.words(now) for step in self._open) or "begins"

    def _reload(self) -> int:
        low, high = RELOAD_S
        return round(min(max(low, 2 * self._cost / SHARE), high))


@dataclass(slots=True)
class _Task:
    """Counts for the page, and for the one who is asked to."""

    task: Task
    step: _Step
    tick: Callable[[], None]

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        self.task.advance(n)
        self.step.done += n
        self.tick()


_UNITS = {"_angstrom": " Å", "_px": " px", "_deg": "°", "_gb": " GB"}


def _fact(name: str, value: Scalar) -> tuple[str, str]:
    """Name and value of a fact for people: `box_px`, 32 is a box of 32 px."""
    unit = next((end for end in _UNITS if name.endswith(end)), "")
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
    return name.removesuffix(unit).replace("_", " "), text + _UNITS.get(unit, "")


def _gigabytes(content: Mapping[str, Any]) -> str:
    value = content.get("peak_memory_gb")
    return "" if value is None else f"{value:.2f} GB"
