"""`tiltwise refine-ctf`: CTFs of all tilts from the particles they show."""

from __future__ import annotations

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.running import running
from tiltwise.ctf.options import RefineCtfOptions


def run(options: RefineCtfOptions, session: Session) -> Outcome:
    """Refine, write the report, and say what came out."""
    from tiltwise.ctf import refine_ctf
    from tiltwise.report.ctf import write_ctf_report

    with running(options, session) as active:
        result = refine_ctf.run(options, active.job, active.progress)
        active.report(write_ctf_report, result)
    words = [
        f"{name.replace('_', ' ')} {verdict.verdict} in {one.name}"
        for one in result.series
        for name, verdict in one.verdicts().items()
    ]
    words += [
        f"{parity} aberrations {fit.verdict.verdict} in {group.name}"
        for group in result.aberrations
        for parity, fit in group.fits.items()
    ]
    lines = [
        "✓ " + ("; ".join(words[:6]) + (f"; and {len(words) - 6} more" if len(words) > 6 else "") or "no evidence"),
        f"  optimisation set: {result.outputs['optimisation_set']}",
        f"  report: {active.job.path('report.html')}",
    ]
    return Outcome(active.job.summary(), lines, result=result)


command = command_from_options(RefineCtfOptions, run, "Refine defocus, astigmatism and contrast of every tilt.")
