"""Report of `tiltwise export`: what was written, and the picture that a deposition asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from tiltwise.export.options import ExportOptions
from tiltwise.files import atomic_path
from tiltwise.io.mrc import read_map
from tiltwise.report import pages
from tiltwise.report.html import Section, Summary, Table, write_job_report

if TYPE_CHECKING:
    from tiltwise.export.run import ExportResult

SURFACE_PX = 300
"""Voxels along each side of the map that is drawn; smaller maps are interpolated."""
SMOOTH_PX = 1.0
PICTURE_PX = 500
"""Width and height of the picture that goes with an entry of the EMDB."""


def write_export_report(path: Path, options: ExportOptions, result: ExportResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise export`; `manifest` is the content of `job.json`.  For the EMDB it adds `emd_image.png`."""
    facts = {
        "form": options.form,
        "particles": f"{len(result.optset.particles):,}",
        "tilt series": f"{len(result.optset.series):,}",
    }
    summary = Summary(f"{len(result.optset.particles):,} particles as {options.form}.", facts, manifest["warnings"])
    sections = []
    if options.form == "emdb":
        density, pixel = read_map(path.with_name("emd_map.mrc"))
        mask, _ = read_map(path.with_name("emd_mask.mrc"))
        picture = path.with_name("emd_image.png")
        with atomic_path(picture) as temporary:
            entry_picture(density * mask, manifest["metrics"]["contour_level"]).savefig(
                temporary, dpi=100, format="png"
            )
        sections.append(pages.map_section({"map": density}, pixel))
        fields = [[name, str(value)] for name, value in manifest["metrics"].items()]
        sections.append(
            Section("Deposition", (path.with_name("methods.txt")).read_text(), table=Table(["", ""], fields))
        )
    if result.notes:
        sections.append(Section("Notes", table=Table([""], [[note] for note in result.notes])))
    sizes = [[file.name, f"{file.stat().st_size / 1e6:.3g} MB"] for file in result.files if file.is_file()]
    sections.append(Section("Written", table=Table(["file", "size"], sizes)))
    write_job_report(path, f"Export {options.output}", summary, sections + pages.provenance_sections(manifest))


def entry_picture(density: NDArray[np.float32], contour: float) -> Figure:
    """The surface at a contour seen along z, lit from the side: what is nearer is lighter."""
    size = len(density)
    factor = max(1.0, SURFACE_PX / size)
    fine = ndimage.zoom(ndimage.gaussian_filter(density, SMOOTH_PX), factor, order=1)
    above = fine > contour
    top = len(fine) - 1 - np.argmax(above[::-1], axis=0)
    # Between voxels: where the density along the view crosses the contour.
    inner = np.take_along_axis(fine, top[None], axis=0)[0]
    outer = np.take_along_axis(fine, np.minimum(top + 1, len(fine) - 1)[None], axis=0)[0]
    depth = top + np.clip((inner - contour) / np.maximum(inner - outer, 1e-12), 0.0, 1.0)
    seen = above.any(axis=0)
    depth = np.where(seen, depth, 0.0)
    slope_y, slope_x = np.gradient(depth)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(depth)])
    light = np.array([-0.5, 0.5, 0.7]) / np.linalg.norm([-0.5, 0.5, 0.7])
    shade = np.clip(np.einsum("i,iyx->yx", light, normal / np.linalg.norm(normal, axis=0)), 0.2, 1.0)
    nearness = (depth - depth[seen].min()) / max(float(np.ptp(depth[seen])), 1.0) if seen.any() else depth
    image = np.where(seen, shade * (0.55 + 0.45 * nearness), 1.0)
    figure = Figure(figsize=(PICTURE_PX / 100, PICTURE_PX / 100))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, origin="lower", interpolation="bicubic")
    return figure
