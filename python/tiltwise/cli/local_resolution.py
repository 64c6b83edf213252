"""`tiltwise local-resolution`: resolution at every voxel."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.post.options import LocalResolutionOptions


def run(options: LocalResolutionOptions, session: Session) -> Outcome:
    """Compute the local resolution, write the report, and say what came out."""
    from tiltwise.post import local_resolution
    from tiltwise.report.post import write_local_resolution_report

    with running(options, session) as active:
        result = local_resolution.run(options, active.job, active.progress)
        active.report(write_local_resolution_report, result)
    lines = [
        f"✓ {result.median_angstrom:.1f} Å (median of the particle), "
        f"{result.best_angstrom:.1f} to {result.worst_angstrom:.1f} Å in four fifths of it",
        f"  resolution: {result.outputs['resolution']}",
        f"  filtered map: {result.outputs['filtered']}",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(LocalResolutionOptions, run, "Resolution at every voxel, and a map filtered by it.")
