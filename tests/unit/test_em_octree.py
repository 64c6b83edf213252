"""The global search: levels, what they keep, and how much of the posterior they miss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.particles import SimulatedParticles
from tiltwise.em.expectation import Expectation
from tiltwise.em.grid import PoseGrid
from tiltwise.em.likelihood import shift_phases
from tiltwise.em.octree import Alive, GlobalSearch, kept_cells, levels_of, mass_missed
from tiltwise.em.settings import Group, Settings
from tiltwise.geometry.grids import orientation_angles, orientation_children, parent_orientations
from tiltwise.geometry.rotations import angular_distance_deg, euler_to_matrix
from tiltwise.geometry.symmetry import symmetry_matrices

GRID = PoseGrid(2, 1, euler_to_matrix([3.0, 2.0, 1.0]), None, 16.0, 8.0, np.array([1.0, -2.0, 0.5]))
COARSE, FINE, PIXEL = 9.0, 12.0, 4.0


def simulated(nats: float, n: int = 200, seed: int = 1, threads: int = 2) -> SimulatedParticles:
    return SimulatedParticles.create(
        n,
        box=24,
        tilts=9,
        pixel_size=PIXEL,
        nats=nats,
        radius=FINE,
        reach_angstrom=10.0,
        threads=threads,
        seed=seed,
    )


def expectation(data: SimulatedParticles, threads: int = 2) -> Expectation:
    settings = Settings(GRID, COARSE, FINE, FINE, PIXEL, 10.0, threads=threads)
    return Expectation(data.scorer, data.disc, settings)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_every_orientation_has_the_nearest_cell_above(order: int) -> None:
    angles = orientation_angles(order)
    parents = parent_orientations(order, angles)
    above = orientation_angles(order - 1)
    distance = angular_distance_deg(euler_to_matrix(angles), euler_to_matrix(above[parents]))
    step = 60.0 / 2 ** (order - 1)
    # half a step of psi, and half the diagonal of the largest pixel
    assert distance.max() <= 0.95 * step
    counts = np.bincount(parents, minlength=len(above))
    assert counts.min() >= 4
    assert counts.max() <= 12
    assert counts.mean() == 8
    children = orientation_children(order - 1, above[:50])
    found = parent_orientations(order, children.reshape(-1, 3)).reshape(50, 8)
    np.testing.assert_array_equal(found, np.broadcast_to(np.arange(50)[:, None], (50, 8)))


def test_levels_end_with_the_grid_and_cover_it() -> None:
    levels = levels_of(GRID, lambda order: 5.0 * order)
    angles, rotations = GRID.rotations()
    np.testing.assert_array_equal(levels[-1].rotations, rotations)
    np.testing.assert_array_equal(levels[-1].angles, angles)
    np.testing.assert_array_equal(levels[-1].shifts, GRID.shifts())
    assert [round(level.step_deg) for level in levels] == [30, 15, 15]
    assert levels[1].radius < levels[2].radius == 10.0
    off = levels[1].shifts - levels[0].shifts[levels[1].parent_shift]
    assert np.abs(off).max() <= 8.0 + 1e-9, "a shift lies outside of the cell above"


def test_kept_cells_hold_the_mass_and_the_slack() -> None:
    log = np.full((5, 4), -100.0, np.float32)
    log[1, 2], log[3, 0], log[4, 1] = 0.0, -2.0, -12.0
    assert np.argwhere(kept_cells(log, 0.0)).tolist() == [[1, 2], [3, 0]]
    assert np.argwhere(kept_cells(log, 11.0)).tolist() == [[1, 2], [3, 0], [4, 1]]
    for bad in (np.full((2, 3), np.nan, np.float32), np.full((2, 3), -np.inf, np.float32)):
        assert kept_cells(bad, 0.0).all()
    assert kept_cells(np.zeros((0, 3), np.float32), 0.0).shape == (0, 3)


def test_rotations_and_shifts_without_cells_are_dropped() -> None:
    wanted = np.zeros((4, 3), bool)
    wanted[1, 2] = wanted[3, 0] = True
    some = Alive.of(wanted, np.array([2, 5, 7, 8]), np.array([0, 4, 6]))
    assert (some.rows.tolist(), some.columns.tolist(), some.count) == ([5, 8], [0, 6], 2)
    assert some.wanted is not None
    assert some.wanted.tolist() == [[False, True], [True, False]]
    whole = Alive.of(wanted[1:2, 2:], np.array([5]), np.array([6]))
    assert (whole.wanted, whole.count) == (None, 1)


@pytest.mark.parametrize("nats", [25.0, 80.0, 300.0])
def test_posteriors_are_those_of_the_exhaustive_search(nats: float) -> None:
    """200 particles at three signal levels: total variation distance, which is the mass missed, below 1e-3."""
    data = simulated(nats)
    step = expectation(data)
    search = GlobalSearch(data.scorer, data.series, data.disc, PIXEL, step._levels)

    def prior(i: int, shifts: np.ndarray) -> np.ndarray:
        return step.settings.shift_prior(np.zeros(3), shifts)

    full = search.run(data.whitened, prior, prune=False)
    kept = search.run(data.whitened, prior)
    last = step._levels[-1]
    missed = np.array([mass_missed(f, k, lambda s: prior(0, s), last) for f, k in zip(full, kept, strict=True)])
    assert missed.max() <= 1e-3, f"{missed.max():.1e} of a posterior is missed"
    for everything, cells in zip(full[:20], kept[:20], strict=True):
        # what is scored is scored the same, to the rounding of sums in other blocks
        part = everything.cross[np.ix_(cells.rows, cells.columns)]
        seen, scale = cells.cross > -np.inf, np.abs(everything.cross).max()
        assert seen.any()
        assert np.abs(part - cells.cross)[seen].max() <= 1e-5 * scale
    if nats >= 300:
        share = np.mean([(c.cross > -np.inf).sum() for c in kept]) / (len(last.rotations) * len(last.shifts))
        assert share <= 0.2, "nothing is pruned"


@pytest.mark.parametrize("name", ["C4", "D2", "T", "O", "I"])
def test_symmetric_particles_are_searched_once(name: str) -> None:
    group = symmetry_matrices(name)
    levels = levels_of(GRID, lambda order: 5.0 * order, group)
    everything = levels_of(GRID, lambda order: 5.0 * order)
    for level, whole in zip(levels, everything, strict=True):
        assert len(level.rotations) <= 1.6 * len(whole.rotations) / len(group) + 12 * 24
        # every orientation has a mate near one that is searched
        rng = np.random.default_rng(3)
        for rotation in Rotation.random(60, rng=rng).as_matrix():
            mates = rotation @ group
            nearest = min(angular_distance_deg(level.rotations, mate).min() for mate in mates)
            assert nearest <= 0.9 * level.step_deg
    starts, members = levels[-1].neighbours
    assert (np.diff(starts) >= 6).all(), "cells at the border of the unit have neighbours beyond it"
    i = int(np.argmax(np.diff(starts)))
    for j in members[starts[i] : starts[i + 1]]:
        mates = levels[-1].rotations[j] @ group
        assert angular_distance_deg(mates, levels[-1].rotations[i]).min() <= 1.5 * levels[-1].step_deg + 1e-6


def test_the_audit_reports_what_is_missed() -> None:
    data = simulated(400.0, n=12)
    step = expectation(data)
    group = Group(
        data.series, data.noise_power, np.arange(12), data.rotations, np.zeros((12, 3)), data.raw.__getitem__, audited=4
    )
    found = step.run(group, None, None, lambda n: None)
    assert len(step.missed) == 4
    assert 0.0 <= max(step.missed) <= 1e-3
    error = [angular_distance_deg(e.rotation, r) for e, r in zip(found, data.rotations, strict=True)]
    assert np.median(error) <= 4.0


def test_results_do_not_depend_on_threads() -> None:
    results = []
    for threads in (1, 2, 3):
        data = simulated(60.0, n=6, threads=threads)
        group = Group(
            data.series, data.noise_power, np.arange(6), data.rotations, np.zeros((6, 3)), data.raw.__getitem__
        )
        found = expectation(data, threads).run(group, None, None, lambda n: None)
        results.append(
            np.concatenate([np.concatenate([e.rotation.ravel(), e.shift_angstrom]) for e in found]).tobytes()
        )
    assert results[0] == results[1] == results[2]


def test_hidden_tilts_are_left_out() -> None:
    """A particle that some tilts do not show is scored on the others, like one of a series without them."""
    data = simulated(200.0, n=2)
    step = expectation(data)
    search = GlobalSearch(data.scorer, data.series, data.disc, PIXEL, step._levels)
    image = data.whitened[0]
    seen = np.array([1, 2, 4, 5, 7])
    k = len(data.disc)
    parts = [
        np.ascontiguousarray(array.reshape(-1, k)[seen]).reshape(-1)
        for array in (image.score_image, image.score_power, image.map_image, image.map_power)
    ]
    partial = type(image)(seen, *parts)
    (cells,) = search.run([partial], lambda i, shifts: np.zeros(len(shifts), np.float32), prune=False)
    low = partial.prefix(data.disc.count(COARSE))
    last = step._levels[-1]
    count = data.disc.count(COARSE)
    phases = shift_phases(data.series, seen, last.shifts, data.disc, PIXEL, count)
    cross, quadratic = data.scorer.terms(data.series, low, last.rotations[:40], phases, data.disc.frequencies3d(count))
    np.testing.assert_allclose(cells.cross[:40], cross, rtol=0, atol=1e-5 * np.abs(cross).max())
    np.testing.assert_allclose(cells.quadratic[:40], quadratic, rtol=1e-5)
