"""`tiltwise demo`: simulate tilt series with known errors, find them, and compare with the truth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.config import ComputeOptions, OutputOptions, option
from tiltwise.cycle.options import CycleOptions
from tiltwise.exec import Progress
from tiltwise.files import write_text
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.manifest import to_json
from tiltwise.sim.options import SimulateOptions

if TYPE_CHECKING:
    from tiltwise.cycle.table import CycleResult


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
    """Two series of a 150 Å particle; their metadata are wrong, as after a coarse search and a first alignment."""
    return SimulateOptions(
        output=options.output / "data",
        particle_diameter=150.0,
        pixel_size=4.0,
        tilt_series=2,
        particles=60,
        error_orientation=6.0,
        error_position=5.0,
        error_defocus=400.0,
        error_shift=4.0,
        error_angle=0.2,
        seed=options.seed,
        threads=options.threads,
        redo=options.redo,
    )


def cycle_options(options: DemoOptions, data: Data) -> CycleOptions:
    """One round on the simulated data, from a 40 Å map."""
    return CycleOptions(
        input=data.optimisation_set,
        output=options.output / "cycle",
        reference=data.reference,
        box=96,
        crop=64,
        particle_diameter=160.0,
        ini_high=40.0,
        rounds=1,
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
    """Simulate, run a cycle, compare with the truth, and write `report.html` and `summary.json`."""
    from tiltwise.report.demo import story_of, write_demo_report

    began = time.monotonic()
    with running(options, session) as active:
        job, progress = active.job, active.progress
        chosen_data = simulate_options(options)
        with job.timing("simulate"), progress.part("simulate", chosen_data.output):
            data = _simulate(chosen_data, progress)
        job.check_abort()
        chosen = cycle_options(options, data)
        with job.timing("cycle"), progress.part("cycle", chosen.output):
            result = _cycle(chosen, progress)
        story = story_of(result, chosen, start=data.optimisation_set, truth=data.truth, true_map=data.true_map)
        active.report(write_demo_report, chosen, result, story)
        summary: dict[str, Any] = {
            "resolution_angstrom": result.resolution_angstrom,
            **story.summary(),
            "particles": len(story.found.optset.particles),
            "wall_s": round(time.monotonic() - began, 2),
        }
        for name, value in summary.items():
            job.metric(name, value)
        write_text(job.path("summary.json"), to_json(summary, indent=1) + "\n")
        job.add_output(job.path("summary.json"))
    return Outcome(summary, [*words_of(summary), f"  report: {job.path('report.html')}"])


def words_of(summary: dict[str, Any]) -> list[str]:
    """What was wrong and what was found, for the terminal."""

    def pair(key: str, digits: int, unit: str) -> str:
        return f"{summary[f'start_{key}']:.{digits}f} to {summary[key]:.{digits}f}{unit}"

    return [
        f"✓ {summary['particles']} particles in {summary['wall_s']:.0f} s; errors against the truth:",
        f"  map: {summary['first_truth_resolution_angstrom']:.1f} to {summary['truth_resolution_angstrom']:.1f} Å "
        f"(FSC 0.5 to the truth); half maps agree to {summary['resolution_angstrom']:.1f} Å",
        f"  poses: {pair('pose_error_deg', 2, '°')}, {pair('pose_error_angstrom', 2, ' Å')} (median)",
        f"  tilts: shifts {pair('shift_error_angstrom', 2, ' Å')}, angles {pair('angle_error_deg', 3, '°')}, "
        f"defocus {pair('defocus_error_angstrom', 0, ' Å')} (rms)",
    ]


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


def _cycle(options: CycleOptions, progress: Progress) -> CycleResult:
    from tiltwise.cli import cycle

    result: CycleResult = cycle.run(options, Session(tuple(_command_line(options)), progress)).result
    return result


def _command_line(options: OutputOptions) -> list[str]:
    """The command that would do the same step by itself."""
    return ["tiltwise", options.command, *options.to_arguments()]


command = command_from_options(
    DemoOptions, run, "Simulate tilt series with known errors, find them, and compare with the truth."
)
