"""`tiltwise demo`: simulate a small data set with known truth, refine it, and compare with the truth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.em.options import RefineOptions
from tiltwise.exec import Progress
from tiltwise.files import write_text
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.manifest import to_json
from tiltwise.sim.options import SimulateOptions

if TYPE_CHECKING:
    from tiltwise.em.refine import RefineResult


class DemoOptions(ComputeOptions, OutputOptions):
    """Options of `tiltwise demo`; the data set itself is fixed."""

    command: ClassVar[str] = "demo"
    seed: int = option(1, ge=0, help="seed of the simulated data")


@dataclass(frozen=True, slots=True)
class Data:
    """Files of the simulated data set."""

    optimisation_set: Path
    reference: Path
    truth: Path
    true_map: Path


def simulate_options(options: DemoOptions) -> SimulateOptions:
    """Two series of a 180 Å particle, with poses wrong by 6° and 5 Å rms as after a coarse search."""
    return SimulateOptions(
        output=options.output / "data",
        particle_diameter=180.0,
        tilt_series=2,
        particles=75,
        error_orientation=6.0,
        error_position=5.0,
        seed=options.seed,
        threads=options.threads,
        redo=options.redo,
    )


def refine_options(options: DemoOptions, data: Data) -> RefineOptions:
    """Refinement of the simulated data from a 40 Å map."""
    return RefineOptions(
        input=data.optimisation_set,
        output=options.output / "refine",
        reference=data.reference,
        box=96,
        crop=64,
        particle_diameter=190.0,
        ini_high=40.0,
        healpix_order=3,
        auto_local_healpix_order=3,
        offset_range_px=3.0,
        seed=options.seed,
        threads=options.threads,
        memory=options.memory,
        backend=options.backend,
        redo=options.redo,
    )


def run(options: DemoOptions, session: Session) -> Outcome:
    """Simulate, refine, score, and write `report.html` and `summary.json`."""
    from tiltwise.report.commands import score_against_truth, write_demo_report

    began = time.monotonic()
    with running(options, session) as active:
        job, progress = active.job, active.progress
        chosen_data = simulate_options(options)
        with job.timing("simulate"), progress.part("simulate", chosen_data.output):
            data = _simulate(chosen_data, progress)
        job.check_abort()
        chosen = refine_options(options, data)
        with job.timing("refine"), progress.part("refine", chosen.output):
            result = _refine(chosen, progress)
        scores = score_against_truth(
            result, start=data.optimisation_set, truth=data.truth, true_map=data.true_map, options=chosen
        )
        active.report(write_demo_report, chosen, result, scores)
        summary: dict[str, Any] = {
            "resolution_angstrom": result.resolution_angstrom,
            "truth_resolution_angstrom": scores.resolution_angstrom,
            "pose_error_deg": float(np.median(scores.after.angle_deg)),
            "pose_error_angstrom": float(np.median(scores.after.distance)),
            "start_pose_error_deg": float(np.median(scores.before.angle_deg)),
            "start_pose_error_angstrom": float(np.median(scores.before.distance)),
            "particles": len(result.optset.particles),
            "wall_s": round(time.monotonic() - began, 2),
        }
        for name, value in summary.items():
            job.metric(name, value)
        write_text(job.path("summary.json"), to_json(summary, indent=1) + "\n")
        job.add_output(job.path("summary.json"))
    lines = [
        f"✓ {summary['particles']} particles refined in {summary['wall_s']:.0f} s",
        f"  resolution: {summary['resolution_angstrom']:.1f} Å (FSC 0.143 of the half maps), "
        f"{summary['truth_resolution_angstrom']:.1f} Å (FSC 0.5 to the truth)",
        f"  poses: {summary['start_pose_error_deg']:.2f}° and {summary['start_pose_error_angstrom']:.2f} Å off before, "
        f"{summary['pose_error_deg']:.2f}° and {summary['pose_error_angstrom']:.2f} Å after (median)",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(summary, lines)


def _simulate(options: SimulateOptions, progress: Progress) -> Data:
    """Simulate unless an earlier run of the demo has done it."""
    from tiltwise.cli import simulate

    folder = options.output
    if not FolderJob(options, _command_line(options), progress).is_finished():
        simulate.run(options, Session(tuple(_command_line(options)), progress))
    return Data(
        optimisation_set=folder / "optimisation_set.star",
        reference=folder / f"ref{options.reference_resolution:g}.mrc",
        truth=folder / "truth" / "optimisation_set.star",
        true_map=folder / "truth" / "reference.mrc",
    )


def _refine(options: RefineOptions, progress: Progress) -> RefineResult:
    from tiltwise.em import refine
    from tiltwise.report.commands import write_refine_report

    with running(options, Session(tuple(_command_line(options)), progress)) as active:
        result = refine.run(options, active.job, active.progress)
        active.report(write_refine_report, result)
    return result


def _command_line(options: OutputOptions) -> list[str]:
    """The command that would do the same step by itself."""
    return ["tiltwise", options.command, *options.to_arguments()]


command = command_from_options(
    DemoOptions, run, "Simulate a small data set with known truth, refine it, and compare with the truth."
)
