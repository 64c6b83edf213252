"""`tiltwise expand`: every particle once for each of its symmetry mates."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.jobs.job import FolderJob
from tiltwise.selection.options import ExpandOptions


def run(options: ExpandOptions, session: Session) -> Outcome:
    """Expand, write the report, and say what came out."""
    from tiltwise.report.select import write_expand_report
    from tiltwise.selection import expand

    with FolderJob(options, session.command_line, session.progress) as job:
        result = expand.run(options, job, session.progress)
        with job.timing("report"):
            write_expand_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    count = len(result.optset.particles)
    lines = [
        f"✓ {count:,} particles, the {count // result.before} symmetry mates of {result.before:,}: "
        f"{result.outputs['optimisation_set']}",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(
    ExpandOptions, run, "Every particle once for each of its symmetry mates, for work on one asymmetric unit."
)
