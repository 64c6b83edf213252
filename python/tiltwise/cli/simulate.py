"""`tiltwise simulate`: tilt series with known truth."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.jobs.job import FolderJob
from tiltwise.sim.options import SimulateOptions


def run(options: SimulateOptions, session: Session) -> Outcome:
    """Simulate, and say where the data are."""
    from tiltwise.report.commands import write_simulate_report
    from tiltwise.sim import simulate

    with FolderJob(options, session.command_line, session.progress) as job:
        data = simulate.run(options, job, session.progress)
        with job.timing("report"):
            write_simulate_report(job.path("report.html"), options, data, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ {data.n_particles} particles in {options.tilt_series} tilt series of {data.n_tilts} tilts",
        f"  optimisation set: {data.optimisation_set}",
        f"  starting map: {data.reference}",
        f"  truth: {data.truth.parent}",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=data)


command = command_from_options(SimulateOptions, run, "Simulate tilt series with known truth.")
