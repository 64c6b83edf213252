"""`tiltwise align`: geometry of the tilts, positions and motion of the particles."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.motion.options import AlignOptions


def run(options: AlignOptions, session: Session) -> Outcome:
    """Align, write the report, and say what came out."""
    from tiltwise.motion import align
    from tiltwise.report.align import write_align_report

    with running(options, session) as active:
        result = align.run(options, active.job, active.progress)
        active.report(write_align_report, result)
    lines = [f"✓ {line}" for line in result.words()]
    lines += [
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  changes and errors: {result.outputs['table']}",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(AlignOptions, run, "Align tilt series by their particles; motion of the particles.")
