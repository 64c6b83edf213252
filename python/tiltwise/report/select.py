"""Reports of `tiltwise select`, what every criterion took and where, and of `tiltwise expand`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from numpy.typing import NDArray

from tiltwise.exec.protocols import Scalar
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.model.poses import poses_of, series_index
from tiltwise.report import pages
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILION, new_figure, style
from tiltwise.selection.neighbours import nearest_pairs

if TYPE_CHECKING:
    from tiltwise.selection.expand import ExpandResult
    from tiltwise.selection.lattice import Lattice
    from tiltwise.selection.options import ExpandOptions, SelectOptions
    from tiltwise.selection.run import SelectResult

F64 = NDArray[np.float64]
_STEP_COLOURS = (VERMILION, ORANGE, GREEN, "#CC79A7", "#7A5230", GREY)
DRAWN_TOMOGRAMS = 24
_PER_ROW = 3
_DOTS_AT_MOST = 4000
_NEAREST = 6


def write_select_report(path: Path, options: SelectOptions, result: SelectResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise select`; `manifest` is the content of `job.json`."""
    before, after = len(result.before.particles), len(result.optset.particles)
    sentence = f"{after:,} of {before:,} particles are kept."
    facts = {
        "kept": f"{after:,}",
        "removed": f"{before - after:,}",
        "share kept": f"{after / before:.1%}",
        "tomograms with particles": f"{len(set(result.optset.particles.tomogram)):,} of {len(result.before.series):,}",
    }
    if result.lattice is not None:
        facts["spacing of the lattice"] = f"{result.lattice.spacing_angstrom:.0f} Å"
    sections = [_criteria_section(result), _neighbours_section(options, result)]
    if result.lattice is not None:
        sections.append(_lattice_section(result.lattice))
    sections.append(_tomograms_section(result))
    summary = Summary(sentence, facts, manifest["warnings"])
    write_job_report(path, f"Select {options.output}", summary, sections + pages.provenance_sections(manifest))


