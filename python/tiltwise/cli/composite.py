"""`tiltwise composite`: parts that were refined one by one, in one map."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.post.options import CompositeOptions


def run(options: CompositeOptions, session: Session) -> Outcome:
    """Make the composite, write the report, and say what came out and what to do next."""
    from tiltwise.post import composite
    from tiltwise.report.composite import next_after_composite, part_text, write_composite_report

    with running(options, session) as active:
        result = composite.run(options, active.job, active.progress)
        active.report(write_composite_report, result)
    lines = [
        f"✓ {len(result.parts)} parts and the rest in one map",
        *(f"  {part_text(part, result)}" for part in result.parts),
        f"  map: {result.outputs['composite']}",
        f"  report: {active.job.path('report.html')}",
        f"  next: {next_after_composite(options)}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(CompositeOptions, run, "One map of refined parts and of the consensus for the rest.")
