"""`tiltwise postprocess`: resolution and a sharpened map from half maps."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.post.options import PostprocessOptions


def run(options: PostprocessOptions, session: Session) -> Outcome:
    """Post-process, write the report, and say what came out."""
    from tiltwise.post import postprocess
    from tiltwise.report.post import next_after_postprocess, resolution_text, write_postprocess_report

    with running(options, session) as active:
        result = postprocess.run(options, active.job, active.progress)
        active.report(write_postprocess_report, result)
    lines = [
        f"✓ {resolution_text(result)}",
        f"  B-factor: {result.bfactor_angstrom2:.0f} Å²",
        f"  map: {result.outputs['map']}",
        f"  report: {active.job.path('report.html')}",
        f"  next: {next_after_postprocess(options, result)}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(PostprocessOptions, run, "Resolution and a sharpened map from half maps.")
