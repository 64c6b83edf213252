"""Poses of particles in the tomogram frame, from the columns of their table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.projection import is_visible, particle_positions
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.model.optimisation_set import OptimisationSet

F64 = NDArray[np.float64]
AT_ONCE = 20000
"""Particles that are projected at once."""


def series_index(optset: OptimisationSet) -> NDArray[np.intp]:
    """(P,) index of the tilt series of every particle."""
    index = {series.name: i for i, series in enumerate(optset.series)}
    return np.array([index[name] for name in optset.particles.tomogram], dtype=np.intp)


def pixel_sizes(optset: OptimisationSet) -> F64:
    """(P,) unbinned pixel size in Å of every particle."""
    sizes = np.array([series.pixel_size_angstrom for series in optset.series])
    return np.asarray(sizes[series_index(optset)])


def poses_of(optset: OptimisationSet) -> tuple[F64, F64]:
    """Rotations `(P, 3, 3)`, A_sub A_part, reference to tomogram, and positions `(P, 3)` in Å."""
    particles, pixel = optset.particles, pixel_sizes(optset)
    positions = particle_positions(
        particles.coordinate_px, particles.origin_angstrom, particles.subtomogram_angles_deg, pixel
    )
    rotations = euler_to_matrix(particles.subtomogram_angles_deg) @ euler_to_matrix(particles.angles_deg)
    return np.asarray(rotations), np.asarray(positions * pixel[:, None])


def tilts_seen(optset: OptimisationSet, positions_angstrom: F64) -> NDArray[np.intp]:
    """(P,) tilts whose image holds the centre of a particle at (P, 3) Å; -1 where the size of images is not known."""
    series = series_index(optset)
    seen = np.full(len(positions_angstrom), -1, np.intp)
    for number, one in enumerate(optset.series):
        if min(one.image_size) <= 0:
            continue
        members = np.flatnonzero(series == number)
        for start in range(0, len(members), AT_ONCE):
            part = members[start : start + AT_ONCE]
            points = one.project(positions_angstrom[part] / one.pixel_size_angstrom)[..., :2]
            seen[part] = is_visible(points, one.image_size, 0.0).sum(axis=1)
    return seen
