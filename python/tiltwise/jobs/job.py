"""The folder of one run.

    with FolderJob(options, command_line, progress) as job:
        result = run(options, job, progress)

On entry the folder is made and checked, an earlier run of the same command is continued or the reason
why it cannot be is raised, and stale markers are removed.  However the block ends, the manifest and one of
RELION's exit markers are written.
"""

from __future__ import annotations

import os
import shlex
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from tiltwise import __version__
from tiltwise.config import OutputOptions
from tiltwise.errors import Aborted, ConfigError, OutputError, TiltwiseError
from tiltwise.exec import Checkpoint, Progress
from tiltwise.exec.protocols import Scalar
from tiltwise.files import remove_leftovers, write_error
from tiltwise.jobs import manifest, relion
from tiltwise.jobs.checkpoint import read_checkpoint, write_checkpoint
from tiltwise.jobs.guard import Guard
from tiltwise.jobs.interrupt import Interrupts
from tiltwise.jobs.lock import FolderLock
from tiltwise.jobs.peak_memory import PeakMemory
from tiltwise.jobs.process import process_start

_REQUEUE_SIGNALS = ("SIGTERM", "SIGUSR1")
_EXIT_REQUEUE = 75


class FolderJob:
    """Implementation of `tiltwise.exec.Job` with a folder.

    Parameters
    ----------
    options
        options of the command; `output` is the folder, `redo` discards the checkpoints of an earlier run and
        overrules the reasons that forbid to continue it.
    command_line
        as typed, for the manifest and `note.txt`.
    progress
        shows warnings and iterations.
    """

    def __init__(self, options: OutputOptions, command_line: Sequence[str], progress: Progress) -> None:
        folder = options.output
        self.options = options
        self._folder = folder
        self._command_line = shlex.join(command_line)
        self._progress = progress
        self._state = folder / ".state"
        self._events = folder / "events.jsonl"
        self._interrupts = Interrupts(
            [folder / name for name in relion.ABORT_FILES],
            lambda name: progress.note(f"{name}: stopping at the next safe point, once more Ctrl-C stops at once"),
        )
        self._began = 0.0
        self._saved = False
        self._content: dict[str, Any] = {}
        self._memory: PeakMemory | None = None

    # ---- entry and exit ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._make_folder()
        self._lock = FolderLock(self._state / "lock")
        self._lock.acquire()
        try:
            found = manifest.read_manifest(self._folder)
            if found is not None:
                self._refuse_other_command(found)
            previous = None if self.options.redo else found
            if previous is not None:
                self._check_resume(previous)
            if previous is None or not self._may_continue(previous):
                self._drop_checkpoints()
            if previous is not None and previous.get("status") == "running":  # it was killed
                for folder in (self._folder, self._state):
                    remove_leftovers(folder)
            relion.clear_markers(self._folder)
            self._memory = PeakMemory()
            self._begin(previous)
            self._guard = Guard(self._folder)
        except BaseException:
            if self._memory is not None:
                self._memory.close()
            self._lock.release()
            raise
        self._interrupts.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.stop()
        if isinstance(error, Aborted) and self._saved and self._interrupts.reason in _REQUEUE_SIGNALS:
            error.exit_code = _EXIT_REQUEUE
        if error is None:
            marker, status = relion.SUCCESS, "success"
        elif isinstance(error, (Aborted, KeyboardInterrupt)):
            marker, status = relion.ABORTED, "aborted"
        else:
            marker, status = relion.FAILURE, "failure"
        try:
            self._finish(status, error)
        except BaseException as trouble:
            marker = relion.FAILURE
            # An error of the run must not be hidden by a disk too full to describe it.
            if error is None or not isinstance(trouble, OSError):
                raise
        finally:
            for name in relion.ABORT_FILES:
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()
            with suppress(OSError):
                relion.write_marker(self._folder, marker)
            self._guard.dismiss()
            if self._memory is not None:
                self._memory.close()
            self._lock.release()

    def _make_folder(self) -> None:
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            probe = self._folder / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except FileExistsError as error:
            raise OutputError(
                "the job folder cannot be made: there is a file of that name",
                where=f"--o {self._folder}",
                fix="choose another --o",
            ) from error
        except OSError as error:
            reason = write_error(self._folder, error)
            raise OutputError(
                "the job folder cannot be written", where=f"--o {self._folder}", found=reason.found, fix=reason.fix
            ) from error

    def _begin(self, previous: dict[str, Any] | None) -> None:
        self._began = time.monotonic()
        runs = [] if previous is None else list(previous.get("runs", []))
        runs.append({"started": manifest.now(), "finished": None, "status": "running", "wall_s": None})
        self._content = {
            "command": self.options.command,
            "command_line": self._command_line,
            "working_directory": str(Path.cwd()),
            "status": "running",
            "program": manifest.describe_program(),
            "host": manifest.describe_host(),
            "pid": os.getpid(),
            "process_start": process_start(os.getpid()),
            "parameters": self.options.parameters(),
            "inputs": [],
            "outputs": [],
            "metrics": {},
            "warnings": [],
            "timings_s": {},
            "wall_s": None,
            "peak_memory_gb": None,
            "error": None,
            "runs": runs,
        }
        for spec in self.options.specs():
            value = getattr(self.options, spec.name)
            if spec.kind is Path and value is not None and value.is_file():
                self._content["inputs"].append(manifest.describe_file(value))
        manifest.write_manifest(self._folder, self._content)
        with (self._folder / "note.txt").open("a", encoding="utf-8") as note:
            note.write(f" ++++ tiltwise {__version__} at {runs[-1]['started']}\n{self._command_line}\n\n")
        self.event("start", command=self.options.command, version=__version__, run=len(runs))

    def _finish(self, status: str, error: BaseException | None) -> None:
        wall = round(time.monotonic() - self._began, 3)
        self._content["status"] = status
        self._content["wall_s"] = wall
        self._content["peak_memory_gb"] = self._peak_gb()
        self._content["runs"][-1].update(finished=manifest.now(), status=status, wall_s=wall)
        if error is not None:
            self._content["error"] = {"type": type(error).__name__, "message": str(error)}
            if not isinstance(error, (TiltwiseError, KeyboardInterrupt)):
                self.path("crash.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        else:
            for entry in self._content["outputs"]:
                entry.update(manifest.describe_file(Path(entry["path"])))
            nodes = [(entry["path"], entry["label"]) for entry in self._content["outputs"] if entry["label"]]
            if nodes:
                relion.write_output_nodes(self._folder, nodes)
        manifest.write_manifest(self._folder, self._content)
        self.event("done", status=status, wall_s=wall, error=self._content["error"])

    def _peak_gb(self) -> float:
        """Largest memory while this job ran."""
        return 0.0 if self._memory is None else round(self._memory.gb, 3)

    # ---- continuing -------------------------------------------------------------------------------------

    def is_finished(self) -> bool:
        """Whether an earlier run with the same options and inputs ended well and its outputs are as it left them."""
        previous = manifest.read_manifest(self._folder)
        if previous is None or previous["command"] != self.options.command or previous.get("status") != "success":
            return False
        outputs = [{k: entry[k] for k in ("path", "bytes", "mtime")} for entry in previous["outputs"]]
        return self._may_continue(previous) and all(
            manifest.describe_file(Path(entry["path"])) == entry for entry in outputs
        )

    def _may_continue(self, previous: Mapping[str, Any]) -> bool:
        return self._reasons(previous) == []

    def _reasons(self, previous: Mapping[str, Any]) -> list[str]:
        """Everything that makes the earlier results belong to another calculation."""
        reasons = self.options.differences(previous.get("parameters", {}))
        version = previous.get("program", {}).get("tiltwise")
        if version != __version__:
            reasons.append(f"tiltwise: was {version}, now {__version__}")
        for entry in previous.get("inputs", []):
            if manifest.describe_file(Path(entry["path"])) != entry:
                reasons.append(f"input {entry['path']}: changed since")
        return reasons

    def _refuse_other_command(self, previous: Mapping[str, Any]) -> None:
        if previous["command"] != self.options.command:
            raise ConfigError(
                "the job folder belongs to another command",
                where=f"--o {self._folder}",
                expected=f"a folder of `tiltwise {self.options.command}`, or a new one",
                found=f"`tiltwise {previous['command']}`",
                fix="choose another --o",
            )

    def _check_resume(self, previous: Mapping[str, Any]) -> None:
        worth_keeping = previous.get("status") == "success" or any(self._state.glob("*.npz"))
        reasons = self._reasons(previous)
        if worth_keeping and reasons:
            raise ConfigError(
                "the job folder holds results of a different calculation",
                where=f"--o {self._folder}",
                expected="the same options and inputs, to continue",
                found="".join(f"\n    {reason}" for reason in reasons),
                fix="choose another --o, or add --redo to start again in this folder",
            )

    def _drop_checkpoints(self) -> None:
        for path in self._state.glob("*.npz"):
            path.unlink()

    # ---- what the stages call ---------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The job folder."""
        return self._folder

    def path(self, name: str) -> Path:
        """Path of a file in the folder."""
        return self._folder / name

    def check_abort(self) -> None:
        """Raise `Aborted` after a signal, or when RELION's abort file has appeared."""
        reason = self._interrupts.reason
        if reason is not None:
            raise Aborted(
                "the job was stopped on request",
                where=str(self._folder),
                found=reason,
                fix="run the same command again: it continues" if self._saved else "run the same command again",
            )

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to `events.jsonl`."""
        line = manifest.to_json({"t": round(time.time(), 3), "kind": kind, **fields})
        with self._events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def iteration(self, row: Mapping[str, Scalar]) -> None:
        """Record and show one iteration."""
        self.event("iteration", **row)
        self._progress.iteration(row)
        self._content["peak_memory_gb"] = self._peak_gb()
        manifest.write_manifest(self._folder, self._content)

    def warn(self, message: str) -> None:
        """Record and show a warning."""
        self._content["warnings"].append(message)
        self.event("warning", message=message)
        self._progress.warn(message)

    def metric(self, name: str, value: Scalar) -> None:
        """Record a result."""
        self._content["metrics"][name] = value
        self.event("metric", name=name, value=value)

    def add_input(self, path: Path | str) -> None:
        """Record an input file."""
        entry = manifest.describe_file(Path(path))
        if all(known["path"] != entry["path"] for known in self._content["inputs"]):
            self._content["inputs"].append(entry)
            manifest.write_manifest(self._folder, self._content)

    def add_output(self, path: Path | str, label: str | None = None) -> None:
        """Record an output file and its RELION node label."""
        self._content["outputs"].append({"path": str(path), "label": label})

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to the timings of the manifest."""
        began = time.monotonic()
        try:
            yield
        finally:
            timings = self._content["timings_s"]
            timings[name] = round(timings.get(name, 0.0) + time.monotonic() - began, 3)

    def save_checkpoint(self, name: str, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Replace a checkpoint."""
        write_checkpoint(self._state / f"{name}.npz", arrays, state)
        self._saved = True
        self.event("checkpoint", name=name)

    def load_checkpoint(self, name: str) -> Checkpoint | None:
        """Read a checkpoint of an earlier run, None if there is none."""
        checkpoint = read_checkpoint(self._state / f"{name}.npz")
        self._saved = self._saved or checkpoint is not None
        return checkpoint

    def drop_checkpoint(self, name: str) -> None:
        """Remove a checkpoint, if there is one."""
        (self._state / f"{name}.npz").unlink(missing_ok=True)

    # ---- results ----------------------------------------------------------------------------------------

    @property
    def content(self) -> Mapping[str, Any]:
        """The manifest so far."""
        return self._content

    def summary(self) -> dict[str, Any]:
        """What `--json` prints of a job: command, folder, status, metrics, outputs, warnings, times."""
        keys = ("command", "status", "metrics", "warnings", "timings_s", "wall_s", "peak_memory_gb")
        summary = {key: self._content[key] for key in keys}
        return {**summary, "folder": str(self._folder), "outputs": [o["path"] for o in self._content["outputs"]]}
