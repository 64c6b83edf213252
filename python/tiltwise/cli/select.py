"""`tiltwise select`: a set with the particles that fulfil criteria."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.selection.options import SelectOptions


def run(options: SelectOptions, session: Session) -> Outcome:
    """Select, write the report, and say what is left."""
    from tiltwise.report.select import write_select_report
    from tiltwise.selection import run as selection

    with running(options, session) as active:
        result = selection.run(options, active.job, active.progress)
        active.report(write_select_report, result)
    kept, before = len(result.optset.particles), len(result.before.particles)
    lines = [f"✓ {kept:,} of {before:,} particles kept: {result.outputs['optimisation_set']}"]
    lines += [f"  {step.name} ({step.rule}): {step.removed:,} removed" for step in result.steps]
    return Outcome(active.job.summary(), [*lines, f"  report: {active.job.path('report.html')}"], result=result)


command = command_from_options(
    SelectOptions, run, "Particles by class, score, tilts, place and neighbours, as a set of their own."
)
