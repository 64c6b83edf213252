"""Job folders of tiltwise and RELION, as they are found on a disk: nothing is written, nothing is locked."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiltwise.errors import FormatError, TiltwiseError
from tiltwise.exec.events import NAME as EVENTS
from tiltwise.exec.events import read_iterations
from tiltwise.exec.records import JobRecord, State
from tiltwise.io.star import read_star
from tiltwise.jobs import relion
from tiltwise.jobs.manifest import NAME, read_manifest
from tiltwise.jobs.process import is_another

DEPTH = 6
"""Folders below that of the project that are looked into."""
_SKIPPED = {"Trash", "node_modules", "__pycache__"}
_RELION_FILES = ("job.star", "job_pipeline.star", "note.txt")
_OTHERS = (EVENTS, "postprocess.star", "run_model.star", "ctf.json", "align.json")
"""Of which the list of jobs tells something."""
_RELION_FOLDER = re.compile(r"job\d{3,}")
_HEAD = 100_000
"""Characters of a star file of RELION that are read for its resolution."""
_STATES: Mapping[str, State] = {"success": "finished", "failure": "failed", "aborted": "stopped"}


def find_jobs(project: Path) -> list[JobRecord]:
    """All jobs below a folder in the order in which they started; RELION's without a date come by their names.

    A job whose records are links to files outside is in state `unknown`, and nothing of it is read.

    Raises
    ------
    FormatError
        if `project` is not a folder.
    """
    if not project.is_dir():
        raise FormatError("there is no such folder", where=str(project), fix="name the folder of a project or of a job")
    root = project.resolve()
    folders = filter(is_job, _folders(root, DEPTH))
    records = [record for folder in folders if (record := _elsewhere(folder, root) or read_record(folder, root))]
    return sorted(records, key=lambda one: (one.started or "", one.name))


def is_job(folder: Path) -> bool:
    """Whether a folder is that of a job."""
    if (folder / NAME).is_file():
        return True
    return bool(_RELION_FOLDER.fullmatch(folder.name)) and any((folder / name).is_file() for name in _RELION_FILES)


def read_record(folder: Path, project: Path) -> JobRecord | None:
    """The job in a folder of a project; None if the folder is none of a job.

    A manifest that cannot be read makes a record in state `unknown` with the error.
    """
    folder, name = folder.resolve(), _name(folder.resolve(), project.resolve())
    if not is_job(folder):
        return None
    try:
        manifest = read_manifest(folder)
    except TiltwiseError as error:
        return JobRecord(folder, name, "?", "tiltwise", "unknown", error=str(error))
    if manifest is None:
        return _of_relion(folder, name)
    try:
        return _of_tiltwise(folder, name, manifest)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):  # other programs have a job.json, too
        error_text = f"the manifest of a job cannot be read: {folder / NAME} is none of tiltwise"
        return JobRecord(folder, name, "?", "tiltwise", "unknown", error=error_text)


def log_tail(folder: Path, lines: int = 40, root: Path | None = None) -> list[str]:
    """Last lines of what RELION keeps of the output of a job: `run.err` after `run.out`.

    `root`: files that lie elsewhere, at the end of a link, are left out.
    """
    kept: list[str] = []
    for name in ("run.out", "run.err"):
        with suppress(OSError):
            path = (folder / name).resolve()
            if not path.is_file() or (root is not None and not lies_in(path, root)):
                continue
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 20_000))
                kept += file.read().decode("utf-8", "replace").splitlines()[-lines:]
    return kept[-lines:]


def lies_in(path: Path, root: Path) -> bool:
    """Whether a file lies below a folder once links are followed."""
    return path.resolve().is_relative_to(root.resolve())


def _elsewhere(folder: Path, root: Path) -> JobRecord | None:
    """A job with records that are links out of the project; None if all are its own."""
    for name in (NAME, *_RELION_FILES, *_OTHERS):
        path = folder / name
        if path.is_symlink() and not lies_in(path, root):
            text = (
                f"the record {name} is a link out of the project, and is not read: put a copy of the file in its place"
            )
            return JobRecord(folder, _name(folder, root), "?", "tiltwise", "unknown", error=text)
    return None


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders below `root`, itself first; links are not followed, so that an alias is not a second job."""
    yield root
    if depth == 0:
        return
    try:
        below = sorted(entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in below:
        if not name.startswith(".") and name not in _SKIPPED:
            yield from _folders(root / name, depth - 1)


def _name(folder: Path, root: Path) -> str:
    name = os.path.relpath(folder, root).replace(os.sep, "/")
    return folder.name if name == "." else name


def _of_tiltwise(folder: Path, name: str, manifest: dict[str, Any]) -> JobRecord:
    runs = manifest.get("runs") or [{}]
    error = manifest.get("error")
    state = _STATES.get(manifest.get("status", ""), "unknown")
    if manifest.get("status") == "running":
        state = "running" if _alive(folder, manifest) else "killed"
    walls = [run["wall_s"] for run in runs if run.get("wall_s") is not None]
    if state == "running" and runs[-1].get("started"):
        walls.append((datetime.now(UTC) - datetime.fromisoformat(runs[-1]["started"])).total_seconds())
    moved = _Moved(folder, manifest)
    memory = manifest.get("peak_memory_gb")
    return JobRecord(
        folder=folder,
        name=name,
        command=str(manifest["command"]),
        program="tiltwise",
        state=state,
        command_line=manifest.get("command_line", ""),
        started=runs[0].get("started"),
        wall_s=sum(walls) if walls else None,
        peak_memory_gb=None if memory is None else float(memory),
        metrics=dict(manifest.get("metrics", {})),
        parameters=manifest.get("parameters", {}),
        timings_s=dict(manifest.get("timings_s", {})),
        warnings=tuple(manifest.get("warnings", ())),
        error=None if error is None else str(error.get("message") or error.get("type")),
        inputs=_inputs(manifest, moved),
        outputs=tuple(moved.now(entry["path"]) for entry in manifest.get("outputs", ())),
        iterations=tuple(read_iterations(folder)),
        manifest=manifest,
    )


def _alive(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a job that says it runs can be running; one on another machine can unless its guard says no."""
    if (folder / relion.FAILURE).exists():  # written by the guard of a job that was killed
        return False
    process, host = manifest.get("pid"), manifest.get("host", {}).get("name")
    if host != socket.gethostname() or not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return not is_another(process, manifest.get("process_start"))


class _Moved:
    """Paths of a manifest after the project was moved: what was above the same part of its path moved with it."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.start = Path(manifest.get("working_directory", "."))
        output = manifest.get("parameters", {}).get("output", {}).get("value")
        old = Path(os.path.normpath(self.start / output)) if output else folder
        new = folder
        while old.name and old.name == new.name:
            old, new = old.parent, new.parent
        self.old, self.new = old, new

    def now(self, text: str) -> Path:
        """Where a file is now."""
        path = Path(os.path.normpath(self.start / text))
        if self.old != self.new and path.is_relative_to(self.old):
            path = self.new / path.relative_to(self.old)
        return path


def _inputs(manifest: Mapping[str, Any], moved: _Moved) -> tuple[Path, ...]:
    """Files that were read, and job folders that options name."""
    files = [moved.now(entry["path"]) for entry in manifest.get("inputs", ())]
    named = (one.get("value") for key, one in manifest.get("parameters", {}).items() if key != "output")
    folders = [moved.now(value) for value in named if isinstance(value, str) and value]
    return tuple(files + [path for path in folders if path.is_dir() and is_job(path)])


def _of_relion(folder: Path, name: str) -> JobRecord:
    markers: tuple[tuple[str, State], ...] = (
        (relion.SUCCESS, "finished"),
        (relion.FAILURE, "failed"),
        (relion.ABORTED, "stopped"),
    )
    state: State = next((state for marker, state in markers if (folder / marker).exists()), "unknown")
    project = folder.parent.parent
    inputs, outputs = _edges(folder, project)
    started, command = _note(folder)
    resolution = _relion_resolution(folder)
    return JobRecord(
        folder=folder,
        name=name,
        command=folder.parent.name,
        program="RELION",
        state=state,
        command_line=command,
        started=started,
        metrics={} if resolution is None else {"resolution_angstrom": resolution},
        inputs=inputs,
        outputs=outputs,
    )


def _edges(folder: Path, project: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Inputs and outputs from RELION's `job_pipeline.star`; paths there start at the project."""
    try:
        document = read_star(folder / "job_pipeline.star")
    except (TiltwiseError, OSError):
        return (), ()
    columns = (
        ("pipeline_input_edges", "rlnPipeLineEdgeFromNode"),
        ("pipeline_output_edges", "rlnPipeLineEdgeToNode"),
    )
    found = []
    for block, column in columns:
        here = document.get(block)
        names = here.text(column) if here is not None and column in here else []
        found.append(tuple(project / name for name in names))
    return found[0], found[1]


def _note(folder: Path) -> tuple[str | None, str]:
    """Date and command of the first run from RELION's `note.txt`."""
    try:
        lines = (folder / "note.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None, ""
    started = None
    for line in lines:
        found = re.search(r"\+\+\+\+ .* on (\w{3} \w{3} .*\d{4})\s*$", line)
        if found:
            with suppress(ValueError):
                started = datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y").astimezone(UTC).isoformat()
            break
    command = next((line.strip() for line in lines if line.strip() and not line.lstrip().startswith("++++")), "")
    return started, command


def _relion_resolution(folder: Path) -> float | None:
    """Of a post-processing or of a refinement that has ended."""
    for name, label in (("postprocess.star", "rlnFinalResolution"), ("run_model.star", "rlnCurrentResolution")):
        with suppress(OSError, ValueError), (folder / name).open(encoding="utf-8", errors="replace") as file:
            found = re.search(rf"^_{label}\s+(\S+)", file.read(_HEAD), re.MULTILINE)
            if found:
                return float(found[1])
    return None
