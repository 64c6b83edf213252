"""`tiltwise refine`: poses and map from tilt series."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.em.options import RefineOptions


def run(options: RefineOptions, session: Session) -> Outcome:
    """Refine, write the report, and say what came out and what to do next."""
    from tiltwise.em import refine
    from tiltwise.report.commands import next_after_refine, write_refine_report

    with running(options, session) as active:
        result = refine.run(options, active.job, active.progress)
        active.report(write_refine_report, result)
    lines = [
        f"✓ {result.stop_reason}",
        f"  resolution: {result.resolution_angstrom:.1f} Å (FSC 0.143 of the half maps)",
        f"  map: {result.outputs['map']}",
        f"  report: {active.job.path('report.html')}",
        f"  next: {next_after_refine(options, result)}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(RefineOptions, run, "Refine poses and map from tilt series, in independent halves.")
