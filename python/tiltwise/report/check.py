"""The report of `tiltwise check`: findings, a map of the particles of every series, doses and defoci against tilt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tiltwise.check.convention.decide import ConventionResult
from tiltwise.check.options import CheckOptions
from tiltwise.check.run import CheckResult
from tiltwise.exec.protocols import Scalar
from tiltwise.model import OptimisationSet, TiltSeries
from tiltwise.model.poses import poses_of, series_index
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.pages import positions_section, provenance_sections
from tiltwise.report.style import BLUE, GREY, VERMILION, logarithmic, new_figure, style

F64 = NDArray[np.float64]

_DRAWN = 12
"""Series with a picture; of more, those with the most findings would be hidden in the crowd anyway."""


def write_check_report(path: Path, options: CheckOptions, result: CheckResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise check`; `manifest` is the content of `job.json`."""
    findings = result.findings
    errors, warnings = findings.count("error"), findings.count("warning")
    if errors:
        sentence = f"{errors} error{'s' if errors > 1 else ''}: results would be wrong, or a job would stop."
    elif warnings:
        sentence = f"No errors; {warnings} warning{'s' if warnings > 1 else ''} to look at."
    else:
        sentence = "Nothing suspicious was found."
    facts = {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in result.facts.items()}
    rows = [[one.severity, one.code, one.what, one.where, one.expected, one.found, one.advice] for one in findings]
    sections: list[Section | None] = [
        Section(
            "Findings",
            "Errors first. tiltwise explain CODE tells what each of them does to a result.",
            table=Table(["", "code", "what", "where", "expected", "found", "fix"], rows),
            shape="wide",
        )
        if rows
        else None
    ]
    if result.conventions is not None:
        sections += convention_sections(result.conventions)
    if result.optset is not None:
        sections += _pictures(options, result, result.optset)
    kept = [section for section in sections if section is not None]
    summary = Summary(sentence, facts, manifest["warnings"])
    write_job_report(path, f"Check {options.output}", summary, kept + provenance_sections(manifest))


def _pictures(options: CheckOptions, result: CheckResult, optset: OptimisationSet) -> list[Section | None]:
    series_of = series_index(optset)
    counts = np.bincount(series_of, minlength=len(optset.series))
    chosen = np.sort(np.argsort(-counts, kind="stable")[:_DRAWN])
    sections: list[Section | None] = [positions_section(optset, options.particle_diameter or 100.0)]
    seen = result.seen if result.seen is not None else np.full(len(series_of), -1)
    _, position = poses_of(optset)
    for number in chosen:
        members = np.flatnonzero(series_of == number)
        series = optset.series[int(number)]
        sections.append(
            Section(
                f"Particles of {series.name}",
                "Seen along the beam and from the side, in the frame of the tomogram; colours tell how many tilts see "
                "the particle. Worry if they leave the frame, fill one corner or the middle only, or lie in a plane "
                "where the specimen has none.",
                figure=particle_map(series, position[members] / series.pixel_size_angstrom, seen[members]),
                form="png",
                shape="tall",
            )
        )
    sections.append(
        Section(
            "Tilts",
            "Every line is a tilt series. Dose should be least near zero tilt and rise outwards (or along the series), "
            "defocus stay level, noise be alike in neighbouring tilts.",
            figure=tilt_curves(optset.series, result.noise),
            data=tilt_table(optset.series, result.noise),
            shape="wide",
        )
    )
    return sections


def convention_sections(result: ConventionResult) -> list[Section | None]:
    """What the images say of the conventions."""
    rows: list[list[Scalar]] = [
        [
            one.question,
            one.verdict,
            one.preferred,
            round(one.nats, 1),
            round(one.per_particle, 3),
            round(one.sigma, 1),
            one.particles,
        ]
        for one in result.answers
    ]
    if result.offset is not None:
        t, s = result.offset.tomogram_px, result.offset.sigma_px
        text = ", ".join(f"{x:+.2f} ± {e:.2f}" for x, e in zip(t, s, strict=True)) + " px"
        verdict = "wrong" if result.offset_codes else "confirmed"
        rows.append(["common offset (x, y, z)", verdict, text, None, None, None, result.particles])
    sections: list[Section | None] = [
        Section(
            "Conventions",
            f"A reference map at {result.particles} particles, read in every way. Bars are the log-likelihood by which "
            "the preferred reading beats the best other one, on a logarithmic scale; wrong ones are red, undecided "
            "ones grey. Worry about red bars; grey ones mean that these data do not tell.",
            figure=convention_bars(result) if result.answers else None,
            table=Table(["question", "verdict", "images prefer", "nats", "per particle", "sigma", "particles"], rows),
            shape="wide",
        )
    ]
    if result.slopes is not None:
        sections.append(
            Section(
                "Slope of the defocus",
                "Log-likelihood against the change of defocus along the beam, 1 being the slope of the preferred hand. "
                "Worry if the peak is not near 1: at -1 the hand is wrong, at 0 positions along the beam mean nothing.",
                figure=slope_curve(*result.slopes),
                data=Table(["slope", "nats"], np.stack(result.slopes, axis=1).tolist()),
            )
        )
    return sections


