"""`tiltwise export`: sets, particles and maps in the forms of other programs."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.export.options import ExportOptions
from tiltwise.jobs.job import FolderJob


def run(options: ExportOptions, session: Session) -> Outcome:
    """Write the files, the report, and say what came out."""
    from tiltwise.export import run as export
    from tiltwise.report.export import write_export_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = export.run(options, job, session.progress)
        with job.timing("report"):
            write_export_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [f"✓ {len(result.optset.particles):,} particles as {options.form}"]
    lines += [f"  {file}" for file in result.files[:6]]
    return Outcome(job.summary(), [*lines, f"  report: {job.path('report.html')}"], result=result)


command = command_from_options(ExportOptions, run, "Sets, particles and maps in the forms of other programs.")
