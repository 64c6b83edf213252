"""Second pass over children of cells: the same in any tiles, and never more than memory holds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.compare import relative_l2
from helpers.particles import SimulatedParticles
from helpers.search import PIXEL, RADIUS, TILTS, no_contrast, particles
from tiltwise.em import fine_grid
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.fine_grid import FineGrid
from tiltwise.em.grid import PoseGrid
from tiltwise.em.maximisation import Maximiser, NoiseSums, PosteriorPoses
from tiltwise.em.peaks import CoarsePosterior
from tiltwise.em.settings import Group, Settings
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.grids import orientation_angles
from tiltwise.geometry.rotations import angular_distance_deg, euler_to_matrix
from tiltwise.maps.volumes import Accumulator
from tiltwise.maps.whitening import whiten

OFFSET_SIGMA = 8.0


@pytest.fixture(scope="module")
def data() -> SimulatedParticles:
    return particles(n=1)


def grid_of(oversampling: int) -> PoseGrid:
    return PoseGrid(2, oversampling, euler_to_matrix([3.0, 2.0, 1.0]), None, 8.0, 4.0, np.zeros(3))


def cells_of(grid: PoseGrid, n_rotations: int, n_shifts: int = 99, *, density: float = 1.0) -> CoarsePosterior:
    """The first rotations and shifts; each cell is significant with a probability of `density`, the first is."""
    angles, shifts = orientation_angles(grid.order)[:n_rotations], grid.shifts()[:n_shifts]
    significant = np.random.default_rng(4).random((len(angles), len(shifts))) < density
    significant[0, 0] = True
    # as in most cases, neighbours have the same shifts
    significant[1:3] = significant[0]
    return CoarsePosterior(angles, shifts, significant, None)


def search(
    data: SimulatedParticles,
    oversampling: int,
    cells: CoarsePosterior,
    *,
    raw: ParticleImages | None = None,
    tile_bytes: int = 48 << 20,
    displacement: Sequence[float] = (0.0, 0.0, 0.0),
) -> tuple[PosteriorPoses, PoseEstimate]:
    settings = Settings(grid_of(oversampling), 0.75 * RADIUS, RADIUS, RADIUS, PIXEL, OFFSET_SIGMA)
    raw = data.raw[0] if raw is None else raw
    displacements = np.array([displacement])
    group = Group(data.series, data.noise_power, np.arange(1), data.rotations[:1], displacements, data.raw.__getitem__)
    image = whiten(raw, data.disc, data.noise_power, len(data.disc))
    return FineGrid(replace(data.scorer, tile_bytes=tile_bytes), data.disc, settings).search(group, 0, image, cells)


@pytest.mark.parametrize("oversampling", [0, 1, 2])
def test_bytes_do_not_depend_on_tiles(data: SimulatedParticles, oversampling: int) -> None:
    """Every rotation and shift by itself, odd tiles, and all together; of a particle with hardly any contrast."""
    weak = data.raw[0].with_contrast(0.1)
    n_rotations, n_shifts = [(40, 33), (12, 12), (4, 2)][oversampling]
    cells = cells_of(grid_of(oversampling), n_rotations, n_shifts, density=0.3)
    of_one = 8 * TILTS * len(data.disc)
    whole, estimate = search(data, oversampling, cells, raw=weak)
    assert whole.weights.size > 100
    for tile_bytes in (of_one, 7 * of_one):
        poses, other = search(data, oversampling, cells, raw=weak, tile_bytes=tile_bytes)
        for name in ("rotations", "shifts", "weights"):
            assert getattr(poses, name).tobytes() == getattr(whole, name).tobytes(), name
        assert (other.log_evidence, other.max_probability) == (estimate.log_evidence, estimate.max_probability)
        assert other.rotation.tobytes() == estimate.rotation.tobytes()


def test_children_of_other_cells_have_no_weight(data: SimulatedParticles) -> None:
    cells = cells_of(grid_of(1), 12, density=0.3)
    poses, _ = search(data, 1, cells, raw=no_contrast(data.raw[0]))
    every = grid_of(1).children(cells.angles), grid_of(1).fine_shifts(cells.shifts)
    rows, columns = (
        np.array([int(np.flatnonzero((a == one).reshape(len(a), -1).all(axis=1))[0]) for one in some])
        for a, some in zip(every, (poses.rotations, poses.shifts), strict=True)
    )
    assert not poses.weights[~cells.significant[np.ix_(rows // 8, columns // 8)]].any()
    assert (poses.weights[cells.significant[np.ix_(rows // 8, columns // 8)]] > 0).mean() > 0.95


@pytest.mark.parametrize("nats", [10.0, 40.0, 200.0])
def test_posteriors_are_those_without_a_first_look(nats: float) -> None:
    """Total variation distance; cells are those around the truth."""
    data, grid = particles(n=3, nats=nats), grid_of(1)
    angles = orientation_angles(grid.order)
    left_out = []
    for i, image in enumerate(data.whitened):
        distance = angular_distance_deg(euler_to_matrix(angles) @ grid.perturbation, data.rotations[i])
        cells = cells_of(grid, 99, density=0.3)
        cells = replace(cells, angles=angles[np.argsort(distance, kind="stable")[:99]])
        displacement = np.zeros((3, 3))
        group = Group(data.series, data.noise_power, np.arange(3), data.rotations, displacement, data.raw.__getitem__)
        found = []
        for coarse_radius in (0.6 * RADIUS, RADIUS):
            settings = Settings(grid, coarse_radius, RADIUS, RADIUS, PIXEL, OFFSET_SIGMA, fraction=1.0)
            poses, _ = FineGrid(data.scorer, data.disc, settings).search(group, i, image, cells)
            rows = np.array(
                [np.argmin(np.abs(grid.children(cells.angles) - r).sum(axis=(1, 2))) for r in poses.rotations]
            )
            columns = np.array(
                [np.argmin(np.abs(grid.fine_shifts(cells.shifts) - s).sum(axis=1)) for s in poses.shifts]
            )
            weights = np.zeros((8 * len(cells.angles), 8 * len(cells.shifts)))
            weights[np.ix_(rows, columns)] = poses.weights
            found.append(weights / weights.sum())
        left_out.append(float((found[0] == 0.0).mean() - (found[1] == 0.0).mean()))
        assert 0.5 * np.abs(found[0] - found[1]).sum() <= 1e-3
    assert max(left_out) > 0.005, "the first look left out nothing"


def log_prior_mass(grid: PoseGrid, cells: CoarsePosterior) -> float:
    """Log of the prior on shifts, summed over all cells, in rad^3 Å^3."""
    shifts = grid.fine_shifts(cells.shifts)
    weights = np.exp(-0.5 * (shifts**2).sum(axis=1) / OFFSET_SIGMA**2)
    return float(np.log(weights.sum() * len(cells.angles) * 8**grid.oversampling) + grid.log_cell_volume)


@pytest.mark.parametrize(("most", "halvings"), [(1 << 24, 2), (1 << 15, 1), (1 << 10, 0)])
def test_flat_posteriors_are_sampled_as_finely_as_memory_allows(
    data: SimulatedParticles, monkeypatch: pytest.MonkeyPatch, most: int, halvings: int
) -> None:
    """Nothing is known of the particle, however finely one looks: the evidence is that of the prior."""
    monkeypatch.setattr(fine_grid, "MOST_POSES", most)
    cells = cells_of(grid_of(2), 10)
    assert (
        cells.significant.size * 64**halvings <= most < cells.significant.size * 64 ** (halvings + 1) or halvings == 2
    )
    poses, estimate = search(data, 2, cells, raw=no_contrast(data.raw[0]))
    n_shifts = len(cells.shifts) * 8**halvings
    assert len(poses.rotations) == 10 * 8**halvings
    assert 0.9 * n_shifts <= len(poses.shifts) <= n_shifts
    assert poses.weights.size <= most
    assert abs(estimate.log_evidence - log_prior_mass(grid_of(halvings), cells)) <= 1e-4
    # steps of 4 Å are half as wide as the prior
    assert abs(estimate.log_evidence - log_prior_mass(grid_of(2), cells)) <= 0.2


@pytest.mark.parametrize("sigmas", [0.0, 3.0, 2000.0])
def test_prior_on_shifts_is_exact_however_far_the_particle_is(data: SimulatedParticles, sigmas: float) -> None:
    """2,000 widths from its coordinate a particle has a log prior of two millions."""
    displacement = np.array([0.6, 0.0, -0.8]) * sigmas * OFFSET_SIGMA
    step = 4.0 / max(1.0, sigmas)
    cells = replace(cells_of(grid_of(0), 2), shifts=grid_of(0).shifts() / 4.0 * step)
    poses, estimate = search(data, 0, cells, raw=no_contrast(data.raw[0]), displacement=displacement)
    log = -0.5 * ((displacement + poses.shifts) ** 2).sum(axis=1) / OFFSET_SIGMA**2
    expected = np.exp(log - log.max())
    np.testing.assert_allclose(poses.weights[0] / poses.weights[0].max(), expected, rtol=1e-5)
    every = -0.5 * ((displacement + cells.shifts) ** 2).sum(axis=1) / OFFSET_SIGMA**2
    evidence = np.logaddexp.reduce(every) + np.log(len(cells.angles)) + grid_of(0).log_cell_volume
    assert abs(estimate.log_evidence - evidence) <= 1e-5


def peak_mb(work: Callable[[], Any]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def many_shifts(n: int) -> NDArray[np.float64]:
    return np.random.default_rng(5).normal(size=(n, 3)) * 5.0


def test_memory_does_not_grow_with_phases_of_shifts(data: SimulatedParticles) -> None:
    """17,000 shifts of one orientation, whose phases alone would take 65 MB."""
    n = 17_000
    phases = 8e-6 * n * TILTS * len(data.disc)
    assert phases > 60.0
    shifts = many_shifts(n)
    cells = CoarsePosterior(orientation_angles(2)[:1], shifts, np.ones((1, n), bool), None)
    assert peak_mb(lambda: search(data, 0, cells, tile_bytes=1 << 20)) <= 0.2 * phases
    weights = np.full((1, n), 1.0 / n, np.float32)
    poses = PosteriorPoses(data.rotations[:1], weights, shifts)
    assert peak_mb(lambda: maximised(data, poses, 1 << 20)) <= 0.2 * phases


def maximised(data: SimulatedParticles, poses: PosteriorPoses, tile_bytes: int) -> tuple[Accumulator, NoiseSums]:
    sums, noise = Accumulator.empty(data.disc.box), NoiseSums.empty(TILTS, data.disc.n_shells)
    scorer = replace(data.scorer, tile_bytes=tile_bytes)
    maximiser = Maximiser(scorer, data.disc, PIXEL, data.series, data.noise_power, sums, noise)
    maximiser.add(data.whitened[0], data.raw[0], poses)
    return sums, noise


def test_sums_of_many_shifts_are_the_same_in_tiles(data: SimulatedParticles) -> None:
    """To the order in which single precision is added."""
    weights = np.random.default_rng(6).random((4, 50), np.float32)
    poses = PosteriorPoses(np.repeat(data.rotations[:1], 4, axis=0), weights / weights.sum(), many_shifts(50))
    (whole, noise), (tiled, other) = (maximised(data, poses, size) for size in (48 << 20, 8 * TILTS * len(data.disc)))
    assert relative_l2(tiled.data, whole.data) <= 1e-6
    assert relative_l2(tiled.weight, whole.weight) <= 1e-6
    assert relative_l2(other.explained, noise.explained) <= 1e-5
