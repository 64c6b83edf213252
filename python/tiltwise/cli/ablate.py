"""`tiltwise ablate`: what every correction bought, each put back to what it was before."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.cycle.ablation_options import AblateOptions


def run(options: AblateOptions, session: Session) -> Outcome:
    """Measure, write the report, and say what came out."""
    from tiltwise.cycle import ablation
    from tiltwise.report.ablation import sentence, write_ablation_report

    with running(options, session) as active:
        result = ablation.run(options, active.job, active.progress)
        active.report(write_ablation_report, result)
    lines = [f"✓ {sentence(result.table)}"]
    lines += [
        f"  {row.family} ({row.words}): {row.gain:.0f} ± {row.sigma:.0f} nats, mean FSC {row.mean_fsc_gain:+.4f}"
        for row in result.rows
    ]
    lines += [f"  table: {result.outputs['table']}", f"  report: {active.job.path('report.html')}"]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(AblateOptions, run, "What every correction bought, each put back to what it was before.")
