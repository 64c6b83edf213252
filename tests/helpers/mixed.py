"""Simulated sets in which particles are not all alike: some lack a domain, some are no particles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles
from tiltwise.model.poses import poses_of, series_index
from tiltwise.sim.density import GaussianDensity
from tiltwise.sim.images import SeriesImager
from tiltwise.sim.models import Model, load_model
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.projector import GaussianProjector
from tiltwise.sim.simulate import SimulatedData, simulate


@dataclass(frozen=True, slots=True)
class MixedData:
    """A simulated set and which particles are what."""

    data: SimulatedData
    kind: NDArray[np.int64]
    """(P,) 0: whole, 1: without the domain, 2: nothing there, 3: not where its coordinate says, 4: another particle"""
    model: Model
    without: GaussianDensity
    """what the particles of kind 1 lack"""


def domain(density: GaussianDensity, share: float, *, opposite: bool = False) -> NDArray[np.bool_]:
    """(n,) the share of the scatterers nearest to the outermost one, or to that furthest from it: a compact domain at
    the rim."""
    points = density.position_angstrom
    outermost = points[np.argmax(np.linalg.norm(points, axis=1))]
    if opposite:
        outermost = points[np.argmax(np.linalg.norm(points - outermost, axis=1))]
    order = np.argsort(np.linalg.norm(points - outermost, axis=1), kind="stable")
    chosen = np.zeros(len(points), bool)
    chosen[order[: round(share * len(points))]] = True
    return chosen


def simulate_mixed(
    options: SimulateOptions,
    share: float,
    lacking: float = 0.5,
    empty: float = 0.0,
    shifted: float = 0.0,
    shift_angstrom: float = 0.0,
    other: float = 0.0,
    instead: GaussianDensity | None = None,
) -> MixedData:
    """Simulates phantoms; `lacking` of them lack a domain of `share` of the mass, `empty` are noise, and the
    coordinates of `shifted` are wrong by `shift_angstrom` in a random direction; `other` of them are `instead`.

    Images are linear in the particles: what some of them lack is drawn with a negative sign on top.
    """
    data = simulate(options)
    model = load_model(options)
    density = model.density
    assert isinstance(density, GaussianDensity)
    truth = load_optimisation_set(options.output / "truth/optimisation_set.star")
    count = len(truth.particles)
    rng = np.random.default_rng([options.seed, 77])
    order, ends = rng.permutation(count), np.rint(np.cumsum([lacking, empty, shifted, other]) * count).astype(int)
    kind = np.zeros(count, np.int64)
    for which, part in enumerate(np.split(order[: ends[-1]], ends[:-1]), 1):
        kind[part] = which
    chosen = domain(density, share)
    without = replace(
        density,
        position_angstrom=density.position_angstrom[chosen],
        weight=density.weight[chosen],
        kind=density.kind[chosen],
    )
    for number, series in enumerate(truth.series):
        path = options.output / "tilt_series" / f"{series.name}.mrcs"
        stack, _ = read_map(path)
        added = [(1, without.scaled(-1.0)), (2, density.scaled(-1.0)), (4, density.scaled(-1.0))]
        for which, drawn in (*added, *([(4, instead)] if instead is not None else [])):
            members = np.flatnonzero((series_index(truth) == number) & (kind == which))
            if not len(members):
                continue
            part = replace(model, density=drawn, projector=GaussianProjector(drawn))
            position = truth.particles.coordinate_px[members]
            still = np.zeros((series.n_tilts, len(members), 3))
            imager = SeriesImager.create(part, series, position, still, poses_of(truth)[0][members])
            for tilt in range(series.n_tilts):
                stack[tilt] += imager.image(tilt)
        write_map(path, stack, options.pixel_size, options.precision)
    if (kind == 3).any():
        stated = load_optimisation_set(data.optimisation_set)
        moved = np.flatnonzero(kind == 3)
        direction = rng.standard_normal((len(moved), 3))
        direction *= shift_angstrom / options.pixel_size / np.linalg.norm(direction, axis=1, keepdims=True)
        coordinate = stated.particles.coordinate_px.copy()
        coordinate[moved] += direction
        write_particles(
            options.output / "particles.star",
            replace(stated, particles=replace(stated.particles, coordinate_px=coordinate)),
        )
    return MixedData(data, kind, model, without)


def adjusted_rand_index(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Agreement of two partitions: 1 for the same, 0 expected by chance (Hubert and Arabie 1985)."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)

    def pairs(n: NDArray[np.float64]) -> float:
        return float((n * (n - 1) / 2).sum())

    both, first, second = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = first * second / pairs(np.array([float(len(a))]))
    most = 0.5 * (first + second)
    return (both - expected) / (most - expected) if most > expected else 0.0
