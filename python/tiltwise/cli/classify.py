"""`tiltwise classify`: which of several maps every particle shows."""

from __future__ import annotations

from tiltwise.classes.options import ClassifyOptions
from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running


def run(options: ClassifyOptions, session: Session) -> Outcome:
    """Classify, write the report, and say what came out and what to do next."""
    from tiltwise.classes import classify
    from tiltwise.report.classes import class_lines, next_after_classify, write_classify_report

    with running(options, session) as active:
        result = classify.run(options, active.job, active.progress)
        active.report(write_classify_report, result)
    lines = [
        f"✓ {result.stop_reason}",
        *(f"  {line}" for line in class_lines(options, result)),
        f"  particles: {result.outputs['data']}",
        f"  report: {active.job.path('report.html')}",
        f"  next: {next_after_classify(options, result)}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(ClassifyOptions, run, "Sort particles into classes, each with a map of its own.")
