"""Report of `tiltwise demo`: what was wrong, what was found, and what it bought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.config import OutputOptions
from tiltwise.cycle.options import CycleOptions
from tiltwise.cycle.put_back import Pair, changes, matched, pairs_of, poses_back
from tiltwise.geometry.pose_errors import PoseErrors, pose_errors
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.maps.masks import focus_mask
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import pixel_sizes, poses_of
from tiltwise.report import pages
from tiltwise.report.ablation import ablation_sections
from tiltwise.report.curves import fsc_curves
from tiltwise.report.cycle import resolution_figure, steps_table
from tiltwise.report.html import Cell, Section, Summary, Table, write_job_report
from tiltwise.report.style import BLUE, GREY, new_figure, style
from tiltwise.report.surface import surface_panel
from tiltwise.report.units import duration
from tiltwise.sim.score import MapScore, score_map, score_poses
from tiltwise.spectral.fsc import resolution_angstrom

if TYPE_CHECKING:
    from tiltwise.cycle.table import CycleResult

F64 = NDArray[np.float64]

FAMILIES = {
    "defocus": "defocus_error_angstrom",
    "tilt shifts": "shift_error_angstrom",
    "tilt angles": "angle_error_deg",
}
"""What the demo plants besides poses -> key of `summary.json`."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One set of values and its map against the truth."""

    optset: OptimisationSet
    density: NDArray[np.float32]
    poses: PoseErrors
    """in the tomograms of the set, and without the motion of the reference that all poses share"""
    errors: Mapping[str, float]
    """root mean square by family, without what all tilts of a series share with its particles"""
    pairs: list[Pair]
    """every tilt series: before is the truth"""
    score: MapScore
    resolution_angstrom: float
    """FSC 0.5 to the true map"""


@dataclass(frozen=True, slots=True)
class Story:
    """A cycle on simulated data against the truth."""

    start: Compared
    """as the metadata had it; its map is that of the first search for poses"""
    found: Compared
    pixel_size: float

    def summary(self) -> dict[str, float]:
        """Errors of every parameter before and after, for `summary.json`."""
        result = {
            "truth_resolution_angstrom": self.found.resolution_angstrom,
            "first_truth_resolution_angstrom": self.start.resolution_angstrom,
            "pose_error_deg": float(np.median(self.found.poses.angle_deg)),
            "pose_error_angstrom": float(np.median(self.found.poses.distance)),
            "start_pose_error_deg": float(np.median(self.start.poses.angle_deg)),
            "start_pose_error_angstrom": float(np.median(self.start.poses.distance)),
        }
        for family, key in FAMILIES.items():
            result[key] = self.found.errors.get(family, 0.0)
            result[f"start_{key}"] = self.start.errors.get(family, 0.0)
        return result


def story_of(result: CycleResult, options: CycleOptions, *, start: Path, truth: Path, true_map: Path) -> Story:
    """Compares start and end of a cycle with the truth; `start` and `truth` are optimisation sets."""
    true = load_optimisation_set(truth, need_images=False)
    reference, _ = read_map(true_map)
    diameter = float(options.particle_diameter or 0.0)

    def compared(path: Path, folder: Path, refined: Path) -> Compared:
        """Of one set; its map may belong to poses that were refined."""
        optset = load_optimisation_set(path, need_images=None)
        density, pixel = read_map(folder / "run_class001.mrc")
        of_map = score_poses(load_optimisation_set(refined, need_images=False), true)
        score = score_map(density, reference, pixel, diameter, of_map)
        resolution = resolution_angstrom(score.fsc, len(density), pixel, 0.5)
        errors = {one.family: one.size for one in changes(optset, true)}
        pairs = pairs_of(optset, true, matched(optset, true))
        return Compared(optset, density, errors_of_poses(optset, true), errors, pairs, score, resolution)

    first = result.steps[0].folder
    end = result.outputs["optimisation_set"]
    _, pixel = read_map(first / "run_class001.mrc")
    return Story(
        compared(start, first, first / "run_optimisation_set.star"), compared(end, result.final, end), float(pixel)
    )


