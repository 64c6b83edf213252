"""Protocols through which a stage talks to whoever runs it.

A stage has the form `run(options, job, progress) -> result`.  `tiltwise.jobs` implements the protocols
with a folder and a terminal; a test or a notebook may pass its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

Scalar = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State saved by an earlier run: named arrays and a dictionary that JSON can hold."""

    arrays: dict[str, NDArray[Any]]
    state: dict[str, Any]


class Job(Protocol):
    """The folder of one run, its manifest and its checkpoints."""

    @property
    def folder(self) -> Path:
        """Folder of the results; it exists."""
        ...

    def path(self, name: str) -> Path:
        """Path of a file in the folder.  Write it through `tiltwise.files.atomic_path` or `tiltwise.io`."""
        ...

    def check_abort(self) -> None:
        """Raise `Aborted` if the run was asked to stop.  Call it at least every few seconds of work."""
        ...

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to `events.jsonl`."""
        ...

    def iteration(self, row: Mapping[str, Scalar]) -> None:
        """Record one iteration: an event of kind `iteration` and a row of the table on the terminal.

        Keys carry units, `resolution_angstrom`, `angular_step_deg`; all rows of a run have the same keys.
        """
        ...

    def warn(self, message: str) -> None:
        """Record a warning in the manifest and show it."""
        ...

    def metric(self, name: str, value: Scalar) -> None:
        """Record a result of the run, `resolution_angstrom`, in the manifest."""
        ...

    def add_input(self, path: Path | str) -> None:
        """Record an input file with its size and time of change."""
        ...

    def add_output(self, path: Path | str, label: str | None = None) -> None:
        """Record an output file; `label` is its RELION node type, `DensityMap.mrc.relion.refine3d`."""
        ...

    def timing(self, name: str) -> AbstractContextManager[None]:
        """Add the wall time of a block to the timings of the manifest, summed over blocks of one name."""
        ...

    def save_checkpoint(self, name: str, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint `name` atomically; `state` must be plain JSON."""
        ...

    def load_checkpoint(self, name: str) -> Checkpoint | None:
        """Checkpoint of an earlier run with the same options, or None to start from the beginning."""
        ...

    def drop_checkpoint(self, name: str) -> None:
        """Remove the checkpoint `name`, if there is one."""
        ...


class Task(Protocol):
    """A countable piece of work, shown as a bar or as lines."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        ...


class Progress(Protocol):
    """What the user sees while a stage runs."""

    def title(self, text: str, facts: Mapping[str, Scalar]) -> None:
        """One line at the start: what runs and on how much data."""
        ...

    def note(self, text: str) -> None:
        """A sentence worth reading."""
        ...

    def warn(self, text: str) -> None:
        """A sentence that must be read.  Stages call `Job.warn`, which also records it."""
        ...

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """Show a piece of work of `total` units while the block runs."""
        ...

    def iteration(self, row: Mapping[str, Scalar]) -> None:
        """One row of the table of iterations.  Stages call `Job.iteration`, which also records it."""
        ...
