"""Memory this process may use, so that a run can be planned before it starts; and how it is given back."""

from __future__ import annotations

import ctypes
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Names of glibc's mallopt(3)."""
KEPT_BYTES = 256 << 20
"""Freed memory that the process keeps for its next arrays."""
LARGEST_KEPT_BYTES = 32 << 20
"""Larger arrays are given back to the system at once; the most that glibc allows."""


def reuse_freed_memory() -> None:
    """Asks the C library to hand out freed memory again instead of returning it to the system at once.

    Images come and go by the thousand, each in arrays of a few MB.  With glibc's defaults each is mapped and unmapped,
    and the system clears its pages every time it is touched: a third of the time of refine-ctf.  All threads share one
    pool, or each would keep its own.  For programs, not for the library: it holds for the whole process.  Other C
    libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in (
            (_TRIM_THRESHOLD, KEPT_BYTES),
            (_MMAP_THRESHOLD, LARGEST_KEPT_BYTES),
            (_ARENA_MAX, 1),
        ):
            mallopt(name, value)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or the limit is "max"
        return None


def _cached(stat: Path, key: str) -> int:
    """Bytes of files that the system drops when memory is asked for."""
    try:
        for line in stat.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _free_in_group(root: Path) -> int | None:
    """What the control group (versions 2 and 1) still allows; None without a limit."""
    old = root / "memory"
    for limit, used, stat, key in (
        (root / "memory.max", root / "memory.current", root / "memory.stat", "inactive_file"),
        (old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old / "memory.stat", "total_inactive_file"),
    ):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            return min(most, max(0, most - now + _cached(stat, key)))
    return None


def _free_on_machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def free_memory_bytes(root: Path = CGROUP, meminfo: Path = MEMINFO) -> int | None:
    """Memory that can be used without swapping, within the limits of the control group; None if unknown."""
    known = [found for found in (_free_in_group(root), _free_on_machine(meminfo)) if found is not None]
    return min(known, default=None)
