"""`tiltwise reconstruct`: map and half maps from the poses in the file."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.em.options import ReconstructOptions
from tiltwise.jobs.job import FolderJob


def run(options: ReconstructOptions, session: Session) -> Outcome:
    """Reconstruct, write the report, and say what came out."""
    from tiltwise.em import reconstruct
    from tiltwise.report.commands import write_reconstruct_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = reconstruct.run(options, job, session.progress)
        with job.timing("report"):
            write_reconstruct_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ {result.resolution_angstrom:.1f} Å (FSC 0.143 of the half maps)",
        f"  map: {result.outputs['merged']}",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(ReconstructOptions, run, "Map and half maps from the poses in the file.")
