"""Numbers for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Time in seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
