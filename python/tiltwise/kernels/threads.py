"""How many threads kernels use unless told otherwise."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

from tiltwise.errors import ConfigError

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def _requested() -> int | None:
    """The count of TILTWISE_NUM_THREADS, else of OMP_NUM_THREADS."""
    for variable in ("TILTWISE_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if not text:
            continue
        if not text.isdigit() or int(text) < 1:
            raise ConfigError(
                "the number of threads is not a positive number",
                where=f"environment variable {variable}",
                found=text,
                fix=f"unset {variable}, or set it to a number such as 8",
            )
        return int(text)
    return None


def _quota(folder: Path) -> int | None:
    """Cores that one control group may use (versions 2 and 1), rounded up; None without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or the quota is "max"
        return None


def _cgroup_quota(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> int | None:
    """Smallest quota of this process's control group and of the groups it lies in."""
    folders = [root]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("0::/"):  # version 2
            group = root / line.removeprefix("0::/")
            folders += [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return min((quota for quota in map(_quota, folders) if quota is not None), default=None)


@cache
def _quota_of_this_process() -> int | None:
    """The quota, read once: kernels ask with every call."""
    return _cgroup_quota()


def default_threads() -> int:
    """Smallest of the affinity mask, the control group's quota and the count asked for in the environment."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count for count in (affinity, _quota_of_this_process(), _requested()) if count is not None)
