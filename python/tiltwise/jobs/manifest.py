"""`job.json`: what was run, on what, by which program, and what came out."""

from __future__ import annotations

import getpass
import json
import math
import os
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiltwise import __version__
from tiltwise.errors import FormatError
from tiltwise.files import write_text
from tiltwise.kernels.threads import default_threads

NAME = "job.json"


_OTHER_FOLDER = "choose another --o, or remove the file if nothing in its folder is needed"


def now() -> str:
    """Time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Manifest of an earlier run in `folder`, None if there is none.

    Raises
    ------
    FormatError
        if the file is not a manifest.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FormatError(
            "the manifest of a job cannot be read", where=str(path), found=str(error), fix=_OTHER_FOLDER
        ) from error
    if not isinstance(content, dict) or "command" not in content:
        raise FormatError(
            "the manifest of a job cannot be read",
            where=str(path),
            expected="a JSON object with `command`",
            fix=_OTHER_FOLDER,
        )
    return content


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Replace the manifest of `folder`."""
    write_text(folder / NAME, to_json(content, indent=1) + "\n")


def to_json(content: Any, indent: int | None = None) -> str:
    """Strict JSON of mappings, sequences, NumPy scalars and paths; numbers that are not finite become null."""
    return json.dumps(_plain(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    convert = getattr(value, "tolist", None)
    return _plain(convert()) if callable(convert) else str(value)


def describe_file(path: Path) -> dict[str, Any]:
    """Path, size and time of change; the last two are None for a missing file."""
    try:
        status = path.stat()
    except OSError:
        return {"path": str(path), "bytes": None, "mtime": None}
    return {"path": str(path), "bytes": status.st_size, "mtime": round(status.st_mtime, 3)}


def describe_program() -> dict[str, Any]:
    """Version of the package and of what it runs on."""
    return {"tiltwise": __version__, "python": platform.python_version()}


def describe_host() -> dict[str, Any]:
    """Name, processor, cores and memory of this machine, and who runs the job."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    return {
        "name": socket.gethostname(),
        "user": user,
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(),
        "cores": default_threads(),
        "memory_gb": round(total_memory_gb(), 1),
    }


def cpu_name() -> str:
    """Name of the processor as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def total_memory_gb() -> float:
    """Memory of the machine in GB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (OSError, ValueError):
        return 0.0
