"""Small classifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.mixed import MixedData, simulate_mixed
from tiltwise.classes import classify
from tiltwise.classes.classify import ClassifyResult
from tiltwise.classes.options import ClassifyOptions
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.options import SimulateOptions

DIAMETER = 110.0


def mixed(
    folder: Path, particles: int, share: float, planted: dict[str, float] | None = None, **changes: Any
) -> MixedData:
    """Two series of 11 tilts; at true poses, unless errors are `planted`."""
    options = SimulateOptions(
        output=folder / "data",
        tilt_series=2,
        particles=particles,
        width_px=160,
        height_px=160,
        thickness=300.0,
        pixel_size=6.0,
        box=32,
        particle_diameter=DIAMETER,
        beads=120,
        tilt_step=12.0,
        snr=0.2,
        spacing=0.0,
        margin_px=24,
        seed=3,
        threads=1,
    )
    return simulate_mixed(options.model_copy(update=planted or {}), share, **changes)


def classify_options(sample: MixedData, folder: Path, **changes: Any) -> ClassifyOptions:
    """Options of a small classification."""
    values: dict[str, Any] = {
        "input": sample.data.optimisation_set,
        "box": 48,
        "crop": 32,
        "particle_diameter": DIAMETER + 10.0,
        "threads": 1,
    }
    return ClassifyOptions(output=folder, **{**values, **changes})


def run_classify(
    sample: MixedData, folder: Path, listener: SilentProgress | None = None, **changes: Any
) -> ClassifyResult:
    """Classifies in this process."""
    options = classify_options(sample, folder, **changes)
    progress = listener or SilentProgress()
    with FolderJob(options, ["tiltwise", "classify"], progress) as job:
        return classify.run(options, job, progress)
