"""Report of `tiltwise initial-model`: the film of the map, the starts, its hand and symmetry."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.maps.masks import focus_mask
from tiltwise.report import pages
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, GREY, grey_levels, new_figure, plain_image_axes, style
from tiltwise.report.surface import surface_panel
from tiltwise.report.units import duration

if TYPE_CHECKING:
    from tiltwise.initial.options import InitialModelOptions
    from tiltwise.initial.results import InitialModelResult
    from tiltwise.initial.state import Frame

MOST_FRAMES = 12


def write_initial_model_report(
    path: Path, options: InitialModelOptions, result: InitialModelResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise initial-model`; `manifest` is the content of `job.json`."""
    facts = {
        "resolution (FSC 0.143)": f"{result.resolution_angstrom:.1f} Å",
        "particles": f"{len(result.optset.particles):,}",
        "starts that agree": f"{result.starts_that_agree} of {len(result.starts)}",
        "hand": result.hand,
        "symmetry": options.symmetry,
        "pixel size": f"{result.pixel_size:.3g} Å",
        "box": f"{len(result.map)} px",
        "time": duration(sum(manifest["timings_s"].values())),
    }
    sentence = (
        f"A map from {len(result.optset.particles)} particles without orientations; halves of them agree to "
        f"{result.resolution_angstrom:.1f} Å."
    )
    if result.doubtful:
        sentence += (
            " No other start has found it: halves share their first map, and may agree in what is wrong with it."
        )
    summary = Summary(sentence, facts, manifest["warnings"], next_after_initial_model(options, result))
    symmetry, diameter = symmetry_matrices(options.symmetry), options.particle_diameter
    maps = {"map": result.map, "half 1": result.halves[0], "half 2": result.halves[1]}
    sections: list[Section | None] = [
        _film_section(result),
        surface_panel(
            result.map,
            result.pixel_size,
            resolution_angstrom=result.resolution_angstrom,
            mask=focus_mask(None, diameter, len(result.map), result.pixel_size),
            map_file=result.outputs["map"],
        ),
        pages.map_section(maps, result.pixel_size, diameter),
        _starts_section(result),
        pages.fsc_section(
            {"half maps": result.fsc},
            result.pixel_size,
            inside=f"a sphere of {diameter:g} Å; the halves share their data up to {result.shared_angstrom:.0f} Å",
        ),
        _hand_section(result),
        _groups_section(result),
        pages.positions_section(result.optset, diameter),
        pages.angles_section(result.optset, symmetry if len(symmetry) > 1 else None),
        Section(
            "Iterations",
            "Iterations of all starts, then those in half sets.",
            table=_table(result.history),
            data=_table(result.history),
            folded=True,
            shape="wide",
        ),
        *pages.provenance_sections(manifest),
    ]
    kept = [section for section in sections if section is not None]
    write_job_report(path, f"Initial model {options.output}", summary, kept)


def next_after_initial_model(options: InitialModelOptions, result: InitialModelResult) -> str:
    """Refinement that goes on from the map, with finer pixels."""
    images = result.images
    binning = max(1.0, images.binning / 2)
    finer = images.binning / binning
    chosen: dict[str, Any] = {
        "--i": result.outputs["optimisation_set"],
        "--ref": result.outputs["map"],
        "--b": 2 * round(images.box * finer / 2),
        "--crop": 2 * round(images.map_size * finer / 2),
        "--bin": f"{binning:g}",
        "--ini-high": f"{np.ceil(1.5 * result.resolution_angstrom):g}",
        "--particle-diameter": f"{options.particle_diameter:g}",
        "--sym": options.symmetry,
        "--o": f"{options.output}_refine",
    }
    return shlex.join(["tiltwise", "refine", *(str(text) for pair in chosen.items() for text in pair)])


