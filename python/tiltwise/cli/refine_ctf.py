"""`tiltwise refine-ctf`: CTFs of all tilts from the particles they show."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.jobs.job import FolderJob


def run(options: RefineCtfOptions, session: Session) -> Outcome:
    """Refine, write the report, and say what came out."""
    from tiltwise.ctf import refine_ctf
    from tiltwise.report.ctf import write_ctf_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = refine_ctf.run(options, job, session.progress)
        with job.timing("report"):
            write_ctf_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    words = [
        f"{name.replace('_', ' ')} {verdict.verdict} in {one.name}"
        for one in result.series
        for name, verdict in one.verdicts().items()
    ]
    words += [
        f"{parity} aberrations {fit.verdict.verdict} in {group.name}"
        for group in result.aberrations
        for parity, fit in group.fits.items()
    ]
    lines = [
        "✓ " + ("; ".join(words[:6]) + (f"; and {len(words) - 6} more" if len(words) > 6 else "") or "no evidence"),
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(RefineCtfOptions, run, "Refine defocus, astigmatism and contrast of every tilt.")
