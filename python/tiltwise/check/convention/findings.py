"""The convention test of a set, and what its answers mean for the user."""

from __future__ import annotations

from tiltwise.check.convention.decide import Answer, ConventionResult, decide
from tiltwise.check.convention.prepare import prepare
from tiltwise.check.findings import Findings
from tiltwise.check.options import CheckFolderOptions, CheckOptions
from tiltwise.check.project import from_error
from tiltwise.errors import TiltwiseError
from tiltwise.exec import Progress
from tiltwise.io.mrc import read_header
from tiltwise.kernels.select import load_backend
from tiltwise.model import OptimisationSet


def examine_conventions(
    options: CheckOptions | CheckFolderOptions, optset: OptimisationSet, findings: Findings, progress: Progress
) -> ConventionResult | None:
    """Ask the images every question; wrong answers become findings.  None if the test cannot be made."""
    assert options.reference is not None
    where = optset.paths.get("particles", "")
    try:
        diameter = options.particle_diameter
        if diameter is None:
            header = read_header(options.reference)
            diameter = header.shape[2] * header.pixel_size[0] / 2
        coarse, fine, readings = prepare(
            optset, options.reference, diameter, options.reach, options.sample, load_backend(), progress
        )
    except TiltwiseError as error:
        from_error(findings, error)
        return None
    with progress.task("conventions", 1) as task:
        result = decide(coarse, fine, readings, slopes=options.output is not None)
        task.advance(1)
    if not result.has_signal:
        findings.add(
            "TW-CONV-15",
            "the images do not show the reference at the particles",
            where,
            expected="more than 4 standard deviations above images beside them",
            found=f"{result.signal_sigma:.1f}",
        )
        return result
    for answer in result.answers:
        for code in answer.codes:
            findings.add(code, f"{answer.preferred}, the images say", where, found=weight_of(answer))
    undecided = [answer.question for answer in result.answers if answer.verdict == "undecided"]
    if undecided:
        findings.add("TW-CONV-16", f"the images do not decide on: {', '.join(undecided)}", where)
    if result.offset_codes and result.offset is not None:
        t, s = result.offset.tomogram_px, result.offset.sigma_px
        found = "(" + ", ".join(f"{x:+.2f} ± {e:.2f}" for x, e in zip(t, s, strict=True)) + ") px"
        one = result.offset_codes == ("TW-CONV-08",)
        what = "one pixel along every axis" if one else "the same distance"
        findings.add(result.offset_codes[0], f"all particles lie {what} off their coordinates", where, found=found)
    return result


def weight_of(answer: Answer) -> str:
    """How strong an answer is, in words."""
    return (
        f"{answer.nats:.0f} nats more than as stated, {answer.per_particle:.2g} per particle, "
        f"{answer.sigma:.1f} standard deviations"
    )