def _film_section(result: InitialModelResult) -> Section:
    start = result.starts[result.choice["start"] - 1]
    frames = _thinned(start.film, MOST_FRAMES // 2) + _thinned(result.film, MOST_FRAMES // 2)
    return Section(
        "Film",
        "Central slices of the map of the start that went on, from random orientations on, of what was chosen from it "
        "(hand, and axes of the point group), and of the refinement in half sets. Worry if the map stays a ball, or "
        "grows spokes instead of a shape.",
        figure=film_strip(frames),
        form="png",
        shape="wide",
    )


def _thinned(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most so many, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    return [frames[i] for i in chosen]


def film_strip(frames: Sequence[Frame]) -> Figure:
    """Slices of maps of one size, a column for each, its title above."""
    cell = 9.6 / len(frames)
    width, height = cell * len(frames) + 0.3, 3 * cell + 0.3
    with style():
        figure = new_figure(width, height)
        for column, frame in enumerate(frames):
            for row, image in enumerate(frame.slices):
                left, bottom = 0.25 + column * cell, (2 - row) * cell + 0.02
                box = (left / width, bottom / height, 0.96 * cell / width, 0.96 * cell / height)
                axes = figure.add_axes(box)
                plain_image_axes(axes)
                black, white = grey_levels(image)
                axes.imshow(image, cmap="gray", vmin=black, vmax=white, origin="lower", interpolation="bilinear")
                if row == 0:
                    axes.set_title(frame.title, fontsize=8.5, pad=3)
                if column == 0:
                    axes.set_ylabel(("xy", "xz", "yz")[row])
    return figure


def _starts_section(result: InitialModelResult) -> Section:
    choice, starts = result.choice, result.starts
    with style():
        figure = new_figure(5.6, 3.4)
        axes = figure.add_axes((0.13, 0.15, 0.84, 0.8))
        for number, start in enumerate(starts, 1):
            chosen = number == choice["start"]
            axes.plot(
                np.arange(1, len(start.evidence) + 1),
                start.evidence,
                "o-",
                ms=3.5,
                color=BLUE if chosen else GREY,
                label="the start that went on" if chosen else None,
                zorder=3 if chosen else 2,
            )
        axes.set_xlabel("iteration")
        axes.set_ylabel("log evidence of a particle (nats)")
        axes.legend(loc="lower right")
    rows = [
        [number, round(start.evidence[-1], 2), round(agreement, 3), "goes on" if number == choice["start"] else ""]
        for number, (start, agreement) in enumerate(zip(starts, choice["agreement"], strict=True), 1)
    ]
    table = Table(["start", "log evidence", "correlation with the one that went on", ""], rows)
    return Section(
        "Starts",
        "Mean log evidence of the particles of every iteration; it rises in steps when more shells are compared. The "
        "last one is of the same particles in all starts. Worry if starts of about the same evidence do not agree, "
        f"with a correlation below {choice['agree_from']:g}: then use more --starts.",
        figure=figure,
        table=table,
        data=table,
    )


def _hand_section(result: InitialModelResult) -> Section:
    choice = result.choice
    gain, error = choice["hand_nats"], choice["hand_nats_error"]
    found = f"by {gain:.2f} ± {error:.2f} nats per particle"
    known = (
        f"The images fit this map better than its mirror image {found}. "
        if choice["hand_determined"]
        else f"The images hardly tell this map from its mirror image ({found}). "
    )
    if result.doubtful:
        known += "The map is made from these images, and one that no other start has found fits them by its noise too. "
    return Section(
        "Hand",
        f"{known}Tilt series are three-dimensional: given which way the stage was tilted, particles have one hand. "
        "That of the map is right if the tilt angles and the tilt axis in the metadata are, and mirrored if the angles "
        "have the wrong sign. These images cannot tell that, the slope of the defocus across them can: `tiltwise check "
        "--ref` with this map looks at both.",
    )


def _groups_section(result: InitialModelResult) -> Section | None:
    if not result.groups:
        return None
    best = result.suggested_group
    found = f"The map has {best} about as well as any of these" if best else "The map has none of these"
    rows = [[axes.group, round(axes.score, 3), "suggested" if axes.group == best else ""] for axes in result.groups]
    table = Table(["point group", "correlation with the copies", ""], rows)
    return Section(
        "Point groups",
        f"Mean correlation of the map with its copies under the operations of a group about its best axes. {found}. "
        "Pseudo-symmetries look like symmetries at low resolution: a refinement with --sym tests the one you choose.",
        table=table,
        data=table,
    )


def _table(history: Sequence[Mapping[str, Any]]) -> Table:
    return Table(list(history[0]), [list(row.values()) for row in history])
