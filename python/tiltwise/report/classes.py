"""Report of `tiltwise classify`: the classes side by side, how they were found, and how sure they are."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tiltwise.classes.groups import PointGroups
from tiltwise.classes.options import ClassifyOptions
from tiltwise.classes.results import BINS, by_tomogram
from tiltwise.maps.masks import focus_mask
from tiltwise.report import pages
from tiltwise.report.html import Cell, Section, Summary, Table, write_job_report
from tiltwise.report.maps import map_slices
from tiltwise.report.style import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, new_figure, style
from tiltwise.report.surfaces import DUST, common_contour, surface_gallery
from tiltwise.spectral.filters import low_pass

if TYPE_CHECKING:
    from tiltwise.classes.classify import ClassifyResult

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, "#CC79A7", "#6B5B95", "#8C6D31")
SURE = 0.9
COARSER = 1.3
"""Low-pass filter of surfaces and differences over the median resolution of the classes."""


def names_of(options: ClassifyOptions, result: ClassifyResult) -> list[str]:
    """Names of all classes."""
    names = [f"class {k + 1}" for k in range(len(result.maps))]
    if options.junk:
        names[-1] += " (junk)"
    return names


def colours_of(names: list[str]) -> dict[str, str]:
    """Colour of every class; junk is grey."""
    return {name: GREY if "junk" in name else _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}


def class_lines(options: ClassifyOptions, result: ClassifyResult) -> list[str]:
    """A line for every class: particles, share, resolution."""
    counts = np.bincount(result.state.classes - 1, minlength=len(result.maps))
    return [
        f"{name}: {count} particles ({share:.1%}), {one.resolution_angstrom:.1f} Å"
        for name, count, share, one in zip(
            names_of(options, result), counts, result.state.share, result.maps, strict=True
        )
    ]


def next_after_classify(options: ClassifyOptions, result: ClassifyResult) -> str:
    """Command that refines the largest class that is not junk."""
    counts = np.bincount(result.state.classes - 1, minlength=len(result.maps))
    best = 1 + int(np.argmax(counts[: options.classes]))
    chosen = f"{options.output}_class{best}"
    select = ["tiltwise", "select", "--i", str(result.outputs["optimisation_set"]), "--class", str(best), "--o", chosen]
    refine: list[str] = ["tiltwise", "refine", "--i", f"{chosen}/optimisation_set.star"]
    refine += ["--ref", str(result.outputs[f"class{best}"]), "--b", str(options.box)]
    if options.crop is not None:
        refine += ["--crop", str(options.crop)]
    if options.binning != 1.0:
        refine += ["--bin", f"{options.binning:g}"]
    if options.particle_diameter is not None:
        refine += ["--particle-diameter", f"{options.particle_diameter:g}"]
    refine += ["--sym", options.group_of(best - 1), "--sigma-ang", "5", "--o", f"{options.output}_refine{best}"]
    return f"{shlex.join(select)} && {shlex.join(refine)}"


def write_classify_report(
    path: Path, options: ClassifyOptions, result: ClassifyResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise classify`; `manifest` is the content of `job.json`."""
    names = names_of(options, result)
    state = result.state
    certain = state.posterior.max(axis=1)
    seconds = sum(manifest["timings_s"].values())
    facts = {
        "particles": f"{len(result.optset.particles):,}",
        "classes": str(len(names)),
        "compared up to": f"{result.pixel_size * len(result.maps[0].map) / result.shell:.1f} Å",
        "expected to be wrong": f"{(1.0 - certain).sum():.1f} particles",
        f"surer than {SURE:.0%}": f"{(certain > SURE).mean():.0%}",
        "time": f"{seconds:.0f} s",
    }
    sentence = f"{result.stop_reason[0].upper()}{result.stop_reason[1:]}. {'; '.join(class_lines(options, result))}."
    summary = Summary(sentence, facts, manifest["warnings"], next_after_classify(options, result))
    maps = {name: one.map for name, one in zip(names, result.maps, strict=True)}
    diameter = options.particle_diameter or len(result.maps[0].map) * result.pixel_size / 2
    alive = {
        name: one.resolution_angstrom
        for k, (name, one) in enumerate(zip(names, result.maps, strict=True))
        if k < options.classes and k + 1 not in state.dead
    }
    coarse = COARSER * float(np.median(list(alive.values())))
    sphere = focus_mask(None, diameter, len(result.maps[0].map), result.pixel_size)
    smooth, noise = {}, {}
    for k, (name, one) in enumerate(zip(names, result.maps, strict=True)):
        if k + 1 in state.dead:
            continue
        # a class that is resolved less is filtered more: its detail is noise
        limit = max(coarse, one.resolution_angstrom if name in alive else coarse)
        smooth[name] = low_pass(one.map, result.pixel_size, limit) * sphere
        half = low_pass(0.5 * (one.halves[0] - one.halves[1]), result.pixel_size, limit)
        noise[name] = float(half[sphere > 0.5].std())
    share = dict(zip(names, state.share, strict=True))
    average = np.average([smooth[name] for name in alive], axis=0, weights=[share[name] for name in alive])
    level = common_contour(np.asarray(average, np.float32), [noise[name] for name in alive])
    even = {name: low_pass(maps[name], result.pixel_size, coarse) * sphere for name in alive}
    mean = np.mean(list(even.values()), axis=0)
    differences = {f"{name} - mean": density - mean for name, density in even.items()}
    symmetry = PointGroups.of(options.groups).common
    sections: list[Section | None] = [
        classes_section(options, result, names),
        Section(
            "Classes at one contour",
            f"Surfaces of all classes at the same density, {level:.3g}, which parts particle and solvent in their "
            f"average; low-passed at {coarse:.0f} Å, or at the resolution of the class where that is worse. Pieces "
            f"below {DUST:.0%} of the largest one are not drawn. Worry if classes look alike (there "
            "are too many), or if one is a smear: it collects what fits nowhere.",
            figure=surface_gallery(smooth, level, result.pixel_size, colours_of(names)),
            form="png",
            shape="wide",
        ),
        Section(
            "Differences",
            f"Every class less the mean of all, low-passed at {coarse:.0f} Å: white is more density. Worry if nothing "
            "but noise is left, or if differences are rings: then it is the height in the ice or the contrast.",
            figure=map_slices(differences, result.pixel_size, options.particle_diameter),
            form="png",
            shape="wide",
        ),
        pages.map_section(maps, result.pixel_size, options.particle_diameter),
        iterations_section(result, names),
        posterior_section(result, names),
        tomograms_section(result, names),
        pages.fsc_section(
            {name: one.fsc for name, one in zip(names, result.maps, strict=True)},
            result.pixel_size,
            inside="the mask of the particle; the half sets of a class share how particles were sorted",
        ),
        pages.positions_section(result.optset, diameter),
        pages.angles_section(result.optset, symmetry if len(symmetry) > 1 else None),
        *pages.provenance_sections(manifest),
    ]
    write_job_report(path, f"Classify {options.output}", summary, [one for one in sections if one is not None])