def errors_of_poses(optset: OptimisationSet, true: OptimisationSet) -> PoseErrors:
    """Of poses, where tilts and particles of a series may have turned and shifted as one."""
    rotation, position = poses_of(optset)
    carried = poses_back(optset, true, "poses")
    if carried is None:
        return pose_errors(rotation, position, rotation, position)
    places = carried.poses.stored_px * pixel_sizes(optset)[:, None] + carried.poses.displacement_angstrom
    return pose_errors(rotation, position, carried.poses.rotation, places, remove_common=True)


def write_demo_report(
    path: Path,
    demo: OutputOptions,
    options: CycleOptions,
    result: CycleResult,
    story: Story,
    manifest: Mapping[str, Any],
) -> None:
    """What was wrong, what was found, what it bought; `manifest` is the content of `job.json`."""
    values, found = story.summary(), story.found
    facts = {
        "map, to the truth": f"{values['truth_resolution_angstrom']:.1f} Å",
        "with new poses alone": f"{values['first_truth_resolution_angstrom']:.1f} Å",
        "half maps": f"{result.resolution_angstrom:.1f} Å",
        "poses": f"{values['start_pose_error_deg']:.1f}° → {values['pose_error_deg']:.1f}°",
        "tilt shifts": f"{values['start_shift_error_angstrom']:.1f} → {values['shift_error_angstrom']:.2f} Å",
        "particles": str(len(found.optset.particles)),
        "time": duration(sum(manifest["timings_s"].values())),
    }
    sentence = (
        "Tilt series were simulated, and their metadata spoiled: defocus, shifts and angles of the tilts, poses of "
        f"the particles. New poses alone give a map that agrees with the truth to "
        f"{values['first_truth_resolution_angstrom']:.1f} Å; one round of alignment, CTF refinement and new poses, to "
        f"{values['truth_resolution_angstrom']:.1f} Å."
    )
    maps = {"new poses alone": story.start.density, "one round": found.density, "truth": found.score.true_map}
    size = len(found.density)
    sections: list[Section | None] = [
        truth_section(story),
        pages.map_section(maps, story.pixel_size, options.particle_diameter),
        *([] if result.ablation is None else ablation_sections(result.ablation)),
        surface_panel(
            found.density,
            story.pixel_size,
            title="Surface of the map",
            resolution_angstrom=result.resolution_angstrom,
            mask=focus_mask(None, options.particle_diameter, size, story.pixel_size),
            map_file=result.final / "run_class001.mrc",
        ),
        fsc_section(story, options),
        Section(
            "Resolution of the half maps",
            "After every step of the cycle.",
            figure=resolution_figure(result.steps),
        ),
        Section(
            "Every step",
            "Each is a job of its own, with its own report. What held-out data do not support is not applied: motion, "
            "of which there is none here, should not be found.",
            table=steps_table(result.steps),
            shape="wide",
        ),
        pages.positions_section(found.optset, options.particle_diameter or 0.0),
        pages.angles_section(found.optset),
        *pages.provenance_sections(manifest),
    ]
    summary = Summary(sentence, facts, manifest["warnings"], f"tiltwise postprocess --i {result.final} --o postprocess")
    title = f"Demo {demo.output}: what was wrong, and what was found"
    write_job_report(path, title, summary, [one for one in sections if one is not None])


def fsc_section(story: Story, options: CycleOptions) -> Section:
    """Both maps against the truth."""
    curves = {"one round": story.found.score.fsc, "new poses alone": story.start.score.fsc}
    columns = [np.arange(len(story.found.score.fsc)), *(np.round(curve, 5) for curve in curves.values())]
    return Section(
        "Fourier shell correlation with the truth",
        f"Of the joined maps, inside a soft sphere of {options.particle_diameter:g} Å; real data have no such curve. "
        "Worry if the half maps promise much more than this one holds.",
        figure=fsc_curves(curves, story.pixel_size, thresholds=dict.fromkeys(curves, 0.5)),
        data=Table(["shell", *curves], np.column_stack(columns).tolist()),
    )


