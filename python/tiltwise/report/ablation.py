"""Report of `tiltwise ablate`: what every correction bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tiltwise.report import pages
from tiltwise.report.curves import fsc_curves
from tiltwise.report.html import Cell, Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, GREY, VERMILION, logarithmic, new_figure, style

if TYPE_CHECKING:
    from tiltwise.cycle.ablation import AblationResult
    from tiltwise.cycle.ablation_options import AblateOptions

LINEAR_NATS = 30.0
"""Gains below are drawn on a linear scale, larger ones on a logarithmic one."""
CERTAIN = 2.0
"""Standard deviations by which a gain is told from none."""

Content = Mapping[str, Any]
"""of `ablation.json`"""


def write_ablation_report(
    path: Path, options: AblateOptions, result: AblationResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise ablate`; `manifest` is the content of `job.json`."""
    table = result.table
    facts = {
        "resolution": f"{table['resolution_angstrom']:.2f} Å",
        "particles": f"{table['particles']:,}",
        "corrections": str(len(table["rows"])),
        "folds": str(table["folds"]),
    }
    summary = Summary(sentence(table), facts, manifest["warnings"])
    sections = ablation_sections(table)
    if table["rows"]:
        curves = {"all": np.array(table["fsc"])}
        curves |= {f"without {row['family']}": np.array(row["fsc_without"]) for row in table["rows"][:5]}
        sections.append(
            Section(
                "Fourier shell correlation",
                "Half maps with all corrections, and without one of them.",
                figure=fsc_curves(curves, float(table["pixel_size_angstrom"])),
            )
        )
    write_job_report(path, f"Ablation {options.output}", summary, sections + pages.provenance_sections(manifest))


def sentence(table: Content) -> str:
    """Which correction bought most, and which nothing."""
    rows = sorted(table["rows"], key=lambda row: -row["gain_nats"])
    if not rows:
        return "There is no correction to put back: both sets are the same."
    best = rows[0]
    words = f"The images gain most by {best['family']} ({best['correction']}): {best['gain_nats']:,.0f} nats."
    if not best["gain_nats"] > 0:
        words = "The images gain by none of the corrections."
    nothing = [row["family"] for row in rows if not row["gain_nats"] > CERTAIN * row["gain_sigma_nats"]]
    if nothing:
        words += f" Not to be told from chance: {', '.join(nothing)}."
    return words


def ablation_sections(table: Content) -> list[Section]:
    """Table and figure; none without corrections."""
    rows: Sequence[Content] = table["rows"]
    if not rows:
        return []
    heads = ["put back", "correction", "numbers fitted", "gain (nats)", "±", "Å without", "mean FSC gain", "± "]
    cells: list[list[Cell]] = [
        [
            row["family"],
            row["correction"],
            "" if row["parameters"] is None else row["parameters"],
            f"{row['gain_nats']:.0f}",
            f"{row['gain_sigma_nats']:.0f}",
            f"{row['resolution_without_angstrom']:.2f}",
            f"{row['mean_fsc_gain']:+.4f}",
            f"{row['mean_fsc_gain_sigma']:.4f}",
        ]
        for row in rows
    ]
    return [
        Section(
            "What every correction bought",
            "One family of corrections is put back to what it was before, all others and the poses stay. Gain: "
            "log-likelihood of all images with it less that without it, from maps that do not hold the particle they "
            "predict; the error is that over spatial blocks of particles. The parameters were fitted to the same "
            "images: chance gives about one nat for each number. Mean FSC of half maps inside the mask over all "
            f"shells; with everything {table['resolution_angstrom']:.2f} Å. Worry if a correction costs: then it was "
            "fitted to noise, or another one makes up for it.",
            figure=ablation_figure(rows),
            table=Table(heads, cells),
            shape="wide",
        )
    ]


def ablation_figure(rows: Sequence[Content]) -> Figure:
    """Gains of the families with one standard deviation, best first."""
    shown = sorted(rows, key=lambda row: row["gain_nats"])
    height = 0.9 + 0.28 * len(shown)
    with style():
        figure = new_figure(8.2, height)
        low, tall = 0.55 / height, 1.0 - 0.7 / height
        left = figure.add_axes((0.23, low, 0.36, tall))
        right = figure.add_axes((0.64, low, 0.33, tall))
        _bars(left, [row["gain_nats"] for row in shown], [row["gain_sigma_nats"] for row in shown])
        logarithmic(left, "x", LINEAR_NATS)
        left.set_xlabel("gain in log-likelihood (nats)")
        left.set_yticks(range(len(shown)), [row["family"] for row in shown])
        _bars(right, [row["mean_fsc_gain"] for row in shown], [row["mean_fsc_gain_sigma"] for row in shown])
        right.set_xlabel("gain in mean FSC")
        right.set_yticks(range(len(shown)), [""] * len(shown))
    return figure


def _bars(axes: Axes, values: Sequence[float], sigmas: Sequence[float]) -> None:
    colours = [BLUE if value > 0 else VERMILION for value in values]
    axes.barh(range(len(values)), values, color=colours, height=0.62)
    finite = [sigma if np.isfinite(sigma) else 0.0 for sigma in sigmas]
    axes.errorbar(values, range(len(values)), xerr=finite, fmt="none", ecolor=GREY, elinewidth=1.2, capsize=2)
    axes.axvline(0.0, color=GREY, lw=0.8)
    axes.grid(axis="y", visible=False)