def classes_section(options: ClassifyOptions, result: ClassifyResult, names: list[str]) -> Section:
    """Table of the classes."""
    state = result.state
    certain, classes = state.posterior.max(axis=1), state.classes
    rows: list[list[Cell]] = []
    for k, (name, one) in enumerate(zip(names, result.maps, strict=True)):
        own = certain[classes == k + 1]
        rows.append(
            [
                name + (", died" if k + 1 in state.dead else ""),
                len(own),
                f"{state.share[k]:.3f}",
                f"{own.mean():.3f}" if len(own) else "",
                int((own > SURE).sum()),
                f"{one.resolution_angstrom:.1f}",
                options.group_of(k),
            ]
        )
    columns = ["class", "particles", "share", "mean posterior", f"surer than {SURE:g}", "resolution Å", "symmetry"]
    meaning = (
        "Posteriors are nearly calibrated: of particles at 0.8 about four in five are right, somewhat fewer where "
        "classes differ little. Worry if mean posteriors are near the shares."
    )
    if len(np.unique(classes)) < 2:
        meaning = "One has all particles: nothing was found that tells them apart, and posteriors mean nothing."
    if state.places:
        meaning += f" First guess: {'; '.join(state.places)}."
    return Section(
        "Classes",
        f"Particles go to the class that is most likely for them; shares count them by their posteriors. {meaning}",
        table=Table(columns, rows),
        shape="wide",
    )