def truth_section(story: Story) -> Section:
    """Errors of every parameter before and after."""
    rows: list[list[Cell]] = []
    for family, unit in (("defocus", "Å"), ("tilt shifts", "Å"), ("tilt angles", "°")):
        before, after = (one.errors.get(family, 0.0) for one in (story.start, story.found))
        rows.append([f"{family} (rms)", _with(before, unit), _with(after, unit), _factor(before, after)])
    for name, attribute, unit in (
        ("orientations (median)", "angle_deg", "°"),
        ("positions (median)", "distance", "Å"),
    ):
        before, after = (float(np.median(getattr(one.poses, attribute))) for one in (story.start, story.found))
        rows.append([name, _with(before, unit), _with(after, unit), _factor(before, after)])
    data = [
        [pair.after.name, float(tilt), *np.round(values, 3).tolist()]
        for old, pair in zip(story.start.pairs, story.found.pairs, strict=True)
        for tilt, values in zip(
            pair.after.nominal_tilt_deg,
            np.column_stack([_of_tilts(old, kind) for kind in KINDS] + [_of_tilts(pair, kind) for kind in KINDS]),
            strict=True,
        )
    ]
    heads = [f"{kind} {when}" for when in ("before", "after") for kind in KINDS]
    return Section(
        "What was wrong, and what was found",
        "Errors against the truth: grey as the metadata had them, blue after the round. Defocus, shifts and turns of "
        "every tilt against its angle, and poses of every particle; what a series shares cannot be "
        "told by any map, and is taken off.",
        figure=truth_figure(story),
        table=Table(["", "before", "after", "smaller by"], rows),
        data=Table(["series", "tilt", *heads], data),
        shape="wide",
    )


KINDS = ("defocus Å", "shift Å", "turn °")


def _of_tilts(pair: Pair, kind: str) -> F64:
    """(F,) error of every tilt: signed of the defocus, else its length."""
    if kind == "defocus Å":
        true, stated = pair.terms
        return np.asarray(stated[:, 0] - true[:, 0])
    if kind == "shift Å":
        return np.asarray(np.linalg.norm(pair.shift_px, axis=1) * pair.after.pixel_size_angstrom)
    return np.asarray(np.linalg.norm(pair.turn_deg, axis=1))


def _with(value: float, unit: str) -> str:
    return f"{value:.3g}{unit}" if unit == "°" else f"{value:.3g} {unit}"


def _factor(before: float, after: float) -> str:
    return f"{before / after:.1f} times" if after > 0 else ""


def truth_figure(story: Story) -> Figure:
    """Three panels of tilts and one of particles."""
    with style():
        figure = new_figure(8.4, 2.5)
        for number, kind in enumerate(KINDS):
            axes = figure.add_axes((0.065 + 0.245 * number, 0.2, 0.175, 0.66))
            for one, colour, marker in ((story.start, GREY, 3.0), (story.found, BLUE, 3.0)):
                tilt = np.concatenate([pair.after.nominal_tilt_deg for pair in one.pairs])
                error = np.concatenate([_of_tilts(pair, kind) for pair in one.pairs])
                axes.plot(tilt, error, "o", color=colour, ms=marker, mec="none", alpha=0.8)
            axes.set_title(f"{kind.split()[0]} ({kind.split()[1]})")
            axes.set_xlabel("tilt (°)")
        axes = figure.add_axes((0.80, 0.2, 0.185, 0.66))
        for one, colour, label in ((story.start, GREY, "before"), (story.found, BLUE, "after")):
            axes.plot(one.poses.angle_deg, one.poses.distance, "o", color=colour, ms=3.0, mec="none", label=label)
        axes.set_title("poses")
        axes.set_xlabel("rotation (°)")
        axes.set_ylabel("position (Å)")
        axes.legend(fontsize=7, loc="lower right", handletextpad=0.2)
    return figure
