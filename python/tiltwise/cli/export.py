"""`tiltwise export`: sets, particles and maps in the forms of other programs."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.export.options import ExportOptions


def run(options: ExportOptions, session: Session) -> Outcome:
    """Write the files, the report, and say what came out."""
    from tiltwise.export import run as export
    from tiltwise.report.export import write_export_report

    with running(options, session) as active:
        result = export.run(options, active.job, active.progress)
        active.report(write_export_report, result)
    lines = [f"✓ {len(result.optset.particles):,} particles as {options.form}"]
    lines += [f"  {file}" for file in result.files[:6]]
    return Outcome(active.job.summary(), [*lines, f"  report: {active.job.path('report.html')}"], result=result)


command = command_from_options(ExportOptions, run, "Sets, particles and maps in the forms of other programs.")