def iterations_section(result: ClassifyResult, names: list[str]) -> Section:
    """Occupancy and switching, iteration by iteration."""
    rows = result.state.history
    numbers = [row["iteration"] for row in rows]
    colours = colours_of(names)
    with style():
        figure = new_figure(9.6, 2.9)
        left, right = figure.add_axes((0.06, 0.17, 0.4, 0.68)), figure.add_axes((0.56, 0.17, 0.4, 0.68))
        for k, name in enumerate(names, 1):
            left.plot(numbers, [row[f"share_{k}"] for row in rows], "o-", ms=3, color=colours[name], label=name)
        left.set_ylim(0.0, 1.0)
        left.set_title("share of every class", loc="left")
        left.legend(loc="upper right", ncols=2)
        right.plot(numbers, [row["switched"] for row in rows], "o-", ms=3, color=BLUE, label="switched class")
        right.plot(numbers, [row["max_probability"] for row in rows], "o-", ms=3, color=GREEN, label="mean posterior")
        right.set_ylim(0.0, 1.05)
        right.set_title("share of particles that switched, and certainty", loc="left")
        right.legend(loc="center right")
        for axes in (left, right):
            axes.set_xlabel("iteration")
            axes.set_xlim(0.5, len(rows) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    table = Table(list(rows[0]), [list(row.values()) for row in rows]) if rows else None
    return Section(
        "Iterations",
        "Worry if particles still switch in the last iterations, or if a class loses all of them.",
        figure=figure,
        table=table,
        data=table,
        folded=True,
        shape="wide",
    )


def posterior_section(result: ClassifyResult, names: list[str]) -> Section:
    """Histogram of the posterior of the chosen class."""
    state = result.state
    certain, classes = state.posterior.max(axis=1), state.classes
    colours = colours_of(names)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    with style():
        figure = new_figure(5.6, 3.2)
        axes = figure.add_axes((0.11, 0.16, 0.86, 0.72))
        parts = [certain[classes == k] for k in range(1, len(names) + 1)]
        axes.hist(parts, bins=edges.tolist(), stacked=True, color=[colours[n] for n in names], label=names)
        axes.set_xlabel("posterior of the chosen class")
        axes.set_ylabel("particles")
        axes.legend(loc="upper left")
    rows = [
        [name, *values] for name, values in zip(result.optset.particles.name, state.posterior.tolist(), strict=True)
    ]
    return Section(
        "Posteriors",
        f"{(1.0 - certain).sum():.1f} particles are expected in the wrong class. Worry if most lie at the left: the "
        "images do not decide.",
        figure=figure,
        data=Table(["particle", *names], rows),
    )


def tomograms_section(result: ClassifyResult, names: list[str]) -> Section:
    """Shares of the classes in every tilt series."""
    table = by_tomogram(result.optset, result.state)
    colours = colours_of(names)
    labels = [series.name for series in result.optset.series]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    height = float(np.clip(1.3 + 0.22 * len(labels), 1.9, 12.0))
    with style():
        figure: Figure = new_figure(5.6, height)
        axes = figure.add_axes((0.2, 0.5 / height, 0.77, 1.0 - 1.0 / height))
        left = np.zeros(len(labels))
        for k, name in enumerate(names):
            axes.barh(range(len(labels)), shares[:, k], left=left, color=colours[name], label=name, height=0.8)
            left += shares[:, k]
        axes.set_yticks(range(len(labels)), labels if len(labels) <= 50 else [""] * len(labels))
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel("share of the particles")
        axes.grid(visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    rows: list[list[Cell]] = [[label, *row] for label, row in zip(labels, table.tolist(), strict=True)]
    return Section(
        "Classes in every tilt series",
        "Worry if a class comes from a few series alone: it may be their defocus, thickness or alignment, not the "
        "particle.",
        figure=figure,
        data=Table(["series", *names], rows),
    )
