"""`tiltwise import`: optimisation set from a project of another program."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.interchange.options import ImportOptions
from tiltwise.jobs.job import FolderJob


def run(options: ImportOptions, session: Session) -> Outcome:
    """Import, write the report, and say what came in."""
    from tiltwise.interchange import run as stage
    from tiltwise.report.imported import imported_text, write_import_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = stage.run(options, job, session.progress)
        with job.timing("report"):
            write_import_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ {imported_text(result)}",
        *(f"  {line}" for line in result.imported.conventions),
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  report: {job.path('report.html')}",
    ]
    if "particles" in result.outputs:
        lines.append(f"  next: tiltwise check --i {result.outputs['optimisation_set']}")
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(
    ImportOptions, run, "Optimisation set from a project of RELION-4, RELION-5 or other programs."
)
