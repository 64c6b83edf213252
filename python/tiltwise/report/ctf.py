"""Report of `tiltwise refine-ctf`: CTFs before and after with error bars, and what held-out particles say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator
from numpy.typing import NDArray

from tiltwise.ctf.aberrations import Aberration, observed_phase
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.ctf.results import GroupResult, SeriesResult
from tiltwise.model import TiltSeries
from tiltwise.report import pages
from tiltwise.report.html import Cell, Section, Summary, Table, write_job_report
from tiltwise.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    logarithmic,
    new_figure,
    plain_image_axes,
    style,
)

if TYPE_CHECKING:
    from tiltwise.ctf.refine_ctf import RefineCtfResult

MOST_SERIES = 12
"""Series whose figures a report shows; the numbers of all are in `ctf.json`."""
MARKER = 3.5
SIDE_DEG = 0.4
"""How far beside each other two values of one tilt are drawn."""


def write_ctf_report(
    path: Path, options: RefineCtfOptions, result: RefineCtfResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise refine-ctf`; `manifest` is the content of `job.json`."""
    facts = {
        "tilt series": str(len(result.series)),
        "half maps agree to": f"{result.resolution_angstrom:.1f} Å",
        "images used to": f"{result.used_angstrom:.1f} Å",
        **moved_by(result.series),
        "time": f"{sum(manifest['timings_s'].values()):.1f} s",
    }
    words = sentence(result.series, result.aberrations, force=options.force)
    summary = Summary(words, facts, manifest["warnings"])
    sections = [verdict_section(result.series, result.aberrations)]
    for series, one in list(zip(result.optset.series, result.series, strict=True))[:MOST_SERIES]:
        if one.fit is not None:
            sections.append(series_section(series, one))
    sections += [aberration_section(group, parity) for group in result.aberrations for parity in group.fits]
    sections += [
        pages.map_section({"reference": result.references.density}, result.pixel_size, options.particle_diameter),
        pages.fsc_section({"half maps": result.references.curve}, result.pixel_size, inside="the mask of the particle"),
    ]
    write_job_report(path, f"CTF refinement {options.output}", summary, sections + pages.provenance_sections(manifest))


NAMES = {
    "defocus": "defocus",
    "phase_shift": "phase shift",
    "scale": "scale",
    "series_scale": "scale against other series",
}
"""Families of parameters of a tilt series, in words."""


def sentence(results: list[SeriesResult], groups: Sequence[GroupResult], *, force: bool) -> str:
    """The outcome in words."""
    words = []
    for family, name in NAMES.items():
        verdicts = [one.verdicts()[family] for one in results if family in one.verdicts()]
        if not verdicts:
            continue
        improved = sum(verdict.improved for verdict in verdicts)
        if len(verdicts) == 1:
            text = f"The {name} is {verdicts[0].verdict}"
            text += "" if verdicts[0].improved else (", applied all the same" if force else " and stays as it was")
        else:
            text = f"The {name} of {improved} of {len(verdicts)} tilt series is improved"
            if improved < len(verdicts):
                text += ", the others are changed all the same" if force else ", the others stay as they were"
        words.append(text)
    for parity in ("even", "odd"):
        fits = [group.fits[parity] for group in groups if parity in group.fits]
        if fits:
            improved = sum(fit.verdict.improved for fit in fits)
            what = (
                "spherical aberration" if not any(fit.coefficients.any() for fit in fits) else f"{parity} aberrations"
            )
            words.append(
                f"The {what} of {improved} of {len(fits)} optics groups {'is' if what[0] == 's' else 'are'} improved"
            )
    return ". ".join(words) + ", as particles say that had no part in the fit." if words else "No evidence was found."


def aberration_name(fit: Aberration) -> str:
    """What a fit to an optics group is called."""
    if fit.spherical is None:
        return f"{'even' if fit.even else 'odd'} aberrations"
    return "even aberrations with Cs" if len(fit.coefficients) else "Cs"


def moved_by(results: list[SeriesResult]) -> dict[str, str]:
    """How far defoci moved and how well they are known."""
    known = np.concatenate([one.known for one in results])
    if not known.any():
        return {}
    moved = np.concatenate([one.after[:, 0] - one.before[:, 0] for one in results])[known]
    sigma = np.concatenate([one.sigma[:, 0] for one in results])[known]
    return {
        "change of defocus (rms)": f"{np.sqrt(np.mean(moved**2)):.0f} Å",
        "its error (median)": f"{np.median(sigma):.0f} Å",
    }


