"""Report of `tiltwise align`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltwise.exec.protocols import Scalar
from tiltwise.maps.spectra import last_used_shell
from tiltwise.report import pages
from tiltwise.report.alignment import arrows, residual_curves, tilt_changes, time_colours, trails
from tiltwise.report.film import LEAST_FIELD, MOST, Film, Layer, Panel
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, GREY

if TYPE_CHECKING:
    from tiltwise.motion.align import AlignResult
    from tiltwise.motion.options import AlignOptions
    from tiltwise.motion.results import SeriesResult

SHOWN = 6
"""Series with figures of their own; the tables hold all."""
ARROWS = 9
"""Along each axis."""
ARROW_LENGTH = 0.15
"""Of the longest arrow, over the longer side of the image."""
WORST = 3
"""Tilts whose deformation is shown where every tilt has its own."""
TRAIL_LENGTH = 0.06
"""Of the longest trail shown, over the width of the field."""
FIELD_LENGTH = 0.08
"""Of a long arrow of a residual, over the width of the field."""


def write_align_report(path: Path, options: AlignOptions, result: AlignResult, manifest: Mapping[str, Any]) -> None:
    """What moved, by how much and how surely, and what held-out data say; `manifest` is the content of `job.json`."""
    last = result.curves[-1]
    shell = last_used_shell(last)
    box = 2 * (len(last) - 1)
    facts = {
        "tilt series": str(len(result.series)),
        "particles": f"{len(result.optset.particles):,}",
        "references": f"{box * result.pixel_size / shell:.1f} Å",
        "pixel size": f"{result.pixel_size:.3g} Å",
    }
    motion, deformation = result.priors.motion, result.priors.deformation
    if motion is not None:
        facts["motion, width"] = f"{motion.velocity:.2g} Å per e/Å²"
        facts["motion, range"] = f"{motion.length_angstrom:.0f} Å"
    if deformation is not None:
        facts["deformation, width"] = f"{deformation.sigma_angstrom:.2g} Å"
    words = " ".join(result.words())
    summary = Summary(words, facts, manifest["warnings"], next_after_align(options, result))
    sections = [verdict_section(result), *outlier_sections(result)]
    for one in result.series[:SHOWN]:
        if not one.reason:
            sections += series_sections(one)
        elif (left := residual_section(one)) is not None:
            sections.append(left)
    sections.append(
        pages.fsc_section(
            {f"round {number + 1}": curve for number, curve in enumerate(result.curves)},
            result.pixel_size,
            inside="the mask of the particle; references use the shells before the first one below 0.143",
        )
    )
    write_job_report(path, f"Align {options.output}", summary, sections + pages.provenance_sections(manifest))


def verdict_section(result: AlignResult) -> Section:
    """What held-out data say of every series."""
    rows: list[list[Scalar]] = []
    for one in result.series:
        name = one.data.series.name
        if not one.verdicts:
            rows.append([name, "", one.reason or "not judged", None, None, ""])
        for verdict in one.verdicts:
            limit = None if not np.isfinite(verdict.limit) else round(verdict.limit, 1)
            used = "applied" if one.applied.get(verdict.family) and not one.reason else "not applied"
            rows.append([name, verdict.family, verdict.word, round(verdict.gain, 1), limit, used])
    return Section(
        "Verdicts",
        "Gain in log-likelihood of images that were not fitted: tilts and motion fitted to one half set are judged by "
        "the other, positions fitted to every second tilt by the tilts between; large shifts are found by predicting "
        "whole images from one half set and judged by the other. A family is improved if the lower "
        "limit (99 %, over blocks of particles, all families together) is above zero; --force alone applies others.",
        table=Table(["series", "family", "verdict", "gain (nats)", "lower limit", ""], rows),
        shape="wide",
    )


def outlier_sections(result: AlignResult) -> list[Section]:
    """Tilts and particles that stand out, if there are any."""
    rows: list[list[Scalar]] = []
    for one in result.series:
        series, particle = one.data.series, result.optset.particles.name
        tilt = series.nominal_tilt_deg[one.data.order]
        names = [f"tilt at {tilt[own.index]:.1f}°" for own in one.outlier_tilts]
        names += [particle[one.data.members[own.index]] for own in one.outlier_particles]
        for name, own in zip(names, [*one.outlier_tilts, *one.outlier_particles], strict=True):
            word = "weak" if own.signal else "none"
            rows.append([series.name, name, word, round(own.share, 3), round(own.deviation, 1)])
    if not rows:
        return []
    words = (
        "Tilts and particles whose images agree with their predictions less than half as well as the median of the "
        "series (share: of the median; sd: standard deviations from it), by more than chance explains (1 % for any "
        "tilt, and for any particle, of a series). Tilts without signal stay where they were. Look at the images: such "
        "tilts and particles may be better left out."
    )
    table = Table(["series", "which", "signal", "share", "sd"], rows)
    return [Section("Outliers", words, table=table)]


def series_sections(one: SeriesResult) -> list[Section]:
    """Changes of the tilts and of the particles of a series."""
    series, rank = one.data.series, one.data.rank
    tilt = series.nominal_tilt_deg
    turn, shift = one.turn_deg[rank], one.shift_angstrom[rank]
    errors = one.errors
    turn_sigma = np.zeros_like(turn) if errors is None else errors.turn_deg[rank]
    shift_sigma = np.zeros_like(shift) if errors is None else errors.shift_angstrom[rank]
    image_sigma = np.zeros(len(tilt)) if errors is None else errors.image_angstrom[rank]
    names = ["tilt", "turn x°", "turn y°", "turn z°", "shift x Å", "shift y Å", "error of predicted positions Å"]
    values = np.column_stack([tilt, turn, shift, image_sigma])
    sections = [
        Section(
            f"Tilts of {series.name}",
            "Changes of the geometry of every tilt, with one standard deviation. Worry if changes grow where errors "
            "do, or if single tilts jump: such images may be better left out."
            + (
                " Shifts cannot be told from a motion that all particles share: their errors are large, "
                "those of predicted positions are not."
                if one.applied.get("motion")
                else ""
            ),
            figure=tilt_changes(tilt, turn, turn_sigma, shift, shift_sigma),
            data=Table(names, np.round(values, 4).tolist()),
        )
    ]
    others = [residual_section(one), motion_section(one), deformation_section(one)]
    return sections + [section for section in others if section is not None]


def motion_section(one: SeriesResult) -> Section:
    """How the particles move, or where they were displaced to."""
    series, moved = one.data.series, one.moved_angstrom
    motion = one.motion_angstrom if one.applied.get("motion") else None
    points = one.data.position_px * series.pixel_size_angstrom
    label = "Motion" if motion is not None else "Displacements"
    paths = motion if motion is not None else _steps(one)
    longest = float(np.linalg.norm(np.ptp(paths, axis=1), axis=1).max(initial=0.0))
    width = float(np.ptp(points[:, :2], axis=0).max(initial=LEAST_FIELD))
    magnify = _round_down(TRAIL_LENGTH * width / longest) if longest > 0 else 1.0
    film = None
    if motion is not None:
        travelled = np.sqrt((motion**2).sum(axis=2).mean(axis=0))
        film = Film(
            "trails",
            "Motion of the particles up to the tilt that the slider chooses.",
            [
                f"{words}: moved by {far:.1f} Å (root mean square)"
                for words, far in zip(_tilts(one), travelled, strict=True)
            ],
            points,
            [Layer("motion", motion.transpose(1, 0, 2))],
            [Panel((0, 1), ("x (Å)", "y (Å)")), Panel((0, 2), ("x (Å)", "z (Å)"))],
            magnify,
            series.n_tilts - 1,
            time_colours(series.n_tilts),
        )
    return Section(
        f"{label} of the particles of {series.name}",
        (
            "Motion of every particle from the first tilt (dark) to the last (light)"
            if motion is not None
            else "Displacement of every particle"
        )
        + f", seen along z and along y and drawn {magnify:g} times as long. Predicted positions in the images moved by "
        f"{float(np.sqrt((moved**2).sum(axis=2).mean())):.1f} Å (root mean square). Worry if neighbours move in "
        "different directions." + (f"{_some(len(points))} The paths are in motion.star." if film is not None else ""),
        figure=trails(points, paths, magnify),
        form="png",
        shape="wide" if film is not None else "tall",
        film=film,
        data=Table(
            ["x Å", "y Å", "z Å", "dx Å", "dy Å", "dz Å"],
            np.round(np.column_stack([points, one.alignment.displacement_px * series.pixel_size_angstrom]), 3).tolist(),
        ),
    )


def residual_section(one: SeriesResult) -> Section | None:
    """How far images show their particles from where they are predicted, before and after; None without images."""
    left, series = one.residuals, one.data.series
    if left is None:
        return None
    tilt, pixel = series.nominal_tilt_deg[one.data.order], series.pixel_size_angstrom
    before, after = left.lengths()
    if not np.isfinite(after).any():
        return None
    points = (left.point_px * pixel).transpose(1, 0, 2)
    vectors = [values.transpose(1, 0, 2) for values in (left.before_angstrom, left.after_angstrom)]
    names, worst = ("before", "after"), int(np.nanargmax(after))
    shown = np.isfinite(points[worst]).all(axis=1)
    width = max(float(np.nanmax(points[..., 0]) - np.nanmin(points[..., 0])), LEAST_FIELD)
    fields, magnify = [], []
    for name, values, colour in zip(names, vectors, (GREY, BLUE), strict=True):
        arrow = values[worst, shown]
        fields.append((f"{name}, {tilt[worst]:.0f}°", points[worst, shown], arrow, colour))
        typical = float(np.quantile(np.linalg.norm(arrow, axis=1), 0.9))
        magnify.append(_round_down(FIELD_LENGTH * width / max(typical, 1e-3)))
    film = Film(
        "arrows",
        "Residuals over the image of the tilt that the slider chooses, before and after.",
        [
            f"{words}: median {_length(start)} before, {_length(end)} after"
            for words, start, end in zip(_tilts(one), before, after, strict=True)
        ],
        points,
        [
            Layer(name, values, colour)
            for name, values, colour in zip(names, vectors, ("--soft", "--accent"), strict=True)
        ],
        [Panel((0, 1), ("x (Å)", "y (Å)"))],
        magnify[0],
        worst,
    )
    together = "every particle" if left.particles == 1 else f"groups of {left.particles} neighbours or more"
    rows = np.column_stack([tilt, series.pre_exposure[one.data.order], before, after, left.noise_angstrom])
    return Section(
        f"Residuals of {series.name}",
        f"How far the images show {together} from where they are predicted, with the geometry as it was and as it is "
        "now: medians of every tilt, and arrows over the image of the tilt with the largest one after. The images show "
        "a particle where they correlate best with its prediction, which is made of other particles. Positions were "
        "fitted to these images: what is left can be a little less than noise. Worry if a tilt stays far above the "
        "dashed line, or if arrows beside each other point the same way: such tilts are deformed, or not where they "
        "are thought to be." + _some(len(left.after_angstrom)),
        figure=residual_curves(tilt, before, after, left.noise_angstrom, fields, magnify),
        shape="wide",
        film=film,
        data=Table(["tilt", "dose e/Å²", "before Å", "after Å", "noise Å"], _rounded(rows)),
    )


def deformation_section(one: SeriesResult) -> Section | None:
    """Fields of a series: the one of all tilts, or those of the tilts that are deformed most."""
    basis, deformation = one.specimen.fields, one.deformation
    if basis is None or deformation is None:
        return None
    series, errors = one.data.series, one.errors
    pixel, size = series.pixel_size_angstrom, series.image_size
    axes = [(np.arange(ARROWS) + 0.5) / ARROWS * length for length in size]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    moved = deformation.displacement(np.broadcast_to(points[:, None], (len(points), series.n_tilts, 2)))
    rms = np.sqrt((moved**2).sum(axis=2).mean(axis=0)) * pixel
    tilt = series.nominal_tilt_deg[one.data.order]
    chosen = np.argsort(rms)[::-1][:WORST] if basis.per_tilt else np.zeros(1, np.intp)
    titles = [
        f"tilt {tilt[f]:.0f}°, {rms[f]:.1f} Å" if basis.per_tilt else f"all tilts, {rms[f]:.1f} Å" for f in chosen
    ]
    longest = float(np.linalg.norm(moved[:, chosen], axis=2).max())
    magnify = _round_down(ARROW_LENGTH * max(size) / longest) if longest > 0 else 1.0
    sigma = None if errors is None else errors.field_angstrom
    rows = []
    for f in range(series.n_tilts if basis.per_tilt else 1):
        name = round(float(tilt[f]), 2) if basis.per_tilt else "all"
        rows.append([name, round(float(rms[f]), 3), None if sigma is None else round(float(sigma[f]), 3)])
    return Section(
        f"Deformation of {series.name}",
        "How far the images are displaced in their plane, seen as the images are and drawn "
        f"{magnify:g} times as long; numbers are root mean squares over the image"
        + (f", for the {len(chosen)} tilts that are deformed most" if basis.per_tilt else "")
        + (". Shifts and turns" if basis.per_tilt else ". Shifts, turns and magnification")
        + " of the image are not in it: they belong to tilts and particles. Worry if arrows are long where there are "
        "no particles.",
        figure=arrows([(title, points, moved[:, f]) for title, f in zip(titles, chosen, strict=True)], size, magnify),
        data=Table(["tilt", "displacement Å", "one standard deviation Å"], rows),
    )


def _tilts(one: SeriesResult) -> list[str]:
    """Names of the tilts in the order of acquisition."""
    order, series = one.data.order, one.data.series
    return [
        f"image {number} of {len(order)}, tilt {series.nominal_tilt_deg[row]:.1f}°, "
        f"after {series.pre_exposure[row]:.3g} e/Å²"
        for number, row in enumerate(order, 1)
    ]


def _length(value: float) -> str:
    return f"{value:.2g} Å" if np.isfinite(value) else "unknown"


def _some(count: int) -> str:
    """That not all are in the slider's picture."""
    return f" The slider shows {MOST} of {count}." if count > MOST else ""


def _rounded(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[list[Scalar]]:
    return [[round(float(v), 4) if np.isfinite(v) else None for v in row] for row in values]


def _steps(one: SeriesResult) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(P, 2, 3) from the old to the new position."""
    displacement = one.alignment.displacement_px * one.data.series.pixel_size_angstrom
    return np.stack([np.zeros_like(displacement), displacement], axis=1)


def _round_down(value: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-6)))
    return float(max(step * power for step in (1.0, 2.0, 5.0) if step * power <= value * (1 + 1e-9)))


def next_after_align(options: AlignOptions, result: AlignResult) -> str:
    """Reconstruct with the new geometry."""
    arguments = {
        "--i": result.outputs["optimisation_set"],
        "--b": options.box,
        "--crop": options.map_size,
        "--bin": f"{options.binning:g}",
        "--sym": options.symmetry,
        "--o": f"{options.output}_reconstruct",
    }
    if options.mask is not None:
        arguments["--mask"] = options.mask
    if options.particle_diameter is not None:
        arguments["--particle-diameter"] = f"{options.particle_diameter:g}"
    return shlex.join(["tiltwise", "reconstruct", *(str(part) for pair in arguments.items() for part in pair)])
