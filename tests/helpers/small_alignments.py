"""Alignments of a small simulated series, and where its particles then appear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.model import OptimisationSet
from tiltwise.motion import align
from tiltwise.motion.align import AlignResult
from tiltwise.motion.options import AlignOptions
from tiltwise.report.align import write_align_report
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

PIXEL = 6.0


def simulated(folder: Path, **changes: Any) -> SimulatedData:
    values: dict[str, Any] = {
        "tilt_series": 1,
        "particles": 40,
        "width_px": 240,
        "height_px": 200,
        "thickness": 300.0,
        "pixel_size": PIXEL,
        "box": 32,
        "particle_diameter": 110.0,
        "beads": 120,
        "tilt_step": 8.0,
        "snr": 1.0,
        "spacing": 0.0,
        "margin_px": 24,
        "error_shift": 7.0,
        "error_angle": 0.4,
        "motion": 1.0,
        "seed": 3,
        "threads": 1,
    }
    return simulate(SimulateOptions(output=folder / "data", **(values | changes)))


def align_options(source: Path, folder: Path, **changes: Any) -> AlignOptions:
    values: dict[str, Any] = {
        "input": source,
        "box": 48,
        "crop": 32,
        "particle_diameter": 120.0,
        "motion": True,
        "fit_range": 35.0,
        "threads": 1,
        "velocity": 0.4,
        "divergence": 1000.0,
    }
    return AlignOptions(output=folder, **(values | changes))


def run(source: Path, folder: Path, **changes: Any) -> AlignResult:
    options = align_options(source, folder, **changes)
    with FolderJob(options, ["tiltwise", "align"], SilentProgress()) as job:
        result = align.run(options, job, SilentProgress())
        write_align_report(job.path("report.html"), options, result, job.content)
        return result


def predicted(optset: OptimisationSet) -> NDArray[np.float64]:
    """(P, F, 2) positions in the images, rows of the series, as extraction finds them."""
    source = ParticleSource(optset, box_px=48, crop_px=32, binning=1.0, diameter_angstrom=None)
    displacement = Poses.of(optset).displacement_angstrom
    result = []
    for i, name in enumerate(optset.particles.name):
        motion = optset.trajectories.get(name)
        position = optset.particles.coordinate_px[i] + displacement[i] / PIXEL
        loader: Any = source.loader(i)
        result.append(loader.project(position, None if motion is None else motion / PIXEL)[:, :2])
    return np.stack(result)


def rms_px(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.sqrt(((a - b) ** 2).sum(axis=2).mean()))
