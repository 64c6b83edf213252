"""When a process began: the number of one that has ended may be given to another."""

from __future__ import annotations

import os
from pathlib import Path


def process_start(number: int) -> dict[str, str | int] | None:
    """Start of a process of this machine, with where that is known; None where the system does not tell (not Linux).

    `boot` names the run of the machine, `space` the processes that can see each other, and `ticks` counts from the boot
    on; clocks that are put right do not change it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
        # the name of the program, in parentheses, may hold anything
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
        return {"boot": boot, "space": space, "ticks": int(fields[19])}
    except (OSError, ValueError, IndexError):
        return None


def is_another(number: int, start: object) -> bool:
    """Whether the process of this number is surely not the one that began at `start`, as `process_start` told it."""
    now = process_start(number)
    if now is None or not isinstance(start, dict):
        return False
    if start.get("boot") != now["boot"]:
        return True
    return start.get("space") == now["space"] and start.get("ticks") != now["ticks"]
