"""`tiltwise select`: criteria one after the other, and a set with the particles that fulfil all of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.files import write_text
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import (
    load_optimisation_set,
    table_of,
    write_optimisation_set,
    write_particles,
    write_trajectories,
)
from tiltwise.io.particles import MATE_LABEL
from tiltwise.maps.inputs import record
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import pixel_sizes, poses_of, tilts_seen
from tiltwise.selection import columns
from tiltwise.selection.duplicates import best_of_close
from tiltwise.selection.lattice import Lattice, conforming
from tiltwise.selection.neighbours import Rows, close_pairs
from tiltwise.selection.options import ParticleSetOptions, SelectOptions

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Step:
    """One criterion, and what it took."""

    name: str
    rule: str
    """what was asked for, in words"""
    removed: int
    left: int


@dataclass(frozen=True, slots=True)
class SelectResult:
    """What a selection ends with."""

    before: OptimisationSet
    steps: list[Step]
    removed_by: NDArray[np.intp]
    """(P,) index of the step that took the particle; -1 for those kept"""
    lattice: Lattice | None
    optset: OptimisationSet
    """the particles that are kept"""
    outputs: dict[str, Path]

    @property
    def kept(self) -> Bools:
        """(P,)."""
        return np.asarray(self.removed_by < 0)


def run(options: SelectOptions, job: Job, progress: Progress) -> SelectResult:
    """Select particles into the job's folder.

    Raises
    ------
    ConfigError
        if an option names what the set does not have: classes, tomograms, columns.
    DataError
        if a column is missing that a criterion needs, there is no lattice, or no particle is left.
    """
    before = read(options)
    record(before, job, progress)
    progress.title("select", {"particles": len(before.particles), "tilt series": len(before.series)})
    selection = _Selection(options, before, job)
    removed_by = np.full(len(before.particles), -1, np.intp)
    steps: list[Step] = []
    with job.timing("criteria"):
        for name, rule, keep in selection.criteria():
            job.check_abort()
            rows = np.flatnonzero(removed_by < 0)
            kept = keep(rows)
            lost = rows[~kept[rows]]
            removed_by[lost] = len(steps)
            steps.append(Step(name, rule, len(lost), len(rows) - len(lost)))
            progress.note(f"{name} ({rule}): {len(lost):,} removed, {len(rows) - len(lost):,} left")
            if len(lost) == len(rows):
                raise DataError(
                    "no particle is left",
                    where=", ".join(f"{step.name} ({step.rule})" for step in steps),
                    expected=f"some of {len(before.particles):,} particles",
                    found="; ".join(f"{step.name} removed {step.removed:,}" for step in steps),
                    fix="ask for less: tiltwise star stats shows what the columns hold",
                )
    rows = np.flatnonzero(removed_by < 0)
    optset = taken(before, rows)
    _warn_of_halves(before, optset, job)
    result = SelectResult(before, steps, removed_by, selection.lattice, optset, {})
    with job.timing("write"):
        result.outputs.update(write_set(job, optset))
        result.outputs["select"] = job.path("select.json")
        write_text(result.outputs["select"], json.dumps(summary_of(result), indent=1, allow_nan=False))
        result.outputs["removed"] = job.path("removed.csv")
        write_text(result.outputs["removed"], table_of_removed(result))
        for name in ("select", "removed"):
            job.add_output(result.outputs[name])
    job.metric("particles_before", len(before.particles))
    job.metric("particles_kept", len(rows))
    return result


def read(options: ParticleSetOptions) -> OptimisationSet:
    """The set, whether its tilt images are at hand or not; errors as `load_optimisation_set`."""
    return load_optimisation_set(
        options.input,
        tomograms=options.tomograms,
        particles=options.particles,
        trajectories=options.trajectories,
        need_images=False,
        coordinate_binning=options.coordinate_binning,
    )


def taken(optset: OptimisationSet, rows: Rows) -> OptimisationSet:
    """The set with some of its particles, and their motion."""
    particles = optset.particles.take(rows)
    motion = {name: optset.trajectories[name] for name in particles.name if name in optset.trajectories}
    return replace(optset, particles=particles, trajectories=motion)


def write_set(
    job: Job, optset: OptimisationSet, columns: Mapping[str, Sequence[object]] | None = None
) -> dict[str, Path]:
    """Particles, their motion, and an optimisation set that names them beside the files there were; returns paths."""
    files: dict[str, str | Path | None] = dict(optset.paths)
    outputs = {"particles": job.path("particles.star"), "optimisation_set": job.path("optimisation_set.star")}
    write_particles(outputs["particles"], optset, extra_columns=columns)
    if optset.trajectories:
        outputs["trajectories"] = job.path("motion.star")
        write_trajectories(outputs["trajectories"], optset.trajectories)
    files |= outputs
    del files["optimisation_set"]
    # last: where it exists, everything it names is complete
    write_optimisation_set(outputs["optimisation_set"], **files)
    labels = {
        "particles": "ParticleGroupMetadata.star.relion",
        "optimisation_set": "TomoOptimisationSet.star.relion",
    }
    for name, path in outputs.items():
        job.add_output(path, labels.get(name))
    return outputs


class _Selection:
    """The criteria of the options on one set."""

    def __init__(self, options: SelectOptions, optset: OptimisationSet, job: Job) -> None:
        self.options, self.optset, self.job = options, optset, job
        self.table = table_of(optset)
        self.lattice: Lattice | None = None

    def criteria(self) -> Iterator[tuple[str, str, Callable[[Rows], Bools]]]:
        """Name, rule in words, and a function from the rows that are left to those (P,) that fulfil it."""
        options, table, names = self.options, self.table, self.optset.particles.tomogram
        if options.tomo is not None:
            yield "tomograms", options.tomo, _known(columns.of_tomograms(names, options.tomo, "--tomo"))
        if options.not_tomo is not None:
            others = ~columns.of_tomograms(names, options.not_tomo, "--not-tomo")
            yield "tomograms", f"not {options.not_tomo}", _known(others)
        if options.classes is not None:
            yield "class", options.classes, _known(columns.of_classes(table, options.classes))
        for label, least, flag in (
            (columns.CLASS_POSTERIOR, options.min_class_posterior, "--min-class-posterior"),
            (columns.PROBABILITY, options.min_probability, "--min-probability"),
            (columns.LOG_LIKELIHOOD, options.min_log_likelihood, "--min-log-likelihood"),
        ):
            if least is not None:
                yield label, f"{least:g} at least", _known(columns.at_least(table, label, least, flag))
        if options.where is not None:
            yield "condition", options.where, _known(columns.where(table, options.where))
        if options.min_tilts is not None:
            yield "tilts", f"seen in {options.min_tilts} at least", self._tilts
        if options.border is not None:
            yield "border", f"{options.border:g} Å from the faces at least", self._border
        if options.lattice:
            yield "lattice", "neighbours in their places", self._lattice
        if options.min_distance is not None:
            yield "distance", f"the best within {options.min_distance:g} Å, by {self._score()[0]}", self._distance

    def _tilts(self, rows: Rows) -> Bools:
        assert self.options.min_tilts is not None
        seen = tilts_seen(self.optset, poses_of(self.optset)[1])
        visible = self.optset.particles.visible
        if visible:
            listed = np.array([int(one.sum()) for one in visible])
            seen = np.where(seen < 0, listed, np.minimum(seen, listed))
        if (seen[rows] < 0).any():
            raise DataError(
                "it is not known which tilts show the particles",
                where="--min-tilts",
                expected="tilt images at hand, or rlnTomoVisibleFrames in the particle file",
                found="neither",
                fix="give the set where its images are found, or leave --min-tilts out",
            )
        return np.asarray(seen >= self.options.min_tilts)

    def _border(self, rows: Rows) -> Bools:
        pixel = pixel_sizes(self.optset)[:, None]
        size_of = {one.name: one.tomogram_size for one in self.optset.series}
        size = np.array([size_of[name] for name in self.optset.particles.tomogram], np.float64).reshape(-1, 3)
        if (size[rows] <= 0).any():
            raise DataError(
                "the size of the tomograms is not known",
                where="--border",
                expected="rlnTomoSizeX, Y and Z in the tomogram set",
                fix="add the size the tomograms were reconstructed with, or leave --border out",
            )
        position = poses_of(self.optset)[1]
        inside = np.minimum(position, (size - 1) * pixel - position).min(axis=1)
        return np.asarray(inside >= self.options.border)

    def _lattice(self, rows: Rows) -> Bools:
        options, particles = self.options, self.optset.particles.take(rows)
        if particles.has_mates:
            raise DataError(
                "symmetry mates of a particle are no neighbours on a lattice",
                where="--lattice",
                expected="every particle once",
                found=f"{len(particles)} particles that are mates of {len(set(particles.source))}",
                fix=f"select before tiltwise expand, or take one mate of each: --where '{MATE_LABEL} == 1'",
            )
        self.lattice = conforming(
            self.optset,
            rows,
            symmetry_matrices(options.symmetry),
            certain=options.lattice_probability,
            least=options.lattice_neighbours,
            reach_angstrom=options.neighbour_distance,
            width_angstrom=options.lattice_shift,
            width_deg=options.lattice_angle,
        )
        return self.lattice.kept

    def _score(self) -> tuple[str, NDArray[np.float64]]:
        """Name of what decides between copies, and its values (P,)."""
        label = self.options.score
        if label is None:
            label = next((one for one in columns.SCORES if one in self.table), None)
        if label is None:
            return "order in the file", np.zeros(len(self.table))
        return label.removeprefix("_"), columns.numbers(self.table, label, "--score")

    def _distance(self, rows: Rows) -> Bools:
        assert self.options.min_distance is not None
        particles = self.optset.particles
        pairs = close_pairs(self.optset, rows, 0.0, self.options.min_distance)
        found = best_of_close(pairs, rows, self._score()[1], particles.source_index)
        halves = particles.half_set
        copies = np.flatnonzero(found.instead >= 0)
        across = copies[(halves[copies] > 0) & (halves[copies] != halves[found.instead[copies]])]
        if len(across):
            self.job.warn(
                f"{len(across)} of {len(copies)} copies were in the other half set than the particle that is kept "
                f"({particles.name[across[0]]}, {particles.name[found.instead[across[0]]]}): the half maps that the "
                "poses come from shared their pixels, and their FSC was too good. Go on from a map that is filtered "
                "to a resolution you trust"
            )
        return found.kept


def table_of_removed(result: SelectResult) -> str:
    """What `removed.csv` holds: every particle that was removed, where it is in Å from the corner, and what took it."""
    particles, position = result.before.particles, poses_of(result.before)[1]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["particle", "tomogram", "x_angstrom", "y_angstrom", "z_angstrom", "removed_by"])
    for row in np.flatnonzero(~result.kept):
        place = (f"{value:.2f}" for value in position[row])
        name = result.steps[result.removed_by[row]].name
        writer.writerow([particles.name[row], particles.tomogram[row], *place, name])
    return buffer.getvalue()


def _known(kept: Bools) -> Callable[[Rows], Bools]:
    """A criterion that does not depend on what is left."""
    return lambda rows: kept


def summary_of(result: SelectResult) -> dict[str, Any]:
    """What `select.json` holds."""
    names = result.before.particles.tomogram
    tomograms = {name: {"before": 0, "kept": 0} for name in dict.fromkeys(names)}
    for name, kept in zip(names, result.kept, strict=True):
        tomograms[name]["before"] += 1
        tomograms[name]["kept"] += int(kept)
    content: dict[str, Any] = {
        "particles": {"before": len(names), "kept": int(result.kept.sum())},
        "criteria": [
            {"name": step.name, "rule": step.rule, "removed": step.removed, "left": step.left} for step in result.steps
        ],
        "tomograms": tomograms,
        "half_sets": {
            str(half): int((result.optset.particles.half_set == half).sum())
            for half in np.unique(result.optset.particles.half_set)
            if half > 0
        },
    }
    if result.lattice is not None:
        one = result.lattice
        content["lattice"] = {
            "spacing_angstrom": one.spacing_angstrom,
            "neighbour_distance_angstrom": one.reach_angstrom,
            "shift_angstrom": one.width_angstrom,
            "angle_deg": one.width_deg,
            "deviation_angstrom": one.model.sigma_angstrom,
            "deviation_deg": one.model.sigma_deg,
            "share_on_lattice": one.model.share,
            "places_taken": one.model.occupancy,
            "probability_needed": one.certain,
            "places_needed": one.least,
            "places": [
                {"shift_angstrom": place.shift.tolist(), "rot_tilt_psi_deg": matrix_to_euler(place.turn).tolist()}
                for place in one.places
            ],
        }
    return content


def _warn_of_halves(before: OptimisationSet, after: OptimisationSet, job: Job) -> None:
    """Warns of a half set that is left empty, or much smaller than the other."""
    if not before.particles.half_set.any():
        return
    first, second = (int((after.particles.half_set == half).sum()) for half in (1, 2))
    if min(first, second) < 0.5 * max(first, second):
        job.warn(
            f"{first} and {second} particles are left in the two half sets: --split object in the next refinement "
            "draws new ones"
        )
