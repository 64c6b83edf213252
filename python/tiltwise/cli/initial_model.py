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
    choice = result.choice
    agree = sum(1 for score in choice["agreement"] if score >= choice["agree_from"])
    hand = "as the tilt geometry has it" if choice["hand_determined"] else "not determined"
    lines = [
        f"✓ a map to {result.resolution_angstrom:.1f} Å (FSC 0.143 of the half maps)",
        f"  starts that agree: {agree} of {len(choice['agreement'])}; hand: {hand}",
        *([f"  point group: {result.suggested_group or 'none found'}"] if result.groups else []),
        f"  map: {result.outputs['map']}",
        f"  report: {active.job.path('report.html')}",
        f"  next: {next_after_initial_model(options, result)}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(InitialModelOptions, run, "A map from particles whose orientations are not known.")
