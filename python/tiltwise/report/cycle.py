"""Report of `tiltwise cycle`: what every step bought."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.cycle.options import CycleOptions
from tiltwise.io.mrc import read_map
from tiltwise.maps.masks import focus_mask
from tiltwise.report import pages
from tiltwise.report.ablation import ablation_sections
from tiltwise.report.html import Cell, Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, GREY, VERMILION, new_figure, style
from tiltwise.report.surface import surface_panel

if TYPE_CHECKING:
    from tiltwise.cycle.table import CycleResult, Step

NAMES = {
    "refine": "poses",
    "reconstruct": "start",
    "before": "before",
    "ctf": "CTF",
    "align": "alignment",
    "postprocess": "result",
    "ablation": "ablation",
}


def write_cycle_report(path: Path, options: CycleOptions, result: CycleResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise cycle`; `manifest` is the content of `job.json`."""
    first = next((one.resolution_angstrom for one in result.steps if one.resolution_angstrom is not None), None)
    facts = {
        "resolution": f"{result.resolution_angstrom:.1f} Å",
        "at the start": "unknown" if first is None else f"{first:.1f} Å",
        "rounds": str(max(one.round for one in result.steps if one.name not in ("postprocess", "ablation"))),
        "time": f"{sum(one.wall_s for one in result.steps):.0f} s",
        "disk": f"{sum(one.disk_gb for one in result.steps):.3g} GB",
    }
    undo = f"nothing outside {options.output} was changed; to go back, use {result.outputs['before']}"
    summary = Summary(
        f"{result.resolution_angstrom:.1f} Å. It ended: {result.reason}. To undo: {undo}.",
        facts,
        manifest["warnings"],
        f"tiltwise refine --i {result.outputs['optimisation_set']} …",
    )
    sharpened = options.output / "postprocess" / "postprocess.mrc"
    density, pixel = read_map(sharpened)
    sections = [
        *([] if result.ablation is None else ablation_sections(result.ablation)),
        Section(
            "Every step",
            "FSC of half maps reconstructed after every step, inside the mask of its round. Worry if a step that "
            "held-out data support makes the resolution worse.",
            table=steps_table(result.steps),
            shape="wide",
        ),
        Section(
            "Resolution",
            "After every step; a change of binning or of the mask moves it, too. Worry if it gets worse from round to "
            "round.",
            figure=resolution_figure(result.steps),
            data=steps_table(result.steps),
        ),
        Section(
            "Fourier shell correlation",
            "Half maps after every step at the last binning, earlier steps faded. Worry if the last curve is not the "
            "highest.",
            figure=curves_figure(result.steps),
            data=curves_table(result.steps),
        ),
        pages.map_section({"result": density}, pixel, options.particle_diameter),
        surface_panel(
            density,
            pixel,
            resolution_angstrom=result.resolution_angstrom,
            mask=focus_mask(None, options.particle_diameter, density.shape[0], pixel),
            map_file=sharpened,
        ),
    ]
    write_job_report(path, f"Cycle {options.output}", summary, sections + pages.provenance_sections(manifest))


def steps_table(steps: list[Step]) -> Table:
    """One row per step."""
    rows: list[list[Cell]] = [
        [
            one.round,
            NAMES.get(one.name, one.name),
            f"{one.binning:g}",
            "" if one.resolution_angstrom is None else f"{one.resolution_angstrom:.2f}",
            "" if one.mean_fsc is None else f"{one.mean_fsc:.4f}",
            one.words,
            f"{one.wall_s:.1f}",
            f"{one.peak_memory_gb:.2f}",
            f"{one.disk_gb:.3f}",
        ]
        for one in steps
    ]
    heads = ["round", "step", "bin", "Å", "mean FSC", "held-out data, reason", "s", "peak GB", "disk GB"]
    return Table(heads, rows)


def resolution_figure(steps: list[Step]) -> Figure:
    """Resolution after every step."""
    shown = [one for one in steps if one.resolution_angstrom is not None and one.name != "ablation"]
    with style():
        figure = new_figure(5.2, 3.0)
        axes = figure.add_axes((0.16, 0.3, 0.81, 0.65))
        values = [float(one.resolution_angstrom or 0.0) for one in shown]
        axes.plot(range(len(shown)), values, color=GREY, lw=1)
        colours = {"ctf": VERMILION, "align": VERMILION}
        for place, one in enumerate(shown):
            axes.plot(place, values[place], "o", color=colours.get(one.name, BLUE), ms=5)
        labels = [f"{one.round} {NAMES.get(one.name, one.name)}" for one in shown]
        axes.set_xticks(range(len(shown)), labels, rotation=50, ha="right", fontsize=7)
        axes.set_ylabel("resolution (Å)")
        # Differences of less than a percent are none: they shall not fill the figure.
        middle, half = (max(values) + min(values)) / 2, max((max(values) - min(values)) / 2, 0.02 * max(values))
        axes.set_ylim(middle + 1.1 * half, middle - 1.1 * half)
    return figure


def last_curves(steps: list[Step]) -> dict[str, NDArray[np.float64]]:
    """FSC curves of the steps that have the number of shells of the last one."""
    curves = [(one, one.curve) for one in steps if one.curve is not None]
    return {
        f"{one.round} {NAMES.get(one.name, one.name)}": curve
        for one, curve in curves
        if len(curve) == len(curves[-1][1])
    }


def curves_table(steps: list[Step]) -> Table:
    """These curves by shell."""
    curves = last_curves(steps)
    columns = np.stack(list(curves.values()), axis=1) if curves else np.empty((0, 0))
    return Table(["shell", *curves], [[shell, *row] for shell, row in enumerate(columns.tolist())])


def curves_figure(steps: list[Step]) -> Figure:
    """FSC curves of the steps that have the last number of shells."""
    curves = last_curves(steps)
    with style():
        figure = new_figure(5.2, 3.0)
        axes = figure.add_axes((0.12, 0.17, 0.85, 0.78))
        for place, (label, curve) in enumerate(curves.items()):
            last, shade = place == len(curves) - 1, 0.25 + 0.75 * (place + 1) / len(curves)
            axes.plot(np.arange(len(curve)), curve, color=BLUE, alpha=shade, lw=2.0 if last else 1.0, label=label)
        axes.axhline(0.143, color=GREY, lw=0.8)
        axes.set_ylim(-0.05, 1.03)
        axes.set_xlabel("shell")
        axes.set_ylabel("FSC")
        axes.legend(fontsize=7)
    return figure
