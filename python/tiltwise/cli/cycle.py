"""`tiltwise cycle`: refinement, CTF refinement and alignment in turn, as long as each helps."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tiltwise.cli.app import COMMANDS
from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.config import OutputOptions
from tiltwise.cycle.options import CycleOptions
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.manifest import read_manifest


def run(options: CycleOptions, session: Session) -> Outcome:
    """Run all rounds, write the report, and say what came out."""
    from tiltwise.cycle import run as cycle
    from tiltwise.report.cycle import write_cycle_report

    def step(chosen: OutputOptions) -> Mapping[str, Any]:
        words = ["tiltwise", chosen.command, *chosen.to_arguments()]
        progress = active.progress
        if chosen.redo or not FolderJob(chosen, words, progress).is_finished():
            progress.note(" ".join(words))
            module = import_module(f"tiltwise.cli.{COMMANDS[chosen.command].module}")
            with progress.part(f"{chosen.command}: {chosen.output}", chosen.output):
                module.run(chosen, Session(tuple(words), progress))
        manifest = read_manifest(chosen.output)
        assert manifest is not None  # the step has just written it
        return manifest

    with running(options, session) as active:
        result = cycle.run(options, active.job, active.progress, step)
        active.report(write_cycle_report, result)
    lines = [
        f"✓ {result.resolution_angstrom:.1f} Å; ended: {result.reason}",
        f"  map: {options.output / 'postprocess' / 'postprocess.mrc'}",
        f"  optimisation set: {result.outputs['optimisation_set']} (before: {result.outputs['before']})",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(
    CycleOptions, run, "Refinement, CTF refinement and alignment in turn, as long as each helps."
)
