"""Particles that have a symmetry but for one subunit, with poses that know no better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.rotations import angular_distance_deg, matrix_to_euler
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.sim.density import sample_map
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.phantom import build_phantom
from tiltwise.sim.simulate import SimulatedData, simulate
from tiltwise.sim.specimen import rotation_from_vector
from tiltwise.spectral.filters import low_pass

PIXEL, BOX, DIAMETER, GROUP = 6.0, 32, 130.0, "C6"
BEADS_OF_UNIT = 80


def nearly_symmetric(
    folder: Path, *, group: str = GROUP, missing: float = 0.5, error_deg: float = 2.0, **changes: Any
) -> SimulatedData:
    """Two series of phantoms that lack the share `missing` of one subunit; particles stated at a mate at random.

    Of the beads of that subunit those farthest from the middle are left out.  The reference is low-passed and lacks it
    too; `symmetric.mrc` beside it is the same with all subunits equal.  A box other than 32 holds a larger particle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mates, box = symmetry_matrices(group), int(changes.get("box", BOX))
    diameter = DIAMETER * box / BOX
    whole = build_phantom(diameter, BEADS_OF_UNIT * len(mates), group, 1)
    distance = np.linalg.norm(whole.position_angstrom[:BEADS_OF_UNIT], axis=1)  # of the first subunit
    inner = np.argsort(distance, kind="stable")[: BEADS_OF_UNIT - round(missing * BEADS_OF_UNIT)]
    kept = np.sort(np.append(inner, np.arange(BEADS_OF_UNIT, len(whole.weight))))
    part = replace(
        whole, position_angstrom=whole.position_angstrom[kept], weight=whole.weight[kept], kind=whole.kind[kept]
    )
    size = 2 * box - 4  # a map as a model fills its box
    write_map(folder / "model.mrc", sample_map(part, size, PIXEL / 2), PIXEL / 2)
    values: dict[str, Any] = {
        "model": str(folder / "model.mrc"),
        "particle_diameter": diameter,
        "tilt_series": 2,
        "particles": 30,
        "width_px": 224,
        "height_px": 224,
        "thickness": 500.0,
        "pixel_size": PIXEL,
        "box": box,
        "tilt_step": 10.0,
        "snr": 0.1,
        "spacing": 60.0,
        "margin_px": 24,
        "reference_resolution": 30.0,
        "threads": 1,
    }
    data = simulate(SimulateOptions(output=folder / "data", **(values | changes)))
    symmetric = sample_map(whole, box, PIXEL)
    write_map(data.folder / "symmetric.mrc", low_pass(symmetric / symmetric.max(), PIXEL, 30.0), PIXEL)
    optset = load_optimisation_set(data.optimisation_set)
    rng = np.random.default_rng(7)
    n = len(optset.particles)
    turns = np.radians(error_deg) / np.sqrt(3.0) * rng.standard_normal((n, 3))
    rotation = poses_of(optset)[0] @ mates[rng.integers(len(mates), size=n)] @ rotation_from_vector(turns)
    moved = replace(optset.particles, angles_deg=matrix_to_euler(rotation))
    write_particles(data.folder / "particles.star", optset, particles=moved)
    return data


def at_the_right_mate(
    data: SimulatedData, found: OptimisationSet, group: str = GROUP
) -> tuple[float, NDArray[np.float64]]:
    """Share of particles less than half the angle between mates from their true rotation, and the angles (P,).

    The map may have turned by one rotation of the group, the same for all particles.
    """
    true, rotation = (poses_of(one)[0] for one in (load_optimisation_set(_truth(data)), found))
    mates = symmetry_matrices(group)
    nearest = 0.5 * float(angular_distance_deg(mates[1:], np.eye(3)).min())
    angles = [angular_distance_deg(rotation @ g, true) for g in mates]
    best = max(angles, key=lambda one: float((one < nearest).mean()))
    return float((best < nearest).mean()), best


def _truth(data: SimulatedData) -> Path:
    return data.truth.parent / "optimisation_set.star"
