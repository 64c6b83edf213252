"""`tiltwise expand`: every particle once for each of its symmetry mates, as a particle of its own.

Under a point group the poses `R g` of a particle are equal, and its images hold every asymmetric unit once.  In the
expanded set each pose is a particle: work on one unit in C1 then sees all of them.  Mates share their images, noise
included, so they stay in one half set and one fold, and they are never copies of each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.exec import Job, Progress
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import table_of, with_copies
from tiltwise.io.particles import MATE_LABEL, PRIOR_ANGLE_LABELS, SOURCE_LABEL
from tiltwise.maps.inputs import record
from tiltwise.maps.whole import ANGLE_LABELS, PART_LABELS, Whole
from tiltwise.model import OptimisationSet
from tiltwise.selection.options import ExpandOptions
from tiltwise.selection.run import read, write_set

F64 = NDArray[np.float64]

ON_AXES_ANGSTROM = 0.01
"""How far operations may move the centre of a part that lies on all axes: numbers in files are rounded."""


@dataclass(frozen=True, slots=True)
class ExpandResult:
    """What an expansion ends with."""

    before: int
    """particles"""
    optset: OptimisationSet
    outputs: dict[str, Path]


def run(options: ExpandOptions, job: Job, progress: Progress) -> ExpandResult:
    """Expand a set into the job's folder.

    Raises
    ------
    ConfigError
        if the point group has one operation.
    DataError
        if the set has mates already, or a name that a mate needs, or is one of parts beside its axes.
    """
    before = read(options)
    record(before, job, progress)
    symmetry = symmetry_matrices(options.symmetry)
    progress.title("expand", {"particles": len(before.particles), "symmetry": options.symmetry})
    expanded, columns = with_mates(before, symmetry)
    with job.timing("write"):
        outputs = write_set(job, expanded, columns)
    job.metric("particles", len(expanded.particles))
    return ExpandResult(len(before.particles), expanded, outputs)


def with_mates(
    optset: OptimisationSet, symmetry: F64
) -> tuple[OptimisationSet, dict[str, list[float] | list[int] | list[str]]]:
    """Set with all poses `R g` of every particle, mates next to each other, and the columns that name them.

    The first mate is the particle as it was, under its own name; mate m of `TS_01/17` is `TS_01/17_m2` and so on.
    Errors as `run`.
    """
    particles, count = optset.particles, len(symmetry)
    if count == 1:
        raise ConfigError(
            "there are no symmetry mates",
            where="--sym",
            expected="a point group other than C1",
            found="C1",
            fix="give the point group of the particle, such as --sym C6",
        )
    if particles.has_mates:
        row = int(np.argmax(particles.source_index != np.arange(len(particles))))  # the first mate
        raise DataError(
            "the set is expanded already",
            where=f"_{SOURCE_LABEL}",
            expected="every particle once",
            found=f"{particles.name[row]} is a mate of {particles.source[row]}",
            fix=f"expand the set from before, or take one mate of each: tiltwise select --where '{MATE_LABEL} == 1'",
        )
    whole = Whole.of(optset)
    if whole.known and np.abs(symmetry @ whole.part_angstrom - whole.part_angstrom).max() > ON_AXES_ANGSTROM:
        x, y, z = whole.part_angstrom
        raise DataError(
            "the particles are parts of particles, which have not their symmetry",
            where=f"_{PART_LABELS[0]}",
            expected="whole particles, or parts whose centres are on all axes, as with --focus-center box",
            found=f"a part at {x:.1f}, {y:.1f}, {z:.1f} Å, from a refinement with --focus",
            fix="expand the set of the consensus, and refine the part of all mates",
        )
    rows = np.repeat(np.arange(len(particles)), count)
    mate = np.tile(np.arange(count), len(particles))
    names = [particles.name[row] + (f"_m{m + 1}" if m else "") for row, m in zip(rows, mate, strict=True)]
    if len(set(names)) < len(names):
        taken = sorted(set(particles.name) & {name for name, m in zip(names, mate, strict=True) if m})
        raise DataError(
            "names of particles are those that mates need", found=", ".join(taken[:5]), fix="rename these particles"
        )
    result = with_copies(optset, rows, names)
    operators, angles = symmetry[mate], particles.angles_deg[rows]
    turned = np.where(mate[:, None] > 0, _turned(angles, operators), angles)
    source = [particles.name[row] for row in rows]
    result = replace(result, particles=replace(result.particles, angles_deg=turned, source=tuple(source)))
    columns: dict[str, list[float] | list[int] | list[str]] = {SOURCE_LABEL: source, MATE_LABEL: (mate + 1).tolist()}
    prior = particles.prior_angles_deg
    if prior is not None:
        # an angle without a prior is that of the pose
        mates = _turned(np.where(np.isnan(prior[rows]), angles, prior[rows]), operators)
        table = table_of(optset)
        for axis, label in enumerate(PRIOR_ANGLE_LABELS):
            if label in table:
                columns[label] = np.where(mate > 0, mates[:, axis], table.floats(label)[rows]).tolist()
    if whole.known:  # what else the images show turns with the part
        mates = _turned(whole.angles_deg[rows], operators)
        for axis, label in enumerate(ANGLE_LABELS):
            columns[label] = np.where(mate > 0, mates[:, axis], whole.angles_deg[rows, axis]).tolist()
    return result, columns


def _turned(angles_deg: F64, operators: F64) -> F64:
    """Angles (n, 3) of `A g`: `R g = A_sub (A g)`."""
    return matrix_to_euler(euler_to_matrix(angles_deg) @ operators)
