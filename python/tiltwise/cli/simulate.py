"""`tiltwise simulate`: tilt series with known truth."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.sim.options import SimulateOptions


def run(options: SimulateOptions, session: Session) -> Outcome:
    """Simulate, and say where the data are."""
    from tiltwise.report.commands import write_simulate_report
    from tiltwise.sim import simulate

    with running(options, session) as active:
        data = simulate.run(options, active.job, active.progress)
        active.report(write_simulate_report, data)
    lines = [
        f"✓ {data.n_particles} particles in {options.tilt_series} tilt series of {data.n_tilts} tilts",
        f"  optimisation set: {data.optimisation_set}",
        f"  starting map: {data.reference}",
        f"  truth: {data.truth.parent}",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=data)


command = command_from_options(SimulateOptions, run, "Simulate tilt series with known truth.")
