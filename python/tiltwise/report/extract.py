"""Report of `tiltwise extract`: some of the images, and how many tilts see each particle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.export.options import ExtractOptions, SubtractOptions
from tiltwise.io.stacks import read_pseudo_subtomogram, read_stack
from tiltwise.model import OptimisationSet
from tiltwise.report import pages
from tiltwise.report.focus import focus_sections
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, grey_levels, new_figure, plain_image_axes, style

if TYPE_CHECKING:
    from tiltwise.export.extract import ExtractResult
    from tiltwise.export.subtract import SubtractResult

SHOWN = 12
"""Particles in the gallery."""
COLUMNS = 6


def write_extract_report(
    path: Path, options: ExtractOptions, result: ExtractResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise extract`; `manifest` is the content of `job.json`."""
    kind = "2D stacks" if options.stack2d else "pseudo-subtomograms"
    summary = Summary(
        f"{len(result.optset.particles):,} particles as {kind}.",
        _facts(options, result, manifest),
        manifest["warnings"],
        f"relion_refine --ios {result.outputs['optimisation_set']} …",
    )
    sections = [gallery_section(result.optset), visible_section(result.visible)]
    write_job_report(path, f"Extract {options.output}", summary, sections + pages.provenance_sections(manifest))


def write_subtract_report(
    path: Path, options: SubtractOptions, result: SubtractResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise subtract`; `manifest` is the content of `job.json`."""
    extracted = result.extracted
    summary = Summary(
        f"{len(extracted.optset.particles):,} particles without what is outside {options.focus}.",
        _facts(options, extracted, manifest),
        manifest["warnings"],
        f"relion_refine --ios {extracted.outputs['optimisation_set']} …",
    )
    sections = [*focus_sections(result.focus), gallery_section(extracted.optset), visible_section(extracted.visible)]
    write_job_report(path, f"Subtract {options.output}", summary, sections + pages.provenance_sections(manifest))


def _facts(options: ExtractOptions, result: ExtractResult, manifest: Mapping[str, Any]) -> dict[str, str]:
    pixel = result.optset.optics[0].image_pixel_size_angstrom
    return {
        "particles": f"{len(result.optset.particles):,}",
        "left out": f"{result.left_out:,}",
        "box": f"{options.map_size} px of {pixel:.4g} Å",
        "disk": f"{result.bytes_written / 1e9:.3g} GB",
        "time": f"{sum(manifest['timings_s'].values()):.1f} s",
    }


def gallery_section(optset: OptimisationSet) -> Section:
    """Some particles as they were written, spread over the whole set."""
    count = len(optset.particles)
    chosen = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int))
    images = [_picture(optset, int(particle)) for particle in chosen]
    what = "the mean of the three images nearest to zero tilt" if optset.stacks_are_2d else "the sum along z"
    return Section(
        "Particles",
        f"{len(images)} of {count:,} particles, protein white: {what}. Worry if particles are off their centres, all "
        "black, or look like the edge of the field or a bead.",
        figure=_gallery(images, [optset.particles.name[particle] for particle in chosen]),
        form="png",
        shape="wide",
    )


def visible_section(visible: NDArray[np.int64]) -> Section:
    """How many tilts see the particles."""
    numbers, counts = np.unique(visible, return_counts=True)
    with style():
        figure = new_figure(4.6, 2.6)
        axes = figure.add_axes((0.16, 0.2, 0.8, 0.74))
        axes.bar(numbers, counts, color=BLUE, width=0.8)
        axes.set_xlabel("tilts that see a particle")
        axes.set_ylabel("particles")
        axes.set_xlim(0, numbers.max() + 1)
    return Section(
        "Visible tilts",
        f"Median {np.median(visible):.0f}. Worry if many particles are seen in few tilts: they lie at the rim of the "
        "field, or coordinates are wrong.",
        figure=figure,
        data=Table(["tilts", "particles"], [[int(n), int(c)] for n, c in zip(numbers, counts, strict=True)]),
    )


def _picture(optset: OptimisationSet, particle: int) -> NDArray[np.float32]:
    if not optset.stacks_are_2d:
        return np.asarray(read_pseudo_subtomogram(optset, particle).data.sum(axis=0))
    series = next(one for one in optset.series if one.name == optset.particles.tomogram[particle])
    tilts, images = read_stack(optset, particle)
    return np.asarray(images[np.argsort(np.abs(series.nominal_tilt_deg[tilts]), kind="stable")[:3]].mean(axis=0))


def _gallery(images: list[NDArray[np.float32]], names: list[str]) -> Figure:
    rows = -(-len(images) // COLUMNS)
    with style():
        figure = new_figure(1.6 * COLUMNS, 1.78 * rows)
        figure.subplots_adjust(0.005, 0.01, 0.995, 1.0 - 0.18 / (1.78 * rows), 0.04, 0.14)
        for place, (image, name) in enumerate(zip(images, names, strict=True)):
            axes = figure.add_subplot(rows, COLUMNS, place + 1)
            plain_image_axes(axes)
            low, high = grey_levels(image)
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
            axes.set_title(name, fontsize=8, pad=3)
    return figure
