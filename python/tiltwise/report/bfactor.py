"""Report of `tiltwise bfactor-plot`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from tiltwise.em.bfactor_fit import LEVEL, Forecast
from tiltwise.report import pages
from tiltwise.report.html import Cell, Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, GREY, INK, SKY, VERMILION, logarithmic, new_figure, style
from tiltwise.report.units import duration

if TYPE_CHECKING:
    from tiltwise.em.bfactor import BFactorResult
    from tiltwise.em.options import BFactorPlotOptions

_TICKS = (40, 30, 25, 20, 17, 15, 14, 13, 12, 11, 10, 9, 8, 7.5, 7, 6.5, 6, 5.5, 5, 4.5, 4.2, 4)
_FINE_TICKS = (3.8, 3.6, 3.4, 3.2, 3, 2.8, 2.6, 2.4, 2.2, 2, 1.8, 1.6)


def sentence(result: BFactorResult) -> str:
    """The result in words."""
    whole = f"{result.particles:,} particles reach {result.resolution_angstrom:.2f} Å"
    if result.fit.refused:
        return f"{whole}; there is no B-factor: {result.fit.refused}"
    fit = result.fit
    double = fit.resolution(2.0 * result.particles)
    gain = f"; twice as many would reach {double:.2f} Å" if double >= result.nyquist_angstrom else ""
    return f"{whole}, B-factor {fit.bfactor_angstrom2:.0f} ± {fit.bfactor_sigma:.0f} Å²{gain}"


def forecast_words(one: Forecast) -> str:
    """A forecast in words."""
    if one.refused:
        return one.refused
    low, value, high = (_rounded(v) for v in (one.low, one.particles, one.high))
    return f"{value} particles ({LEVEL:.0%} between {low} and {high})"


def _rounded(count: float) -> str:
    """A number of particles to two digits."""
    if not np.isfinite(count) or count > 1e12:
        return "any number"
    digits = max(0, int(np.floor(np.log10(max(count, 1.0)))) - 1)
    return f"{round(count / 10**digits) * 10**digits:,}"


def write_bfactor_report(
    path: Path, options: BFactorPlotOptions, result: BFactorResult, manifest: Mapping[str, Any]
) -> None:
    """Write the report; `manifest` is the content of `job.json`."""
    fit = result.fit
    facts = {"resolution of all": f"{result.resolution_angstrom:.2f} Å", "particles": f"{result.particles:,}"}
    if not fit.refused:
        facts["B-factor"] = f"{fit.bfactor_angstrom2:.0f} ± {fit.bfactor_sigma:.0f} Å²"
        facts["plain slope"] = f"{fit.plain_angstrom2:.0f} Å²"
        facts["misfit (1 expected)"] = f"{fit.misfit:.2f}"
    facts["subsets"] = str(len(result.points))
    facts["time"] = duration(sum(manifest["timings_s"].values()))
    sections = [_plot_section(result), _forecast_section(result)]
    summary = Summary(sentence(result) + ".", facts, manifest["warnings"])
    write_job_report(path, f"B-factor plot {options.output}", summary, sections + pages.provenance_sections(manifest))


def _plot_section(result: BFactorResult) -> Section:
    rows: list[list[Cell]] = [
        [point.particles, point.resolution_angstrom, point.x, point.limited] for point in result.points
    ]
    return Section(
        "Resolution against particles",
        "Random subsets of the particles: dots, bars are means and standard deviations of each size. The line is the "
        "law of Rosenthal and Henderson, ln N = c + ln(1/d) + B/(2d²), with its interval of 95 %; sizes with an open "
        "dot are not fitted. Worry if the dots bend away from the line: then something else than particles limits the "
        "resolution, and a forecast means nothing. The plain slope, without ln(1/d), is what RELION's plot calls "
        "the B-factor.",
        figure=bfactor_figure(result),
        data=Table(["particles", "Å", "1/d² 1/Å²", "not fitted because"], rows),
    )


def _forecast_section(result: BFactorResult) -> Section:
    if result.fit.refused:
        return Section("Forecast", f"None: {result.fit.refused}.")
    rows: list[list[Cell]] = [
        [
            f"{one.resolution_angstrom:g}",
            one.refused or _rounded(one.particles),
            "" if one.refused else f"{_rounded(one.low)} to {_rounded(one.high)}",
        ]
        for one in result.forecasts
    ]
    return Section(
        "Forecast",
        "Particles that a resolution needs if nothing but their number changes, and the interval of 95 % that the "
        "noise of the subsets leaves. It holds as long as the law does; better poses, CTFs and alignment make B "
        "smaller.",
        table=Table(["Å", "particles", "interval"], rows),
    )


def bfactor_figure(result: BFactorResult) -> Figure:
    """Dots of all subsets, means of every size, and the line with its interval."""
    points, fit = result.points, result.fit
    unfitted = {point.size for point in points if point.limited}
    with style():
        figure = new_figure(5.6, 3.9)
        axes = figure.add_axes((0.14, 0.135, 0.83, 0.72))
        for size in sorted({point.size for point in points}):
            own = [point for point in points if point.size == size]
            x, count = np.array([p.x for p in own]), np.mean([p.particles for p in own])
            colour = GREY if size in unfitted or fit.refused else BLUE
            axes.plot(np.full(len(x), count), x, "o", color=colour, ms=3, alpha=0.45, lw=0)
            spread = float(np.std(x, ddof=1)) if len(x) > 1 else 0.0
            face = "white" if size in unfitted else colour
            axes.errorbar(
                [count], [x.mean()], yerr=[spread] if spread else None, fmt="o", color=colour, mfc=face, ms=6, capsize=3
            )
        counts = [point.particles for point in points]
        low, high = min(counts) / 1.3, max(counts) * (1.3 if fit.refused else 8.0)
        values = [point.x for point in points]
        bottom, top = min(values) * 0.85, max(values) * 1.12
        if not fit.refused:
            x = np.linspace(bottom, top * 1.6, 200)
            told = [fit.log_particles(float(v) ** -0.5) for v in x]
            log_n, sigma = np.array(told).T
            axes.plot(np.exp(log_n), x, color=VERMILION, lw=1.6, label=f"B = {fit.bfactor_angstrom2:.0f} Å²")
            reach = fit.times() * sigma
            axes.fill_betweenx(x, np.exp(log_n - reach), np.exp(log_n + reach), color=VERMILION, alpha=0.15, lw=0)
            foretold = [one for one in result.forecasts if not one.refused and one.particles < high]
            axes.plot(
                [one.particles for one in foretold], [one.resolution_angstrom**-2 for one in foretold], "D", color=INK,
                ms=4.5, label="forecast" if foretold else None,
            )  # fmt: skip
            top = max([top, *(one.resolution_angstrom**-2 * 1.05 for one in foretold)])
        nyquist = result.nyquist_angstrom**-2
        if nyquist < top * 1.1:
            axes.axhline(nyquist, color=SKY, lw=1, ls=":")
            axes.text(high / 1.1, nyquist, "Nyquist", color=GREY, fontsize=8, va="bottom", ha="right")
            top = max(top, nyquist * 1.08)
        logarithmic(axes, "x")
        axes.set_xlim(low, high)
        axes.set_ylim(bottom, top)
        axes.set_xlabel("particles")
        axes.set_ylabel("1/d² (1/Å²)")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left")
        right = axes.secondary_yaxis("right")
        kept: list[float] = []
        for d in (*_TICKS, *_FINE_TICKS):
            if bottom < d**-2 < top and (not kept or d**-2 - kept[-1] ** -2 > 0.075 * (top - bottom)):
                kept.append(float(d))
        right.set_yticks([d**-2 for d in kept], [f"{d:g}" for d in kept])
        right.set_ylabel("resolution (Å)")
        axes.set_position((0.14, 0.135, 0.74, 0.83))
    return figure
