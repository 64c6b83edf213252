"""What the page shows, read from the job folders no more often than is cheap."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

from tiltwise.exec.events import NAME as EVENTS
from tiltwise.exec.events import last_events
from tiltwise.exec.records import JobRecord
from tiltwise.jobs.manifest import to_json
from tiltwise.jobs.records import find_jobs, lies_in, log_tail
from tiltwise.report.project import words

SHORTEST_S = 1.0
"""Seconds between two looks at the folders."""
SHARE = 10.0
"""Looking takes one of so many seconds at most."""
LINES = 12
"""Of the output or events of a job that has not finished."""
POINTS = 200
"""Of a sparkline."""


class ProjectState:
    """Jobs of a project; safe to ask from several threads."""

    def __init__(self, project: Path) -> None:
        self.project = project.resolve()
        self._lock = threading.Lock()
        self._records: dict[str, JobRecord] = {}
        self._text = "[]"
        self._due = 0.0

    def records(self) -> dict[str, JobRecord]:
        """Name of every job to its record, in the order in which they began."""
        return self._look()[0]

    def text(self) -> str:
        """JSON of what the cards show, newest job first."""
        return self._look()[1]

    def _look(self) -> tuple[dict[str, JobRecord], str]:
        with self._lock:
            began = time.monotonic()
            if began >= self._due:
                self._records = {one.name: one for one in find_jobs(self.project)}
                # Once for all who look on: every card asks the disk.
                cards = [card(one, self.project) for one in reversed(self._records.values())]
                self._text = to_json(cards)
                took = time.monotonic() - began
                self._due = began + max(SHORTEST_S, SHARE * took)
            return self._records, self._text


def card(one: JobRecord, project: Path) -> dict[str, Any]:
    """One job of a project for the page."""
    values = [row.get("fsc0143_angstrom", row.get("resolution_angstrom")) for row in one.iterations]
    unfinished = one.state != "finished"
    return {
        "name": one.name,
        "command": one.command,
        "program": one.program,
        "state": one.state,
        "started": one.started,
        "wall_s": None if one.wall_s is None else round(one.wall_s),
        "peak_memory_gb": one.peak_memory_gb,
        "resolution_angstrom": one.resolution_angstrom,
        "warnings": len(one.warnings),
        "words": words(one),
        "spark": [round(float(v), 3) for v in values if isinstance(v, (int, float)) and math.isfinite(v)][-POINTS:],
        "log": tail(one, project) if unfinished else [],
        "report": one.report is not None,
    }


def tail(one: JobRecord, project: Path) -> list[str]:
    """Last lines of the output where RELION keeps it, else of the events; only of files in the project."""
    lines = log_tail(one.folder, LINES, project)
    if lines or not lies_in(one.folder / EVENTS, project):
        return lines
    return [_line(event) for event in last_events(one.folder, LINES)]


def _line(event: dict[str, Any]) -> str:
    when = event.get("t")
    clock = time.strftime("%H:%M:%S", time.localtime(when)) if isinstance(when, (int, float)) else "        "
    rest = (f"{key} {_short(value)}" for key, value in event.items() if key not in ("t", "kind"))
    return f"{clock}  {event.get('kind', '')}  {'  '.join(rest)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:200]
