"""A small process that writes the failure marker when the job's process is killed.

RELION waits for a marker for ever, and a process that is killed (out of memory, `kill -9`) cannot write
one.  The guard holds the reading end of a pipe.  It is told when the job has written its own marker; if
the pipe closes without that, the job is dead, and its live report is made to say so.  The guard uses the
standard library alone and runs in a session of its own, so that a Ctrl-C on the terminal does not reach it.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

from tiltwise.exec.live_page import KILLED, close_page
from tiltwise.jobs.manifest import NAME
from tiltwise.jobs.relion import ALSO_FOR_CCPEM, FAILURE

_DONE = b"done"
_PROGRAM = f"""
import json, os, sys, time
{inspect.getsource(close_page)}
def is_ours():
    # Whether the job has not ended by itself, and no next run has begun in its folder.
    if any(os.path.exists(os.path.join(sys.argv[1], marker)) for marker in {tuple(ALSO_FOR_CCPEM)!r}):
        return False
    try:
        with open(os.path.join(sys.argv[1], {NAME!r}), encoding="utf-8") as file:
            return json.load(file).get("pid") == int(sys.argv[2])
    except (OSError, ValueError):
        return True
if sys.stdin.buffer.read() != {_DONE!r} and is_ours():
    for marker in {(FAILURE, ALSO_FOR_CCPEM[FAILURE])!r}:
        os.close(os.open(os.path.join(sys.argv[1], marker), os.O_CREAT | os.O_WRONLY, 0o666))
    event = {{"t": round(time.time(), 3), "kind": "killed"}}
    with open(os.path.join(sys.argv[1], "events.jsonl"), "a") as file:
        file.write(json.dumps(event) + "\\n")
    close_page(os.path.join(sys.argv[1], "report.html"), "killed", {KILLED!r})
"""


class Guard:
    """Started with the job, dismissed at its end."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(folder.resolve()), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Tell the guard that the job has ended by itself, and wait for it."""
        try:
            self._process.communicate(_DONE, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
