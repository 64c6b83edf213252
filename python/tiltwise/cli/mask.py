"""`tiltwise mask`: where the particle is."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.jobs.job import FolderJob
from tiltwise.post.options import MaskOptions


def run(options: MaskOptions, session: Session) -> Outcome:
    """Make the mask, write the report, and say what came out and what to do next."""
    from tiltwise.post import mask
    from tiltwise.report.post import next_after_mask, write_mask_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = mask.run(options, job, session.progress)
        with job.timing("report"):
            write_mask_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ particle of {result.volume_angstrom3 / 1000:.0f} nm³, above {result.threshold.value:.4g}",
        f"  mask: {result.outputs['mask']}",
        f"  report: {job.path('report.html')}",
        f"  next: {next_after_mask(options, result)}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(MaskOptions, run, "Soft mask of the particle, from half maps or a map.")
