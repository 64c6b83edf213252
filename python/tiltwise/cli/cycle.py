"""`tiltwise cycle`: refinement, CTF refinement and alignment in turn, as long as each helps."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tiltwise.cli.app import COMMANDS
from tiltwise.cli.command import Outcome, Session, command_from_options
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
        job = FolderJob(chosen, words, session.progress)
        if chosen.redo or not job.is_finished():
            session.progress.note(" ".join(words))
            module = import_module(f"tiltwise.cli.{COMMANDS[chosen.command].module}")
            module.run(chosen, Session(tuple(words), session.progress))
        manifest = read_manifest(chosen.output)
        assert manifest is not None  # the step has just written it
        return manifest

    with FolderJob(options, session.command_line, session.progress) as job:
        result = cycle.run(options, job, session.progress, step)
        with job.timing("report"):
            write_cycle_report(job.path("report.html"), options, result, job.content)
        job.add_output(job.path("report.html"))
    lines = [
        f"✓ {result.resolution_angstrom:.1f} Å; ended: {result.reason}",
        f"  map: {options.output / 'postprocess' / 'postprocess.mrc'}",
        f"  optimisation set: {result.outputs['optimisation_set']} (before: {result.outputs['before']})",
        f"  report: {job.path('report.html')}",
    ]
    return Outcome(job.summary(), lines, result=result)


command = command_from_options(
    CycleOptions, run, "Refinement, CTF refinement and alignment in turn, as long as each helps."
)
