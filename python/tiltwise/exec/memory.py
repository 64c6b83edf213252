"""Memory this process may use, so that a run can be planned before it starts."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or the limit is "max"
        return None


def _free_in_group(root: Path) -> int | None:
    """What the control group (versions 2 and 1) still allows; None without a limit."""
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory" / "memory.limit_in_bytes", root / "memory" / "memory.usage_in_bytes"),
    ):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            return max(0, most - now)
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
