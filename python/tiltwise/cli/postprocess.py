"""`tiltwise postprocess`: resolution and a sharpened map from half maps."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.jobs.job import FolderJob
from tiltwise.post.options import PostprocessOptions


def run(options: PostprocessOptions, session: Session) -> Outcome:
    """Post-process, write the report, and say what came out."""
    from tiltwise.post import postprocess
    from tiltwise.report.post import next_after_postprocess, resolution_text, write_postprocess_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = postprocess.run(options, job, session.progress)
        with job.timing("report"):
            write_postprocess_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ {resolution_text(result)}",
        f"  B-factor: {result.bfactor_angstrom2:.0f} Å²",
        f"  map: {result.outputs['map']}",
        f"  report: {job.path('report.html')}",
        f"  next: {next_after_postprocess(options, result)}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(PostprocessOptions, run, "Resolution and a sharpened map from half maps.")
