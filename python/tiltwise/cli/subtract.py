"""`tiltwise subtract`: images of a part of the particle, without the rest."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.export.options import SubtractOptions


def run(options: SubtractOptions, session: Session) -> Outcome:
    """Subtract, write the report, and say what came out."""
    from tiltwise.export import subtract
    from tiltwise.report.extract import write_subtract_report

    with running(options, session) as active:
        result = subtract.run(options, active.job, active.progress)
        active.report(write_subtract_report, result)
    extracted = result.extracted
    lines = [
        f"✓ {len(extracted.optset.particles)} particles, {extracted.bytes_written / 1e9:.2f} GB",
        f"  optimisation set: {extracted.outputs['optimisation_set']}",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(SubtractOptions, run, "Images of a part of the particle as files, without the rest.")
