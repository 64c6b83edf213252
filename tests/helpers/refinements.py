"""Refinements of a few simulated particles, in a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiltwise.em import refine
from tiltwise.em.options import RefineOptions
from tiltwise.em.refine import RefineResult
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.jobs.relion import ABORT_NOW
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

SEED = 2
DIAMETER = 110.0
ITERATIONS = 4
MAPS = ("run_class001.mrc", "run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc")


class Listener(SilentProgress):
    """Keeps the notes; asks the job in `folder` to stop when iteration `stop` is done."""

    def __init__(self, folder: Path, stop: int | None = None) -> None:
        super().__init__()
        self.folder, self.stop, self.notes = folder, stop, list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def iteration(self, row: Any) -> None:
        if row["iteration"] == self.stop:
            (self.folder / ABORT_NOW).touch()


def simulated(folder: Path, particles: int, **changes: Any) -> SimulatedData:
    """Two series of 11 tilts; poses wrong by about 7° and 9 Å, reference of 40 Å."""
    values: dict[str, Any] = {
        "tilt_series": 2,
        "particles": particles,
        "width_px": 160,
        "height_px": 160,
        "thickness": 300.0,
        "pixel_size": 6.0,
        "box": 32,
        "particle_diameter": DIAMETER,
        "beads": 120,
        "tilt_step": 12.0,
        "snr": 0.5,
        "spacing": 0.0,
        "margin_px": 24,
        "error_orientation": 8.0,
        "error_position": 6.0,
        "reference_resolution": 40.0,
        "seed": SEED,
        "threads": 1,
    }
    return simulate(SimulateOptions(output=folder / "data", **{**values, **changes}))


def refine_options(data: SimulatedData, folder: Path, **changes: Any) -> RefineOptions:
    """Options of a short refinement; those that are None are not given."""
    values: dict[str, Any] = {
        "input": data.optimisation_set,
        "reference": data.reference,
        "box": 48,
        "crop": 32,
        "particle_diameter": DIAMETER + 10.0,
        "ini_high": 40.0,
        "healpix_order": 3,
        "auto_local_healpix_order": 3,
        "offset_range_px": 3.0,
        "offset_step_px": 1.0,
        "iterations": ITERATIONS,
        "threads": 1,
    }
    given = {name: value for name, value in {**values, **changes}.items() if value is not None}
    return RefineOptions(output=folder, **given)


def run_refine(
    data: SimulatedData, folder: Path, listener: SilentProgress | None = None, **changes: Any
) -> RefineResult:
    options = refine_options(data, folder, **changes)
    progress = listener or SilentProgress()
    with FolderJob(options, ["tiltwise", "refine"], progress) as job:
        return refine.run(options, job, progress)


def assert_same_files(folder: Path, expected: Path) -> None:
    """Maps and particles of two refinements have the same bytes."""
    for name in (*MAPS, "run_data.star"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
