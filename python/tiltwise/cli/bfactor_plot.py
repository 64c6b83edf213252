"""`tiltwise bfactor-plot`: resolution against the number of particles."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.em.options import BFactorPlotOptions


def run(options: BFactorPlotOptions, session: Session) -> Outcome:
    """Measure subsets, write the report, and say what came out."""
    from tiltwise.em import bfactor
    from tiltwise.report.bfactor import forecast_words, sentence, write_bfactor_report

    with running(options, session) as active:
        result = bfactor.run(options, active.job, active.progress)
        active.report(write_bfactor_report, result)
    lines = [f"✓ {sentence(result)}"]
    lines += [f"  {one.resolution_angstrom:g} Å: {forecast_words(one)}" for one in result.forecasts]
    lines += [f"  table: {result.outputs['table']}", f"  report: {active.job.path('report.html')}"]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(
    BFactorPlotOptions, run, "Resolution against the number of particles: B-factor, and what more particles would give."
)
