"""A job with its report: live while it runs, what was found when it ends, the reason when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiltwise.cli.command import Session
from tiltwise.config import OutputOptions
from tiltwise.jobs.job import FolderJob

if TYPE_CHECKING:
    from tiltwise.report.live import LiveReport


_KINDS = {
    "align": "tomo.polish",
    "initial-model": "initialmodel",
    "local-resolution": "localres",
    "reconstruct": "tomo.reconstruct",
    "refine": "refine3d",
    "refine-ctf": "tomo.ctfrefine",
}
"""Last part of RELION's label of a log file, where it is not the name of the command."""


@dataclass(frozen=True, slots=True)
class Running:
    """The job of a command; pass `job` and `progress` to its stage."""

    options: OutputOptions
    job: FolderJob
    progress: LiveReport

    def report(self, write: Callable[..., Any], *results: Any) -> None:
        """Write the report of what was found: `write(path, options, *results, manifest)`."""
        path = self.job.path("report.html")
        with self.job.timing("report"):
            write(path, self.options, *results, self.job.content)
            self.progress.finish()
        self.job.add_output(path)
        log = path.with_name("logfile.pdf")  # of `write_job_report`
        if log.exists():
            kind = _KINDS.get(self.options.command, self.options.command)
            self.job.add_output(log, f"LogFile.pdf.relion.{kind}")


@contextmanager
def running(options: OutputOptions, session: Session) -> Iterator[Running]:
    """Run a job in the folder `options.output`; however it ends, its `report.html` says so."""
    from tiltwise.report.live import LiveReport  # with matplotlib, which help need not wait for

    progress = LiveReport(session.progress)
    job = FolderJob(options, session.command_line, progress)
    try:
        with job:
            progress.begin(job.path("report.html"), job.content, anew=options.redo)
            yield Running(options, job, progress)
    except BaseException as error:
        progress.end(error)
        raise
