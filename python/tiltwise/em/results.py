"""What a refinement leaves: maps, and particle tables with RELION's angles, origins and posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.state import HALVES
from tiltwise.exec import Job
from tiltwise.extract.source import Poses
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import series_index

UNKNOWN = 999.0
"""Stands for a number that is not known, as in RELION's files."""
IMPOSSIBLE = -1e30
"""Stands for a log-likelihood of minus infinity."""


def with_poses(optset: OptimisationSet, poses: Poses, halves: NDArray[np.int64]) -> OptimisationSet:
    """The set with new angles, origins and half sets.

    Stored coordinates and subtomogram angles stay: `A_part = A_sub^T R`, and the origin is minus the
    displacement in the frame of the subtomogram.  Particles that have not moved keep their numbers exactly.
    """
    particles = optset.particles
    before = Poses.of(optset)
    turned = (poses.rotation != before.rotation).any(axis=(1, 2))[:, None]
    moved = (poses.displacement_angstrom != before.displacement_angstrom).any(axis=1)[:, None]
    frame = euler_to_matrix(particles.subtomogram_angles_deg)
    inward = np.swapaxes(frame, -1, -2)
    updated = replace(
        particles,
        angles_deg=np.where(turned, matrix_to_euler(inward @ poses.rotation), particles.angles_deg),
        origin_angstrom=np.where(
            moved, -np.einsum("pij,pj->pi", inward, poses.displacement_angstrom), particles.origin_angstrom
        ),
        half_set=halves,
    )
    return replace(optset, particles=updated)


def posterior_columns(optset: OptimisationSet, estimates: Sequence[PoseEstimate]) -> dict[str, list[float] | list[int]]:
    """RELION's per-particle columns from the last E-step, and those of our own: errors of poses.

    Groups are tilt series, as in RELION; there is one class, and no correction of norms.  A particle without any
    likely pose has the evidence `IMPOSSIBLE` and `UNKNOWN` errors.
    """

    def finite(values: list[float], instead: float) -> list[float]:
        return [value if np.isfinite(value) else instead for value in values]

    return {
        "rlnGroupNumber": (1 + series_index(optset)).tolist(),
        "rlnClassNumber": [1] * len(estimates),
        "rlnNormCorrection": [1.0] * len(estimates),
        "rlnLogLikeliContribution": finite([e.log_evidence for e in estimates], IMPOSSIBLE),
        "rlnMaxValueProbDistribution": [e.max_probability for e in estimates],
        "rlnNrOfSignificantSamples": [e.n_significant for e in estimates],
        "tiltwiseAngleStd": finite([e.std_deg for e in estimates], UNKNOWN),
        "tiltwiseOriginStdAngst": finite([e.std_angstrom for e in estimates], UNKNOWN),
        "tiltwiseEffectivePoses": [e.n_effective for e in estimates],
    }


def write_set(
    particles: Path, optimisation_set: Path, optset: OptimisationSet, columns: Mapping[str, Sequence[object]]
) -> None:
    """Writes particles with more `columns` (P,), and the optimisation set that names them beside the same tomograms."""
    write_particles(particles, optset, extra_columns=columns)
    write_optimisation_set(
        optimisation_set,
        particles=particles,
        tomograms=optset.paths["tomograms"],
        trajectories=optset.paths.get("trajectories"),
    )


def write_results(
    job: Job,
    density: NDArray[np.float32],
    raw: Mapping[int, NDArray[np.float32]],
    pixel_size: float,
    optset: OptimisationSet,
    estimates: Sequence[PoseEstimate],
) -> dict[str, Path]:
    """Writes the joined map, the unfiltered half maps `raw` and the particles under RELION's names; returns paths."""
    outputs = {
        "map": job.path("run_class001.mrc"),
        "half1": job.path("run_half1_class001_unfil.mrc"),
        "half2": job.path("run_half2_class001_unfil.mrc"),
        "particles": job.path("run_data.star"),
        "optimisation_set": job.path("run_optimisation_set.star"),
    }
    write_map(outputs["map"], density, pixel_size)
    for half in HALVES:
        write_map(outputs[f"half{half}"], raw[half], pixel_size)
    write_set(outputs["particles"], outputs["optimisation_set"], optset, posterior_columns(optset, estimates))
    labels = {
        "map": "DensityMap.mrc.relion.refine3d",
        "half1": "DensityMap.mrc.relion.halfmap.refine3d",
        "half2": "DensityMap.mrc.relion.halfmap.refine3d",
        "particles": "ParticleGroupMetadata.star.relion.refine3d",
        "optimisation_set": "TomoOptimisationSet.star.relion.refine3d",
    }
    for name, path in outputs.items():
        job.add_output(path, labels[name])
    return outputs
