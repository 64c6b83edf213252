"""`tiltwise mask`: where the particle is."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.post.options import MaskOptions


def run(options: MaskOptions, session: Session) -> Outcome:
    """Make the mask, write the report, and say what came out and what to do next."""
    from tiltwise.post import mask
    from tiltwise.report.post import next_after_mask, write_mask_report

    with running(options, session) as active:
        result = mask.run(options, active.job, active.progress)
        active.report(write_mask_report, result)
    lines = [
        f"✓ particle of {result.volume_angstrom3 / 1000:.0f} nm³, above {result.threshold.value:.4g}",
        f"  mask: {result.outputs['mask']}",
        f"  report: {active.job.path('report.html')}",
        f"  next: {next_after_mask(options, result)}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(MaskOptions, run, "Soft mask of the particle, from half maps or a map.")
