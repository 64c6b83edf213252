"""`tiltwise check`: everything that is wrong with a set, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiltwise.check.options import CheckFolderOptions, CheckOptions
from tiltwise.cli.command import Outcome, Session, command_from_options

if TYPE_CHECKING:
    from tiltwise.check.run import CheckResult


def run(options: CheckOptions, session: Session) -> Outcome:
    """Examine a set and list the findings; with `--o` write them to a folder."""
    from tiltwise.check.run import check

    lines: list[str] = []
    if options.output is None:
        result = check(options, session.progress)
    else:
        from tiltwise.cli.running import running
        from tiltwise.files import write_text
        from tiltwise.jobs.manifest import to_json
        from tiltwise.report.check import write_check_report

        given = {name: getattr(options, name) for name in options.model_fields_set}
        # A check is made anew each time: nothing of an earlier one is worth keeping.
        folder = CheckFolderOptions(**given, redo=True)
        with running(folder, session) as active:
            result = check(folder, active.progress)
            write_text(active.job.path("findings.json"), to_json(result.plain(), indent=1) + "\n")
            active.job.add_output(active.job.path("findings.json"))
            active.report(write_check_report, result)
        lines = [f"  report: {options.output / 'report.html'}"]
    return Outcome(result.plain(), [*_lines(result), *lines], exit_code=result.exit_code(options.strict), result=result)


def _lines(result: CheckResult) -> list[str]:
    findings = result.findings
    lines = [line for finding in findings for line in finding.lines()]
    if result.conventions is not None:
        told = result.conventions
        lines.append(f"conventions, asked of {told.particles} particles:")
        for one in told.answers:
            lines.append(
                f"  {one.question:<17} {one.verdict:<10} {one.per_particle:8.2f} nats per particle, {one.sigma:5.1f} σ"
                + (f": {one.preferred}" if one.codes else "")
            )
        if told.offset is not None:
            pairs = zip(told.offset.tomogram_px, told.offset.sigma_px, strict=True)
            lines.append("  common offset     " + ", ".join(f"{x:+.2f} ± {s:.2f}" for x, s in pairs) + " px")
    if result.optset is not None:
        facts = result.facts
        seen = facts["tilts that see a particle (median)"]
        view = f", the median particle is seen in {seen} tilts" if isinstance(seen, int) else ""
        lines.append(f"{facts['particles']:,} particles in {facts['tilt series']} tilt series{view}")
    counts = [f"{n} {name}{'s' if n != 1 else ''}" for name in ("error", "warning", "note")
              if (n := findings.count(name))]  # fmt: skip
    mark = "✗" if findings.count("error") else "!" if findings.count("warning") else "✓"
    lines.append(f"{mark} {', '.join(counts) or 'nothing found'}")
    if len(findings):
        lines.append("  tiltwise explain CODE tells more")
    return lines


command = command_from_options(CheckOptions, run, "List everything that is wrong with a set, with codes and remedies.")
