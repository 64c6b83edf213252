"""`events.jsonl`: one JSON object per line, from all runs of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from tiltwise.exec.protocols import Scalar

NAME = "events.jsonl"
Row = TypeVar("Row", bound=Mapping[str, Scalar])
_TAIL_BYTES = 64_000
"""Of the file, for its last events."""


def read_iterations(folder: Path) -> list[dict[str, Scalar]]:
    """Rows of the table of iterations from `events.jsonl`, without those that a later run did again."""
    rows: list[dict[str, Scalar]] = []
    for event in read_events(folder, ("start", "iteration")):
        if event["kind"] == "start":
            rows = [row for row in rows if "iteration" in row]
        else:
            rows = with_row(rows, {key: value for key, value in event.items() if key not in ("t", "kind")})
    return rows


def with_row(rows: Sequence[Row], row: Row) -> list[Row]:
    """Rows and a new one, which takes the place of those of its stage that are not before it.

    Rows without a number, as those of a cycle, are all kept.
    """
    number = row.get("iteration")
    if not isinstance(number, (int, float)):
        return [*rows, row]

    def is_before(one: Row) -> bool:
        other = one.get("iteration")
        return not isinstance(other, (int, float)) or other < number or one.get("stage") != row.get("stage")

    return [*filter(is_before, rows), row]


def read_events(folder: Path, kinds: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Events of a job, of some kinds or of all; a line that is being written, or that was cut, is left out.

    The file is read line by line, and lines of other kinds are not parsed: long jobs have long files.
    """
    marks = [f'"kind": "{kind}"' for kind in kinds]  # as `FolderJob.event` writes it
    try:
        with (folder / NAME).open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if marks and not any(mark in line for mark in marks):
                    continue
                event = _event(line)
                if event is not None and (not kinds or event.get("kind") in kinds):
                    yield event
    except OSError:
        return


def last_events(folder: Path, count: int) -> list[dict[str, Any]]:
    """The last events of a job, at most `count`, however long the file is."""
    try:
        with (folder / NAME).open("rb") as file:
            start = max(0, file.seek(0, 2) - _TAIL_BYTES)
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").split("\n")[1 if start else 0 :]
    except OSError:
        return []
    return [event for line in lines if (event := _event(line)) is not None][-count:]


def _event(line: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return None
