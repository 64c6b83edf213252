"""How many threads kernels use unless told otherwise."""

from __future__ import annotations

import math
import os
from pathlib import Path

from tiltwise.errors import ConfigError

CGROUP = Path("/sys/fs/cgroup")


def _requested() -> int | None:
    """The count of TILTWISE_NUM_THREADS, else of OMP_NUM_THREADS."""
    for variable in ("TILTWISE_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "").split(",")[0].strip()
        if not text:
            continue
        if not text.isdigit() or int(text) < 1:
            raise ConfigError(
                "the number of threads is not a positive number", where=f"environment variable {variable}", found=text
            )
        return int(text)
    return None


def _cgroup_quota(root: Path = CGROUP) -> int | None:
    """Cores that the control group may use (versions 2 and 1), rounded up; None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or the quota is "max"
        return None


def default_threads() -> int:
    """Smallest of the affinity mask, the control group's quota and the count asked for in the environment."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count for count in (affinity, _cgroup_quota(), _requested()) if count is not None)
