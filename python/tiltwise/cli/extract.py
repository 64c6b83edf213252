"""`tiltwise extract`: 2D stacks or pseudo-subtomograms for RELION and other programs."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.export.options import ExtractOptions
from tiltwise.jobs.job import FolderJob


def run(options: ExtractOptions, session: Session) -> Outcome:
    """Extract, write the report, and say what came out."""
    from tiltwise.export import extract
    from tiltwise.report.extract import write_extract_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = extract.run(options, job, session.progress)
        with job.timing("report"):
            write_extract_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ {len(result.optset.particles)} particles, {result.bytes_written / 1e9:.2f} GB",
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(ExtractOptions, run, "Images of the particles as files: 2D stacks, pseudo-subtomograms.")
