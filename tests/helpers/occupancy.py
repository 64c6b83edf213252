"""Symmetric assemblies some of whose subunits are missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model.poses import poses_of, series_index
from tiltwise.sim.density import GaussianDensity, sample_map
from tiltwise.sim.images import SeriesImager
from tiltwise.sim.models import load_model
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.projector import GaussianProjector
from tiltwise.sim.simulate import SimulatedData, simulate
from tiltwise.spectral.filters import low_pass


@dataclass(frozen=True, slots=True)
class OccupiedData:
    """A simulated set of assemblies, and which of their subunits are there."""

    data: SimulatedData
    present: NDArray[np.bool_]
    """(P, M) whether particle i has a subunit where mate m of the first one is"""
    subunit: NDArray[np.float32]
    """(N, N, N) map of the first subunit"""
    mask: Path
    """soft mask about it"""


def simulate_occupied(folder: Path, symmetry: str, missing: float, **changes: Any) -> OccupiedData:
    """Two series of phantoms; every subunit of every particle is missing with a chance of `missing`.

    Images are linear in the particles: what they lack is drawn with a negative sign on top.
    """
    mates = symmetry_matrices(symmetry)
    values: dict[str, Any] = {
        "tilt_series": 2,
        "particles": 20,
        "width_px": 192,
        "height_px": 192,
        "thickness": 400.0,
        "pixel_size": 6.0,
        "box": 32,
        "particle_diameter": 120.0,
        "beads": 60 * len(mates),
        "tilt_step": 12.0,
        "snr": 0.3,
        "spacing": 60.0,
        "margin_px": 24,
        "seed": 3,
        "threads": 1,
    }
    options = SimulateOptions(output=folder / "data", symmetry=symmetry, **(values | changes))
    data, model = simulate(options), load_model(options)
    density = model.density
    assert isinstance(density, GaussianDensity)
    units = [
        replace(density, position_angstrom=position, weight=weight, kind=kind)
        for position, weight, kind in zip(
            *(np.split(one, len(mates)) for one in (density.position_angstrom, density.weight, density.kind)),
            strict=True,
        )
    ]
    truth = load_optimisation_set(options.output / "truth/optimisation_set.star")
    shape = (len(truth.particles), len(mates))
    present = np.random.default_rng([options.seed, 78]).uniform(size=shape) >= missing
    for number, series in enumerate(truth.series):
        path = options.output / "tilt_series" / f"{series.name}.mrcs"
        stack, _ = read_map(path)
        for mate, unit in enumerate(units):
            members = np.flatnonzero((series_index(truth) == number) & ~present[:, mate])
            negative = unit.scaled(-1.0)
            part = replace(model, density=negative, projector=GaussianProjector(negative))
            still = np.zeros((series.n_tilts, len(members), 3))
            position = truth.particles.coordinate_px[members]
            imager = SeriesImager.create(part, series, position, still, poses_of(truth)[0][members])
            for tilt in range(series.n_tilts):
                stack[tilt] += imager.image(tilt)
        write_map(path, stack, options.pixel_size, options.precision)
    subunit = sample_map(units[0], options.box, options.pixel_size)
    blurred = low_pass(subunit, options.pixel_size, 30.0)
    mask = data.folder / "subunit_mask.mrc"
    write_map(mask, np.clip(blurred / (0.15 * blurred.max()), 0.0, 1.0).astype(np.float32), options.pixel_size)
    return OccupiedData(data, present, subunit, mask)
