"""`tiltwise extract`: 2D stacks or pseudo-subtomograms for RELION and other programs."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.export.options import ExtractOptions


def run(options: ExtractOptions, session: Session) -> Outcome:
    """Extract, write the report, and say what came out."""
    from tiltwise.export import extract
    from tiltwise.report.extract import write_extract_report

    with running(options, session) as active:
        result = extract.run(options, active.job, active.progress)
        active.report(write_extract_report, result)
    lines = [
        f"✓ {len(result.optset.particles)} particles, {result.bytes_written / 1e9:.2f} GB",
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(ExtractOptions, run, "Images of the particles as files: 2D stacks, pseudo-subtomograms.")
