"""`tiltwise align`: geometry of the tilts, positions and motion of the particles."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.jobs.job import FolderJob
from tiltwise.motion.options import AlignOptions


def run(options: AlignOptions, session: Session) -> Outcome:
    """Align, write the report, and say what came out."""
    from tiltwise.motion import align
    from tiltwise.report.align import write_align_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = align.run(options, job, session.progress)
        with job.timing("report"):
            write_align_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [f"✓ {line}" for line in result.words()]
    lines += [
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  changes and errors: {result.outputs['table']}",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(AlignOptions, run, "Align tilt series by their particles; motion of the particles.")
