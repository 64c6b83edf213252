"""Whether particles whose symmetry is relaxed have found their mates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec import Job
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.geometry.symmetry import distance_to_mates_deg, symmetry_matrices

UNSETTLED = 0.5
"""Share of particles that change mates in one iteration from which on nothing has been found."""


def share_at_other_mates(
    rotations: NDArray[np.float64], before: NDArray[np.float64], symmetry: NDArray[np.float64]
) -> float:
    """Share of rotations (P, 3, 3) that are nearer to another mate `R g` of those before than to R itself."""
    nearest = distance_to_mates_deg(rotations, before, symmetry)
    return float(np.mean(angular_distance_deg(rotations, before) > nearest))


def warn_of_unsettled_mates(
    job: Job, rotations: NDArray[np.float64], before: NDArray[np.float64], relaxed: str
) -> None:
    """Warns if most particles have changed mates of the point group `relaxed` in the last iteration."""
    share = share_at_other_mates(rotations, before, symmetry_matrices(relaxed))
    if share > UNSETTLED:
        job.warn(
            f"{share:.0%} of the particles have changed to another mate under {relaxed} in the last iteration: what "
            "breaks the symmetry has not been found, and posteriors of mates are those of noise. Start from a map in "
            "which it shows (--ref): tiltwise expand and classify find one"
        )
