"""`tiltwise ablate`: what every correction bought, each put back to what it was before."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cycle.ablation_options import AblateOptions
from tiltwise.jobs.job import FolderJob


def run(options: AblateOptions, session: Session) -> Outcome:
    """Measure, write the report, and say what came out."""
    from tiltwise.cycle import ablation
    from tiltwise.report.ablation import sentence, write_ablation_report

    with FolderJob(options, session.command_line, session.progress) as job:
        result = ablation.run(options, job, session.progress)
        with job.timing("report"):
            write_ablation_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [f"✓ {sentence(result.table)}"]
    lines += [
        f"  {row.family} ({row.words}): {row.gain:.0f} ± {row.sigma:.0f} nats, mean FSC {row.mean_fsc_gain:+.4f}"
        for row in result.rows
    ]
    lines += [f"  table: {result.outputs['table']}", f"  report: {job.path('report.html')}"]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(AblateOptions, run, "What every correction bought, each put back to what it was before.")
