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


def nearly_symmetric(folder: Path, *, missing: float = 0.5, error_deg: float = 2.0, **changes: Any) -> SimulatedData:
    """Two series of C6 phantoms that lack the share `missing` of one subunit; particles stated at a mate at random.

    Of the beads of that subunit those farthest from the axis are left out.  The reference is low-passed and lacks it
    too; `symmetric.mrc` beside it is the same with all subunits equal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = build_phantom(DIAMETER, 480, GROUP, 1)
    x, y, _ = whole.position_angstrom.T
    own = np.flatnonzero((np.degrees(np.arctan2(y, x)) % 360.0) < 60.0)
    outer = own[np.argsort(-np.hypot(x, y)[own], kind="stable")][: round(missing * len(own))]
    kept = np.setdiff1d(np.arange(len(x)), outer)
    part = replace(
        whole, position_angstrom=whole.position_angstrom[kept], weight=whole.weight[kept], kind=whole.kind[kept]
    )
    size = 60  # 180 Å: a map as a model fills its box
    write_map(folder / "model.mrc", sample_map(part, size, PIXEL / 2), PIXEL / 2)
    values: dict[str, Any] = {
        "model": str(folder / "model.mrc"),
        "particle_diameter": DIAMETER,
        "tilt_series": 2,
        "particles": 30,
        "width_px": 224,
        "height_px": 224,
        "thickness": 500.0,
        "pixel_size": PIXEL,
        "box": BOX,
        "tilt_step": 10.0,
        "snr": 0.1,
        "spacing": 60.0,
        "margin_px": 24,
        "reference_resolution": 30.0,
        "threads": 1,
    }
    data = simulate(SimulateOptions(output=folder / "data", **(values | changes)))
    symmetric = sample_map(whole, BOX, PIXEL)
    write_map(data.folder / "symmetric.mrc", low_pass(symmetric / symmetric.max(), PIXEL, 30.0), PIXEL)
    optset, group = load_optimisation_set(data.optimisation_set), symmetry_matrices(GROUP)
    rng = np.random.default_rng(7)
    n = len(optset.particles)
    turns = np.radians(error_deg) / np.sqrt(3.0) * rng.standard_normal((n, 3))
    rotation = poses_of(optset)[0] @ group[rng.integers(len(group), size=n)] @ rotation_from_vector(turns)
    moved = replace(optset.particles, angles_deg=matrix_to_euler(rotation))
    write_particles(data.folder / "particles.star", optset, particles=moved)
    return data


def at_the_right_mate(data: SimulatedData, found: OptimisationSet) -> tuple[float, NDArray[np.float64]]:
    """Share of particles less than half the angle between mates from their true rotation, and the angles (P,).

    The map may have turned by one rotation of the group, the same for all particles.
    """
    true, rotation = (poses_of(one)[0] for one in (load_optimisation_set(_truth(data)), found))
    angles = [angular_distance_deg(rotation @ g, true) for g in symmetry_matrices(GROUP)]
    best = max(angles, key=lambda one: float((one < 30.0).mean()))
    return float((best < 30.0).mean()), best


def _truth(data: SimulatedData) -> Path:
    return data.truth.parent / "optimisation_set.star"
