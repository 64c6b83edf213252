"""The table of iterations: one line per row, the same on a terminal and in a log."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tiltwise.exec.protocols import Scalar

_HEADINGS = {
    "iteration": "it",
    "resolution_angstrom": "res Å",
    "fsc0143_angstrom": "FSC.143 Å",
    "angular_step_deg": "step °",
    "accuracy_deg": "acc °",
    "accuracy_angstrom": "acc Å",
    "change_deg": "moved °",
    "change_angstrom": "moved Å",
    "max_probability": "Pmax",
    "significant_poses": "poses",
    "seconds": "s",
}
_UNITS = {"angstrom": "Å", "deg": "°", "px": "px", "seconds": "s", "gb": "GB"}


def heading(name: str) -> str:
    """Short heading of a column, with its unit: `shift_step_angstrom` becomes `shift step Å`."""
    if name in _HEADINGS:
        return _HEADINGS[name]
    start, _, end = name.rpartition("_")
    return f"{start.replace('_', ' ')} {_UNITS[end]}" if start and end in _UNITS else name.replace("_", " ")


def cell(value: Scalar) -> str:
    """Text of a value: three significant digits or all digits of the whole part, `-` for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, float):
        if value == 0 or 0.001 <= abs(value) < 1e6:
            decimals = 2 if value == 0 else min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
            return f"{value:.{decimals}f}"
        return f"{value:.2e}"
    return str(value)


def lines(row: Mapping[str, Scalar], *, first: bool) -> list[str]:
    """Lines to print for `row`, the headings before the first one."""
    widths = [max(len(heading(name)), 5) for name in row]
    result = []
    if first:
        result.append("  ".join(heading(name).rjust(width) for name, width in zip(row, widths, strict=True)))
    result.append("  ".join(cell(value).rjust(width) for value, width in zip(row.values(), widths, strict=True)))
    return result
