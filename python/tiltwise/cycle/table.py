"""What a cycle remembers: its table, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table."""

    round: int
    name: str
    folder: Path
    binning: float
    wall_s: float
    peak_memory_gb: float
    disk_gb: float
    words: str
    """what held-out data say, or why it ended"""
    applied: int
    """tilt series that were changed; 0 for other steps"""
    resolution_angstrom: float | None = None
    """FSC 0.143 of the half maps after the step, inside the mask"""
    mean_fsc: float | None = None
    """over all shells but 0"""
    curve: NDArray[np.float64] | None = None

    def plain(self) -> dict[str, Any]:
        """For `cycle.json`."""
        names = ("round", "name", "binning", "wall_s", "peak_memory_gb", "disk_gb", "words", "applied")
        values = {name: getattr(self, name) for name in names}
        values |= {"folder": str(self.folder), "resolution_angstrom": self.resolution_angstrom}
        return {**values, "mean_fsc": self.mean_fsc}


@dataclass(frozen=True, slots=True)
class CycleResult:
    """What a cycle ends with."""

    steps: list[Step]
    reason: str
    """why it ended"""
    taken_back: bool
    """the last round made the map worse: the results are those of the round before"""
    resolution_angstrom: float
    outputs: Mapping[str, Path]
    final: Path
    """folder of the refinement or reconstruction with the final maps"""
    ablation: Mapping[str, Any] | None = None
    """content of `ablation.json`; None if it was not asked for"""


@dataclass(slots=True)
class State:
    """Where the cycle stands."""

    optimisation_set: Path
    maps: Path
    """folder of the last half maps"""
    binning: float
    resolution: float
    """Å"""
    mask: Path | None = None
    steps: list[Step] = field(default_factory=list)


def verdicts(path: Path) -> tuple[str, int]:
    """What held-out data say, in words, and the number of tilt series that were changed; from `ctf.json` or
    `align.json`.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    counts: dict[str, list[int]] = {}
    changed = 0
    for series in content["series"].values():
        improved = _improved(series)
        changed += any(improved.values())
        for family, yes in improved.items():
            counts.setdefault(family, []).append(int(yes))
    for group in content.get("optics", {}).values():
        for family, one in group.items():
            if isinstance(one, Mapping) and "applied" in one:
                counts.setdefault(f"{family} aberrations", []).append(int(bool(one["applied"])))
                changed += bool(one["applied"])
    words = [f"{family} improved in {sum(yes)} of {len(yes)}" for family, yes in counts.items()]
    return "; ".join(words) or "no evidence", changed


def _improved(series: Mapping[str, Any]) -> dict[str, bool]:
    """Family -> whether it was applied, from one series of either file."""
    if "verdicts" in series:  # of an alignment
        return {one["family"]: bool(one["applied"]) for one in series["verdicts"]}
    return {family: one["verdict"] == "improved" for family, one in series.get("verdict", {}).items()}
