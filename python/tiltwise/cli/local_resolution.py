"""`tiltwise local-resolution`: resolution at every voxel."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.jobs.job import FolderJob
from tiltwise.post.options import LocalResolutionOptions


def run(options: LocalResolutionOptions, session: Session) -> Outcome:
    """Compute the local resolution, write the report, and say what came out."""
    from tiltwise.post import local_resolution
    from tiltwise.report.post import write_local_resolution_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = local_resolution.run(options, job, session.progress)
        with job.timing("report"):
            write_local_resolution_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ {result.median_angstrom:.1f} Å (median of the particle), "
        f"{result.best_angstrom:.1f} to {result.worst_angstrom:.1f} Å in four fifths of it",
        f"  resolution: {result.outputs['resolution']}",
        f"  filtered map: {result.outputs['filtered']}",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(LocalResolutionOptions, run, "Resolution at every voxel, and a map filtered by it.")
