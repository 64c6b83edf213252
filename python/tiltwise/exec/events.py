"""`events.jsonl`: one JSON object per line, from all runs of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tiltwise.exec.protocols import Scalar


def read_iterations(folder: Path) -> list[dict[str, Scalar]]:
    """Rows of the table of iterations from `events.jsonl`, without those that a later run did again."""
    rows: list[dict[str, Scalar]] = []
    for event in read_events(folder):
        if event.get("kind") == "start":
            rows = [row for row in rows if "iteration" in row]
        elif event.get("kind") == "iteration":
            row = {key: value for key, value in event.items() if key not in ("t", "kind")}
            number = row.get("iteration")
            if isinstance(number, (int, float)):
                rows = [one for one in rows if float(one["iteration"] or 0) < number]
            rows.append(row)
    return rows


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Events of a job; a line that is being written, or that was cut, is left out."""
    try:
        text = (folder / "events.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event