def convention_bars(result: ConventionResult) -> Figure:
    """Nats per particle by which the preferred reading of every convention wins."""
    answers = result.answers[::-1]
    colours = {"wrong": VERMILION, "confirmed": BLUE, "undecided": GREY}
    with style():
        figure = new_figure(10.4, 0.55 + 0.24 * len(answers))
        figure.subplots_adjust(left=0.14, right=0.86, bottom=0.42 / figure.get_figheight(), top=0.97)
        axes = figure.add_subplot()
        widths = [max(one.per_particle, 1e-2) for one in answers]
        axes.barh(range(len(answers)), widths, color=[colours[one.verdict] for one in answers], height=0.65)
        logarithmic(axes, "x")
        axes.set_xlim(1e-2, 2 * max(widths))
        axes.set_yticks(range(len(answers)), [one.question for one in answers])
        for place, (one, width) in enumerate(zip(answers, widths, strict=True)):
            axes.text(width * 1.1, place, f"{one.verdict}, {one.sigma:.1f} σ", va="center", fontsize=8)
        axes.set_xlabel("nats per particle")
        axes.grid(visible=False, axis="y")
    return figure


def slope_curve(slopes: F64, nats: F64) -> Figure:
    """Log-likelihood against the slope of the defocus, over that without slope."""
    with style():
        figure = new_figure(4.6, 2.8)
        axes = figure.add_axes((0.16, 0.17, 0.81, 0.78))
        axes.plot(slopes, nats, ".-", color=BLUE)
        axes.axvline(1.0, color=GREY, lw=0.9, ls="--")
        axes.set_xlabel("slope over that of the preferred hand")
        axes.set_ylabel("nats over no slope")
    return figure


def particle_map(series: TiltSeries, position_px: F64, seen: NDArray[np.intp]) -> Figure:
    """Positions (P, 3) of the particles of one series, from above and from the side.

    `seen` (P,) is the number of tilts that show each, -1 where not known.
    """
    size = np.asarray(series.tomogram_size if min(series.tomogram_size) > 0 else (*series.image_size, 0), float)
    low = np.minimum(position_px.min(axis=0), -0.5)
    high = np.maximum(position_px.max(axis=0), size - 0.5)
    room = 0.03 * (high - low).max()
    low, high = low - room, high + room
    pixel = series.pixel_size_angstrom
    wide = 4.6
    heights = [wide * (high[axis] - low[axis]) / (high[0] - low[0]) for axis in (1, 2)]
    heights = [min(max(height, 0.5), 6.0) for height in heights]
    width, height = wide + 1.5, sum(heights) + 1.25
    known = bool((seen >= 0).all())
    colour: dict[str, Any] = {"c": seen, "cmap": "viridis", "vmin": 0, "vmax": series.n_tilts} if known else {"c": BLUE}
    with style():
        figure = new_figure(width, height)
        for axis, bottom, name in ((2, 0.55, "z (px)"), (1, 0.85 + heights[1], "y (px)")):
            axes = figure.add_axes((0.75 / width, bottom / height, wide / width, heights[axis - 1] / height))
            if size[axis] > 0:
                x, y = size[0] - 0.5, size[axis] - 0.5
                axes.plot([-0.5, x, x, -0.5, -0.5], [-0.5, -0.5, y, y, -0.5], color=GREY, lw=1.0)
            dots = axes.scatter(
                position_px[:, 0],
                position_px[:, axis],
                s=9 if len(position_px) > 300 else 22,
                lw=0,
                alpha=0.85,
                **colour,
            )
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(low[axis], high[axis])
            axes.set_ylabel(name)
            if axis == 2:
                axes.set_xlabel(f"x (px of {pixel:.3g} Å)")
            else:
                axes.set_xticklabels([])
                axes.set_title(f"{series.name}: {len(position_px)} particles", loc="left")
        if known:
            bar = figure.colorbar(
                dots, cax=figure.add_axes(((wide + 0.87) / width, 0.55 / height, 0.1 / width, (height - 1.2) / height))
            )
            bar.set_label("tilts that see it")
            bar.locator = MaxNLocator(integer=True)
            bar.outline.set_visible(False)
    return figure


def tilt_curves(series: tuple[TiltSeries, ...], noise: Mapping[str, F64]) -> Figure:
    """Dose, mean defocus and, where it was measured, noise against tilt angle."""
    panels = ["dose (e/Å²)", "defocus (µm)"] + (["noise over its median"] if noise else [])
    with style():
        figure = new_figure(9.6, 2.7)
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.18, top=0.95, wspace=0.26)
        for place, label in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            for one in series:
                order = np.argsort(one.nominal_tilt_deg, kind="stable")
                if place == 0:
                    values = one.pre_exposure
                elif place == 1:
                    values = 0.5e-4 * (one.defocus_u_angstrom + one.defocus_v_angstrom)
                elif one.name in noise:
                    values = noise[one.name] / np.nanmedian(noise[one.name])
                else:
                    continue
                colour = BLUE if len(series) <= 8 else GREY
                axes.plot(one.nominal_tilt_deg[order], values[order], ".-", color=colour, lw=0.8, ms=3, alpha=0.7)
            if place == 2:
                axes.axhline(1.0, color=VERMILION, lw=0.8)
                low, high = axes.get_ylim()
                if high > 3 or low < 0.3:
                    logarithmic(axes, "y")
            axes.set_xlabel("tilt (°)")
            axes.set_ylabel(label)
    return figure


def tilt_table(series: tuple[TiltSeries, ...], noise: Mapping[str, F64]) -> Table:
    """What these curves show."""
    rows: list[list[Scalar]] = []
    for one in series:
        level = noise.get(one.name)
        for tilt, angle in enumerate(one.nominal_tilt_deg):
            defocus = 0.5e-4 * float(one.defocus_u_angstrom[tilt] + one.defocus_v_angstrom[tilt])
            power = None if level is None else float(level[tilt])
            rows.append([one.name, float(angle), float(one.pre_exposure[tilt]), defocus, power])
    return Table(["tilt series", "tilt °", "dose e/Å²", "defocus µm", "noise"], rows)
