"""`tiltwise import`: optimisation set from a project of another program."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.interchange.options import ImportOptions


def run(options: ImportOptions, session: Session) -> Outcome:
    """Import, write the report, and say what came in."""
    from tiltwise.interchange import run as stage
    from tiltwise.report.imported import imported_text, write_import_report

    with running(options, session) as active:
        result = stage.run(options, active.job, active.progress)
        active.report(write_import_report, result)
    lines = [
        f"✓ {imported_text(result)}",
        *(f"  {line}" for line in result.imported.conventions),
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  report: {active.job.path('report.html')}",
    ]
    if "particles" in result.outputs:
        lines.append(f"  next: tiltwise check --i {result.outputs['optimisation_set']}")
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(
    ImportOptions, run, "Optimisation set from a project of RELION-4, RELION-5 or other programs."
)
