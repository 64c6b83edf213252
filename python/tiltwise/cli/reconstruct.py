"""`tiltwise reconstruct`: map and half maps from the poses in the file."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.em.options import ReconstructOptions


def run(options: ReconstructOptions, session: Session) -> Outcome:
    """Reconstruct, write the report, and say what came out."""
    from tiltwise.em import reconstruct
    from tiltwise.report.commands import write_reconstruct_report

    with running(options, session) as active:
        result = reconstruct.run(options, active.job, active.progress)
        active.report(write_reconstruct_report, result)
    lines = [
        f"✓ {result.resolution_angstrom:.1f} Å (FSC 0.143 of the half maps)",
        f"  map: {result.outputs['merged']}",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(ReconstructOptions, run, "Map and half maps from the poses in the file.")