def write_expand_report(path: Path, options: ExpandOptions, result: ExpandResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise expand`; `manifest` is the content of `job.json`."""
    count = len(result.optset.particles)
    sentence = f"{count:,} particles: the {count // result.before} mates under {options.symmetry} of {result.before:,}."
    facts = {"particles": f"{count:,}", "before": f"{result.before:,}", "symmetry": options.symmetry}
    sections = [pages.angles_section(result.optset), *pages.provenance_sections(manifest)]
    write_job_report(path, f"Expand {options.output}", Summary(sentence, facts, manifest["warnings"]), sections)


def _criteria_section(result: SelectResult) -> Section:
    rows: list[list[Scalar]] = [[step.name, step.rule, step.removed, step.left] for step in result.steps]
    return Section(
        "Criteria",
        "In the order in which they were applied: each is asked of what those before it have left.",
        table=Table(["criterion", "kept are", "removed", "left"], rows),
        shape="wide",
    )


def _neighbours_section(options: SelectOptions, result: SelectResult) -> Section:
    """Distances and orientations of near neighbours, of all particles and of those kept."""
    symmetry = symmetry_matrices(options.symmetry)
    parts: dict[str, tuple[F64, F64]] = {}
    for name, rows in (("before", np.arange(len(result.before.particles))), ("kept", np.flatnonzero(result.kept))):
        pairs = nearest_pairs(result.before, rows, _NEAREST)
        angle = np.full(len(pairs), np.inf)
        for operator in symmetry:
            np.minimum(angle, angular_distance_deg(pairs.turn, operator), out=angle)
        parts[name] = pairs.distance, angle
    return Section(
        "Neighbours",
        f"Distance of the {_NEAREST} nearest neighbours of every particle, and the angle between their orientations, "
        "before and after. Worry if many particles are left that are much closer than particles can be (give "
        "--min-distance), or if neighbours on a lattice are turned by any angle.",
        figure=_neighbour_histograms(parts),
        data=_neighbour_table(parts),
        shape="wide",
    )


def _neighbour_limits(parts: Mapping[str, tuple[F64, F64]]) -> tuple[float, float]:
    """Ends of the histograms, Å and degrees."""
    everything = parts["before"][0]
    return (max(float(np.percentile(everything, 98)) if len(everything) else 1.0, 1e-3), 180.0)


def _neighbour_table(parts: Mapping[str, tuple[F64, F64]]) -> Table:
    """Counts of the histograms."""
    columns: list[F64] = []
    for place, limit in enumerate(_neighbour_limits(parts)):
        edges = np.linspace(0.0, limit, 61)
        columns += [edges[:-1], *(np.histogram(values[place], edges)[0].astype(float) for values in parts.values())]
    names = ["distance from Å", *(f"{name}, distance" for name in parts)]
    names += ["angle from °", *(f"{name}, angle" for name in parts)]
    return Table(names, np.round(np.stack(columns, axis=1), 3).tolist())


def _neighbour_histograms(parts: Mapping[str, tuple[F64, F64]]) -> Figure:
    with style():
        figure = new_figure(9.6, 2.9)
        figure.subplots_adjust(left=0.07, right=0.985, bottom=0.18, top=0.94, wspace=0.18)
        limits = _neighbour_limits(parts)
        for place, (label, limit) in enumerate(
            zip(("distance of near neighbours (Å)", "angle between neighbours (°)"), limits, strict=True)
        ):
            axes = figure.add_subplot(1, 2, place + 1)
            bins = [float(edge) for edge in np.linspace(0.0, limit, 61)]
            for (name, values), colour in zip(parts.items(), (GREY, BLUE), strict=True):
                inside = values[place][values[place] <= limit]
                axes.hist(inside, bins=bins, color=colour, alpha=0.75, edgecolor="white", lw=0.4, label=name)
            axes.set_xlabel(label)
            axes.set_xlim(0.0, limit)
            axes.legend(loc="upper right")
            if place == 0:
                axes.set_ylabel("pairs")
    return figure


def _lattice_section(lattice: Lattice) -> Section:
    columns = [[*row] for row in np.round(np.column_stack([place.shift for place in lattice.places]).T, 2).tolist()]
    inside = lattice.off_angstrom <= lattice.width_angstrom
    return Section(
        "Lattice",
        f"Neighbours as the particles see them, and the {len(lattice.places)} places where they belong (circles: three "
        f"times their deviations of {lattice.model.sigma_angstrom:.1f} Å along each axis; turns deviate by "
        f"{lattice.model.sigma_deg:.1f}° about each). {inside.mean():.0%} of the neighbours up to "
        f"{lattice.reach_angstrom:.0f} Å are in a place, within {lattice.width_angstrom:.1f} Å and "
        f"{lattice.width_deg:.1f}°, and {lattice.model.occupancy:.0%} of the places are taken. A particle is kept if "
        f"its neighbours make it {lattice.certain:.0%} likely to be on the lattice, and {lattice.least} of its places "
        "taken by particles that are kept. Worry if clusters of dots lie outside the circles, if circles overlap, or "
        "if many probabilities are neither near 0 nor near 1.",
        figure=_lattice_figure(lattice),
        form="png",
        table=Table(["x Å", "y Å", "z Å"], columns),
        folded=True,
        shape="wide",
    )


def _lattice_figure(lattice: Lattice) -> Figure:
    pairs = lattice.pairs
    step = max(1, -(-len(pairs) // _DOTS_AT_MOST))
    shown = slice(None, None, step)
    inside = (lattice.off_angstrom <= lattice.width_angstrom)[shown]
    shift = pairs.shift[shown]
    places = np.stack([place.shift for place in lattice.places])
    circles = min(3.0 * lattice.model.sigma_angstrom, lattice.width_angstrom)
    reach = 1.05 * max(lattice.reach_angstrom, float(np.abs(places).max()) + circles)
    with style():
        figure = new_figure(9.6, 6.6)
        for left, (a, b), name in ((0.065, (0, 1), "xy"), (0.545, (0, 2), "xz")):
            axes = figure.add_axes((left, 0.42, 0.445, 0.54))
            for mask, colour, alpha in ((~inside, GREY, 0.35), (inside, BLUE, 0.5)):
                axes.scatter(shift[mask, a], shift[mask, b], s=5, color=colour, alpha=alpha, lw=0)
            for place in places:
                circle = Circle((place[a], place[b]), circles, fill=False, color=VERMILION, lw=1.0)
                axes.add_patch(circle)
            axes.plot([0], [0], "+", color=INK, ms=9)
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
            axes.set_aspect("equal")
            axes.set_xlabel(f"{name[0]} of the particle (Å)")
            axes.set_ylabel(f"{name[1]} (Å)")
        members = lattice.took_part
        far, counts = lattice.width_angstrom, np.arange(-0.5, float(lattice.taken.max()) + 1.0)
        panels: tuple[tuple[NDArray[np.generic], F64, float, str, str], ...] = (
            (lattice.off_angstrom, np.linspace(0.0, 1.5 * far, 41), far, "off the place (Å)", "pairs"),
            (lattice.off_deg, np.linspace(0.0, 180.0, 41), lattice.width_deg, "turned off its place (°)", "pairs"),
            (lattice.probability[members], np.linspace(0.0, 1.0, 21), lattice.certain, "probability", "particles"),
            (lattice.taken[members], counts, lattice.least - 0.5, "places taken", "particles"),
        )
        for number, (values, bins, cut, label, unit) in enumerate(panels):
            axes = figure.add_axes((0.065 + 0.244 * number, 0.08, 0.19, 0.235))
            used = values[np.isfinite(values) & (values <= bins[-1])]
            axes.hist(used, bins=[float(edge) for edge in bins], color=SKY, edgecolor="white", lw=0.5)
            axes.axvline(cut, color=VERMILION, ls="--", lw=1.2)
            axes.set_xlabel(label)
            axes.set_ylabel(unit)
    return figure


def _tomograms_section(result: SelectResult) -> Section:
    names = np.array(result.before.particles.tomogram)
    before, after = Counter(names.tolist()), Counter(names[result.kept].tolist())
    counts: list[list[Scalar]] = [[name, count, after[name]] for name, count in before.items()]
    shown = min(len(counts), DRAWN_TOMOGRAMS)
    which = "every tomogram" if shown == len(counts) else f"the first {shown} of {len(counts)} tomograms"
    return Section(
        "Tomograms",
        f"Particles of {which} from above and from the side: those kept, and those removed by the criterion that took "
        "them (`removed.csv` lists them). Worry if whole regions or whole tomograms are empty, or if single particles "
        "are left off all others.",
        figure=_tomograms_figure(result, shown),
        form="png",
        table=Table(["tomogram", "particles", "kept"], counts),
        folded=True,
        shape="wide",
    )


def _tomograms_figure(result: SelectResult, shown: int) -> Figure:
    optset = result.before
    series, position = series_index(optset), poses_of(optset)[1]
    numbers = list(dict.fromkeys(series.tolist()))[:shown]
    taking = [number for number, step in enumerate(result.steps) if step.removed]
    groups = [("kept", BLUE, result.kept)]
    for place, number in enumerate(taking):
        colour = _STEP_COLOURS[place % len(_STEP_COLOURS)]
        groups.append((result.steps[number].name, colour, result.removed_by == number))
    boxes = np.array([[position[series == n].min(axis=0), position[series == n].max(axis=0)] for n in numbers])
    middle = boxes.mean(axis=1)
    extent = 1.08 * np.ptp(boxes, axis=1).max(axis=0) + 20.0  # Å, the same for all
    columns = min(_PER_ROW, len(numbers))
    across = (9.6 - 0.62 * columns) / columns if columns > 1 else 4.6
    scale = min(across / extent[0], 6.0 / extent[1])  # inches per Å
    wide, high, deep = scale * extent
    line_height, column_width = high + deep + 0.95, wide + 0.62
    lines = -(-len(numbers) // columns)
    size = max(columns * column_width, 4.0), lines * line_height + 0.35
    with style():
        figure = new_figure(*size)
        for place, number in enumerate(numbers):
            line, column = divmod(place, columns)
            left, top = 0.56 + column * column_width, size[1] - 0.6 - line * line_height
            for axis, name, bottom, tall in ((1, "y", top - high, high), (2, "z", top - high - 0.12 - deep, deep)):
                axes = figure.add_axes((left / size[0], bottom / size[1], wide / size[0], tall / size[1]))
                _dots(axes, position, series == number, groups, axis)
                axes.set_xlim(*(middle[place][0] + np.array([-0.5, 0.5]) * extent[0]))
                axes.set_ylim(*(middle[place][axis] + np.array([-0.5, 0.5]) * extent[axis]))
                axes.set_ylabel(f"{name} (Å)")
                axes.tick_params(labelsize=7, labelbottom=axis == 2)
                if axis == 1:
                    axes.set_title(optset.series[number].name, loc="left")
                else:
                    axes.set_xlabel("x (Å)")
        handles = [
            Line2D([], [], ls="", marker="o" if name == "kept" else "x", ms=5, color=colour, label=name)
            for name, colour, _ in groups
        ]
        figure.legend(handles=handles, loc="upper left", ncols=len(handles))
    return figure


def _dots(
    axes: Axes,
    position: F64,
    members: NDArray[np.bool_],
    groups: list[tuple[str, str, NDArray[np.bool_]]],
    axis: int,
) -> None:
    size = 14.0 if members.sum() < 400 else 5.0
    for name, colour, mask in groups:
        points = position[members & mask]
        marker = "o" if name == "kept" else "x"
        edge = 0.0 if name == "kept" else 0.9
        axes.scatter(points[:, 0], points[:, axis], s=size, color=colour, marker=marker, lw=edge, alpha=0.8)
