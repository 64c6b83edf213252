"""What is known of a job from the files in its folder, without its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tiltwise.exec.protocols import Scalar

State = Literal["running", "finished", "failed", "stopped", "killed", "unknown"]
"""`stopped` on request; `killed` without a chance to say so; `unknown`: RELION's folder has no marker."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job folder, of tiltwise or of RELION; what a folder does not tell is None or empty."""

    folder: Path
    """absolute"""
    name: str
    """relative to the project, with `/`"""
    command: str
    """`refine`; for RELION the type of the job, `Refine3D`"""
    program: Literal["tiltwise", "RELION"]
    state: State
    command_line: str = ""
    started: str | None = None
    """UTC, ISO 8601"""
    wall_s: float | None = None
    """of all runs; of a running job, until now"""
    peak_memory_gb: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timings_s: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None
    inputs: tuple[Path, ...] = ()
    """absolute paths as they are now: of a project that was moved, in its new place"""
    outputs: tuple[Path, ...] = ()
    iterations: tuple[Mapping[str, Scalar], ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """content of `job.json`"""

    @property
    def resolution_angstrom(self) -> float | None:
        """Of its result; of a running refinement, of the last iteration.

        A refinement of CTFs has none of its own: the one in its records is that of the maps it was given.
        """
        if self.command == "refine-ctf":
            return None
        value = self.metrics.get("resolution_angstrom", self.metrics.get("median_angstrom"))
        if value is None and self.iterations:
            row = self.iterations[-1]
            value = row.get("fsc0143_angstrom", row.get("resolution_angstrom"))
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def report(self) -> Path | None:
        """Its report, if there is one."""
        path = self.folder / "report.html"
        return path if path.is_file() else None

    @property
    def optimisation_set(self) -> Path | None:
        """The set it leaves to the next job."""
        found = [path for path in self.outputs if path.name.endswith("optimisation_set.star") and path.is_file()]
        return next((path for path in found if not path.name.startswith("before")), None)
