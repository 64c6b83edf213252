"""Scores of a result on simulated data: what is known of the truth decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.pose_errors import PoseErrors, pose_errors
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import soft_sphere

F64 = NDArray[np.float64]


def score_poses(
    found: OptimisationSet, truth: OptimisationSet, *, symmetry: F64 | None = None, remove_common: bool = True
) -> PoseErrors:
    """Errors of poses in degrees and Å; particles are matched by name.

    Raises
    ------
    DataError
        if a particle has no truth.
    """
    row = {name: i for i, name in enumerate(truth.particles.name)}
    missing = [name for name in found.particles.name if name not in row]
    if missing:
        raise DataError(
            "particles without truth",
            found=f"{missing[0]} and {len(missing) - 1} more",
            fix="score the particles of this simulation, not of another one",
        )
    order = [row[name] for name in found.particles.name]
    true_rotations, true_positions = poses_of(truth)
    rotations, positions = poses_of(found)
    return pose_errors(
        rotations,
        positions,
        true_rotations[order],
        true_positions[order],
        symmetry=symmetry,
        remove_common=remove_common,
    )


@dataclass(frozen=True, slots=True)
class MapScore:
    """Agreement of a map with the truth."""

    fsc: F64
    """(N // 2 + 1,) inside a soft sphere"""
    true_map: NDArray[np.float32]
    """the true map, moved as the particles have moved"""


def score_map(
    density: NDArray[np.float32],
    true_map: NDArray[np.float32],
    pixel_size: float,
    diameter_angstrom: float,
    errors: PoseErrors,
) -> MapScore:
    """FSC to the true map after it has made the motion common to all poses (`errors.common_*`).

    The refined reference has turned and moved with its particles: `x_true = R^T x_refined + o`, so the truth
    is sampled there, by quintic splines.
    """
    from scipy.ndimage import affine_transform

    size = density.shape[0]
    # Arrays are indexed z, y, x: both axes of the matrix are reversed.
    matrix = errors.common_rotation.T[::-1, ::-1]
    centre = np.full(3, size // 2, dtype=np.float64)
    offset = centre - matrix @ centre + errors.common_shift[::-1] / pixel_size
    moved = affine_transform(true_map.astype(np.float64), matrix, offset, order=5).astype(np.float32)
    edge = 5.0
    mask = soft_sphere(size, min(diameter_angstrom / 2 / pixel_size + edge, size / 2), edge)
    return MapScore(fsc(density, moved, mask), moved)
