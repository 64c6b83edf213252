"""Report of `tiltwise composite`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltwise.exec.protocols import Scalar
from tiltwise.report import pages
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.maps import map_slices
from tiltwise.report.masked import masked_slices
from tiltwise.spectral.fsc import resolution_angstrom

if TYPE_CHECKING:
    from tiltwise.post.composite import CompositeResult, Part
    from tiltwise.post.options import CompositeOptions


def write_composite_report(
    path: Path, options: CompositeOptions, result: CompositeResult, manifest: Mapping[str, Any]
) -> None:
    """Report; `manifest` is the content of `job.json`."""
    pixel = result.consensus.pixel_size
    gains = [_resolutions(part, result) for part in result.parts]
    better = sum(after < before for before, after in gains)
    facts = {
        "parts": str(len(result.parts)),
        "from parts": f"{float(result.share.sum()) / result.share.size:.1%} of the box",
        "pixel size": f"{pixel:.3g} Å",
        "box": f"{result.consensus.size} px",
    }
    sentence = f"{better} of {len(result.parts)} parts are better than the consensus inside their masks."
    summary = Summary(sentence, facts, manifest["warnings"], next_after_composite(options))
    sections = [
        Section(
            "The composite",
            "The consensus, and the same with the parts put in; means of the half maps, not sharpened. Worry about "
            "steps at the edges of masks: density there belongs to no part, and is not to be interpreted.",
            figure=map_slices({"consensus": result.consensus.mean, "composite": result.map}, pixel),
            form="png",
            shape="wide",
        ),
        Section(
            "Where it comes from",
            "The composite with the outline of all parts together: inside the solid line it is theirs alone.",
            figure=masked_slices(result.map, result.share, pixel),
            form="png",
            shape="wide",
        ),
        _parts_section(result),
    ]
    for part in result.parts:
        curves = {"consensus": part.before, "part": part.after}
        sections.append(pages.fsc_section(curves, pixel, inside=f"the mask of {part.folder}, corrected for it"))
    write_job_report(path, f"Composite {options.output}", summary, sections + pages.provenance_sections(manifest))


def _parts_section(result: CompositeResult) -> Section:
    rows: list[list[Scalar]] = []
    for part in result.parts:
        before, after = _resolutions(part, result)
        turn, shift = float(np.linalg.norm(part.turn_deg)), float(np.linalg.norm(part.shift_angstrom))
        rows.append([str(part.folder), *(round(value, 2) for value in (before, after, turn, shift, part.scale))])
    return Section(
        "Parts",
        "Resolution (FSC 0.143) of consensus and part inside the mask of the part, how far it was turned and moved to "
        "lie on the consensus, and the grey scale of the consensus over its own. Worry about motions of more than "
        "a voxel, and about a scale far below 1 where the part does not bend.",
        table=Table(["part", "consensus Å", "part Å", "turned °", "moved Å", "grey scale"], rows),
        shape="wide",
    )


def _resolutions(part: Part, result: CompositeResult) -> tuple[float, float]:
    """Å of consensus and part inside the mask of a part."""
    pixel = result.consensus.pixel_size
    before, after = (resolution_angstrom(curve, 2 * (len(curve) - 1), pixel) for curve in (part.before, part.after))
    return before, after


def part_text(part: Part, result: CompositeResult) -> str:
    """What a part has gained, in a line."""
    before, after = _resolutions(part, result)
    return f"{part.folder}: {before:.2f} Å in the consensus, {after:.2f} Å as a part"


def next_after_composite(options: CompositeOptions) -> str:
    """Command that is most useful then."""
    return shlex.join(["tiltwise", "postprocess", "--i", str(options.output), "--o", f"{options.output}_postprocess"])
