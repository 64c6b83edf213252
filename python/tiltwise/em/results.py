"""Poses back into particle tables: RELION's angles and origins, and what the posterior says of each particle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.extract.source import Poses
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.model import OptimisationSet


def with_poses(optset: OptimisationSet, poses: Poses, halves: NDArray[np.int64]) -> OptimisationSet:
    """The set with new angles, origins and half sets.

    Stored coordinates and subtomogram angles stay: `A_part = A_sub^T R`, and the origin is minus the
    displacement in the frame of the subtomogram.
    """
    particles = optset.particles
    frame = euler_to_matrix(particles.subtomogram_angles_deg)
    inward = np.swapaxes(frame, -1, -2)
    updated = replace(
        particles,
        angles_deg=matrix_to_euler(inward @ poses.rotation),
        origin_angstrom=-np.einsum("pij,pj->pi", inward, poses.displacement_angstrom),
        half_set=halves,
    )
    return replace(optset, particles=updated)


def posterior_columns(estimates: Sequence[PoseEstimate]) -> dict[str, list[float] | list[int]]:
    """RELION's per-particle columns from the last E-step."""
    return {
        "rlnLogLikeliContribution": [e.log_evidence for e in estimates],
        "rlnMaxValueProbDistribution": [e.max_probability for e in estimates],
        "rlnNrOfSignificantSamples": [e.n_significant for e in estimates],
    }
