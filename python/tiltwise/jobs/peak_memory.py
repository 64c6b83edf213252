"""Largest memory of a job, also where a process runs several of them, one after the other or within each other."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
"""Linux forgets the peak of a process that writes 5 here."""


class PeakMemory:
    """Largest resident memory of this process from when it was made to `close`.

    Where the system does not forget peaks, it is the largest one since the process began.
    """

    _open: ClassVar[list[PeakMemory]] = []

    def __init__(self) -> None:
        self._note()
        self._highest_gb = 0.0
        with suppress(OSError):  # another system, or a kernel without this file
            CLEAR.write_text("5", encoding="ascii")
        self._open.append(self)

    @property
    def gb(self) -> float:
        """So far, in GB."""
        if self in self._open:
            self._note()
        return self._highest_gb

    def close(self) -> None:
        """Keep what it is now."""
        if self in self._open:
            self._note()
            self._open.remove(self)

    @classmethod
    def _note(cls) -> None:
        """Tells the present peak to all that are open."""
        now = _peak_gb()
        for one in cls._open:
            one._highest_gb = max(one._highest_gb, now)


def _peak_gb() -> float:
    """Since the peak was last forgotten."""
    try:
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
