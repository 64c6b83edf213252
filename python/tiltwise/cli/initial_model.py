"""`tiltwise initial-model`: a map from nothing."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.initial.options import InitialModelOptions


def run(options: InitialModelOptions, session: Session) -> Outcome:
    """Make the map, write the report, and say what came out and what to do next."""
    from tiltwise.initial import run as initial
    from tiltwise.report.initial import next_after_initial_model, write_initial_model_report

    with running(options, session) as active:
        result = initial.run(options, active.job, active.progress)
        active.report(write_initial_model_report, result)
    doubt = ", which no other start has found: it may be wrong" if result.doubtful else ""
    lines = [
        f"✓ a map to {result.resolution_angstrom:.1f} Å (FSC 0.143 of the half maps){doubt}",
        f"  starts that agree: {result.starts_that_agree} of {len(result.starts)}; hand: {result.hand}",
        *([f"  point group: {result.suggested_group or 'none found'}"] if result.groups else []),
        f"  map: {result.outputs['map']}",
        f"  report: {active.job.path('report.html')}",
        f"  next: {next_after_initial_model(options, result)}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(InitialModelOptions, run, "A map from particles whose orientations are not known.")