def verdict_section(results: list[SeriesResult], groups: Sequence[GroupResult]) -> Section:
    """What held-out particles say of every series and optics group."""
    rows: list[list[Cell]] = []
    for one in results:
        for family, verdict in one.verdicts().items():
            rows.append([one.name, NAMES[family], verdict.verdict, nats(verdict.gain), nats(verdict.limit)])
        if one.fit is None:
            rows.append([one.name, "", "no evidence", "", ""])
    for group in groups:
        for fit in group.fits.values():
            name, verdict = aberration_name(fit), fit.verdict
            rows.append([group.name, name, verdict.verdict, nats(verdict.gain), nats(verdict.limit)])
    caption = (
        "CTFs were fitted to one half set and scored on the other, and conversely. The gain in log-likelihood must "
        "exceed the limit: what chance allows in one of twenty series that have nothing to gain. Worse or unchanged: "
        "the CTFs stay as they were."
    )
    table = Table(["of", "what", "verdict", "gain", "limit"], rows)
    return Section("Verdict", caption, table=table, folded=len(rows) > 24, shape="wide" if groups else "")


def nats(value: float) -> str:
    """A log-likelihood, to a tenth where that matters."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def series_section(series: TiltSeries, one: SeriesResult) -> Section:
    """CTFs of one series before and after."""
    slab = ""
    if one.slab is not None:
        normal = float(np.degrees(np.arccos(min(1.0, abs(one.slab.normal[2])))))
        slab = (
            f" Slab of ice: {one.slab.thickness:.2f} ± {one.slab.sigma[1]:.2f} mean free paths thick, its normal "
            f"{normal:.1f}° ± {one.slab.sigma[2]:.1f}° off the beam at 0°."
        )
    caption = (
        "Bars are 95 % intervals. Grey: as it was; blue: as it was fitted; hollow: no evidence, stays as it was. The "
        "mean of the scales is kept: one factor of all tilts belongs to the map." + slab
    )
    figure, data = ctf_figure(series, one), ctf_table(series, one)
    return Section(f"CTFs of {one.name}", caption, figure=figure, data=data, shape="wide")


def aberration_section(group: GroupResult, parity: str) -> Section:
    """Phases that pixels ask for, and those of the fit."""
    fit = group.fits[parity]
    caption = (
        f"{fit.verdict.verdict.capitalize()}: gain {fit.verdict.gain:.1f}, limit {fit.verdict.limit:.1f}. Left: what "
        f"every pixel asks for by itself, with noise. Right: the fit. The edge is at {1 / fit.highest:.1f} Å."
    )
    if fit.spherical is not None:
        cs = fit.spherical
        caption += (
            f" Cs changes by {cs.millimetres:+.2f} ± {cs.sigma_millimetres:.2f} mm, and with it all defoci by "
            f"{cs.defocus_angstrom:+.0f} Å."
        )
    title = f"{aberration_name(fit)} of {group.name}"
    return Section(title[0].upper() + title[1:], caption, figure=aberration_figure(group, fit), form="png")


def aberration_figure(group: GroupResult, fit: Aberration) -> Figure:
    """Observed and fitted phase on the plane of frequencies."""
    kx, ky = group.evidence.kx, group.evidence.ky
    step = float(np.min(np.abs(kx[kx != 0])))
    size = round(fit.highest / step)
    observed = observed_phase(group.evidence, even=fit.even)
    limit = max(0.3, float(np.abs(fit.phase(kx, ky)).max()))
    with style():
        figure = new_figure(6.4, 3.2)
        for place, values in ((1, observed), (2, fit.phase(kx, ky))):
            image = np.full((2 * size + 1,) * 2, np.nan)
            x, y = np.rint(kx / step).astype(int), np.rint(ky / step).astype(int)
            image[size + y, size + x] = values
            image[size - y, size - x] = values if fit.even else -values
            axes = figure.add_subplot(1, 2, place)
            shown = axes.imshow(image, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            plain_image_axes(axes)
        figure.colorbar(shown, ax=figure.axes, shrink=0.8, label="radians")
    return figure


def ctf_table(series: TiltSeries, one: SeriesResult) -> Table:
    """The numbers behind the figure."""
    columns = ["tilt_deg", "dose", "particles"]
    values = [series.nominal_tilt_deg, series.pre_exposure, one.counts]
    for index, name in enumerate(("defocus", "astigmatism_1", "astigmatism_2")):
        columns += [f"{name}_before_angstrom", f"{name}_angstrom", f"{name}_sigma_angstrom"]
        values += [one.before[:, index], one.after[:, index], one.sigma[:, index]]
    columns += [
        "scale_before",
        "scale",
        "scale_sigma",
        "phase_shift_before_deg",
        "phase_shift_deg",
        "phase_shift_sigma_deg",
    ]
    values += [one.scale_before, one.scale, one.scale_sigma, one.phase_before, one.phase, one.phase_sigma]
    return Table(columns, [[float(value) for value in row] for row in zip(*values, strict=True)])


def ctf_figure(series: TiltSeries, one: SeriesResult) -> Figure:
    """Defocus, astigmatism, scale and held-out gain of every tilt."""
    tilt, known = series.nominal_tilt_deg, one.known
    order = np.argsort(tilt, kind="stable")
    with style():
        rows = 3 if np.isfinite(one.phase).any() else 2
        figure = new_figure(10.4, 2.8 * rows)
        edge = 0.1 / rows
        figure.subplots_adjust(left=0.075, right=0.985, bottom=1.7 * edge, top=1 - edge, hspace=0.42, wspace=0.19)
        axes = [figure.add_subplot(rows, 2, place) for place in range(1, 4 + (rows == 3) + 1)]
        points(axes[0], tilt, one.before[:, 0], one.after[:, 0], one.sigma[:, 0], known)
        axes[0].set_title("mean defocus", loc="left")
        axes[0].set_ylabel("Å")
        for index, (colour, name) in enumerate(((BLUE, "0°/90°"), (GREEN, "45°/135°")), start=1):
            axes[1].plot(tilt[order], one.before[order, index], "-", color=colour, lw=1, alpha=0.4)
            axes[1].errorbar(
                tilt[known] + SIDE_DEG * (2 * index - 3),
                one.after[known, index],
                1.96 * one.sigma[known, index],
                fmt="o",
                color=colour,
                ms=MARKER,
                lw=1,
                label=f"{name}; line: as it was",
            )
        axes[1].set_title("astigmatism: half the difference of the defoci", loc="left")
        axes[1].set_ylabel("Å")
        low, high = axes[1].get_ylim()
        axes[1].set_ylim(low, high + 0.35 * (high - low))  # room for the legend
        axes[1].legend(loc="upper right", ncols=2)
        points(axes[2], tilt, one.scale_before, one.scale, one.scale_sigma, np.isfinite(one.scale))
        if one.slab is not None:
            axes[2].plot(tilt[order], one.slab.scale[order], "-", color=ORANGE, lw=1.2, label="slab of ice (Lambert)")
        axes[2].legend(loc="best")
        axes[2].set_title("contrast scale", loc="left")
        axes[2].set_ylim(bottom=min(0.0, axes[2].get_ylim()[0]))
        held_out_gain(axes[3], tilt, one)
        if rows == 3:
            points(axes[4], tilt, one.phase_before, one.phase, one.phase_sigma, np.isfinite(one.phase))
            axes[4].set_title("phase shift", loc="left")
            axes[4].set_ylabel("degrees")
        for axis in axes:
            axis.set_xlabel("tilt angle (°)")
    return figure


def points(
    axes: Axes,
    tilt: NDArray[np.float64],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    sigma: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> None:
    """Values before and after, with 95 % intervals."""
    axes.plot(tilt[known], before[known], "o", color=GREY, ms=MARKER, label="as it was")
    axes.plot(tilt[~known], before[~known], "o", color=GREY, ms=MARKER, mfc="none")
    axes.errorbar(tilt[known], after[known], 1.96 * sigma[known], fmt="o", color=BLUE, ms=MARKER, lw=1, label="fitted")
    axes.legend(loc="best")


def held_out_gain(axes: Axes, tilt: NDArray[np.float64], one: SeriesResult) -> None:
    """Log-likelihood that particles without a part in the fit gain in every tilt."""
    gain = np.zeros(len(tilt)) if one.held_out is None else one.held_out.per_tilt
    width = 0.8 * float(np.min(np.diff(np.unique(tilt)), initial=4.0))
    axes.bar(tilt, gain, width=width, color=np.where(gain >= 0, GREEN, VERMILION).tolist())
    if np.abs(gain).max(initial=0.0) > 30.0:
        logarithmic(axes, "y", 10.0)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10.0, linthresh=10.0))
    axes.axhline(0.0, color=INK, lw=0.8)
    axes.set_title("log-likelihood gained by held-out particles", loc="left")
