"""Jobs in processes of their own that are killed at some moment, and what they leave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tiltwise.config import OutputOptions

# Sums are written after every unit, so that kills meet all stages of an iteration that lasts for hours.
PROGRAM = """
import sys
from tiltwise.em import kept_sums
kept_sums.EVERY_S = kept_sums.COST = 0.0
from tiltwise.cli.main import main
sys.exit(main())
"""


def start(options: OutputOptions) -> subprocess.Popen[bytes]:
    """Starts the command of `options`."""
    arguments = [options.command, *options.to_arguments()]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def events(folder: Path) -> int:
    """How many events the job has recorded, over all of its runs."""
    path = folder / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_until(options: OutputOptions, event: int, delay_s: float, number: int = signal.SIGKILL) -> int:
    """Runs until `delay_s` after event number `event`, then sends a signal; returns the exit status."""
    process = start(options)
    while process.poll() is None and events(options.output) < event:
        time.sleep(0.005)
    time.sleep(delay_s)
    process.send_signal(number)
    return process.wait()


def files_of(folder: Path) -> dict[str, bytes]:
    """Maps and tables of a job."""
    paths = [path for pattern in ("*.mrc", "*.star") for path in folder.glob(pattern)]
    return {path.name: path.read_bytes() for path in sorted(paths)}
