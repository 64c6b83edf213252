"""Posteriors as Gaussians: derivatives, climbs, agreement with dense grids, calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.particles import tilt_series
from tiltwise.em.climbs import SAME_MODE, distinct
from tiltwise.em.expectation import Expectation
from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import Climber, Modes, climbing_radii, gaussian_poses, turned
from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.em.moments import match_moments
from tiltwise.em.peaks import find_peaks
from tiltwise.em.priors import PosePrior
from tiltwise.em.settings import Group, Settings
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import reference_volume
from tiltwise.maps.whitening import WhitenedImages, whiten
from tiltwise.spectral.disc import FourierDisc

BOX, PIXEL, TILTS = 24, 4.0, 7
DISC = FourierDisc.create(BOX)
F64 = NDArray[np.float64]


SERIES = tilt_series(TILTS, PIXEL)


def density(twofold: bool = False) -> NDArray[np.float32]:
    rng = np.random.default_rng(2)
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    total = np.zeros((BOX,) * 3)
    centres = rng.uniform(-6.0, 6.0, (12, 3))
    if twofold:
        centres = np.concatenate([centres, centres * [-1, -1, 1]])
    for px, py, pz in centres:
        total += np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / 3.0)
    return total.astype(np.float32)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(load_backend("auto"), reference_volume(density()), 2.0, 1)


def simulated(
    scorer: Scorer, rotation: F64, shift: F64, sigma: float, rng: np.random.Generator
) -> tuple[ParticleImages, WhitenedImages]:
    """Images of one particle displaced by `shift` Å, with a CTF and white noise of power sigma^2."""
    every = np.arange(TILTS)
    model = scorer.slices(SERIES, every, rotation[None], DISC.frequencies3d()).reshape(TILTS, -1)
    back = shift_phases(SERIES, every, shift[None], DISC, PIXEL, len(DISC)).reshape(TILTS, -1).conj()
    ctf = np.cos(0.15 * DISC.shells + 0.3 * every[:, None])
    noise = rng.normal(size=(2, *model.shape)) * sigma / np.sqrt(2)
    data = (ctf * (ctf * model * back + noise[0] + 1j * noise[1])).astype(np.complex64)
    power = np.full((TILTS, DISC.n_shells), sigma**2)
    raw = ParticleImages(every, data, data, (ctf**2).astype(np.float32), power)
    return raw, whiten(raw, DISC, power, len(DISC))


def free_prior(n: int) -> PosePrior:
    return PosePrior(np.broadcast_to(np.eye(3), (n, 3, 3)), np.zeros((n, 3)), None, 30.0)


def climber(scorer: Scorer, images: list[WhitenedImages], prior: PosePrior) -> Climber:
    return Climber(scorer, SERIES, DISC, PIXEL, images, np.arange(len(images)), prior)


def test_gradients_are_those_of_the_log_posterior(scorer: Scorer) -> None:
    rng = np.random.default_rng(1)
    exact = Scorer(load_backend("reference"), scorer.volume, 2.0, 1)
    rotations = Rotation.random(2, rng=rng).as_matrix()
    images = [simulated(scorer, r, np.array([3.0, -2.0, 1.0]), 0.5, rng)[1] for r in rotations]
    prior = PosePrior(rotations, rng.normal(size=(2, 3)) * 5, np.radians(4.0), 6.0)
    climb = climber(exact, images, prior)
    at = turned(rotations, rng.normal(size=(2, 3)) * 0.03), rng.normal(size=(2, 3)) * 2
    both, count = np.arange(2), DISC.count(9.0)
    _, gradient, _ = climb.evaluate(*at, both, count)
    step = np.array([1e-4] * 3 + [1e-3] * 3)
    for axis in range(6):
        change = np.zeros((2, 6))
        change[:, axis] = step[axis]
        up = climb.evaluate(turned(at[0], change[:, :3]), at[1] + change[:, 3:], both, count)[0]
        down = climb.evaluate(turned(at[0], -change[:, :3]), at[1] - change[:, 3:], both, count)[0]
        slope = (up - down) / (2 * step[axis])
        # Matrices are single precision, and samples cross planes of the grid where slopes jump; the kernel itself is
        # tested elsewhere, this is about factors, signs and frames.
        assert (
            np.abs(gradient[:, axis] - slope).max() <= 0.05 * np.linalg.norm(gradient * step, axis=1).max() / step[axis]
        )


def test_climbs_end_at_the_truth_without_noise(scorer: Scorer) -> None:
    rng = np.random.default_rng(3)
    truth = Rotation.random(8, rng=rng).as_matrix()
    shifts = rng.uniform(-6, 6, (8, 3))
    images = [simulated(scorer, r, d, 1e-3, rng)[1] for r, d in zip(truth, shifts, strict=True)]
    # as far off as half a cell of a grid of 7.5 degrees and 8 Å
    axes = rng.normal(size=(8, 3))
    start = turned(truth, axes / np.linalg.norm(axes, axis=1)[:, None] * np.radians(3.75))
    modes = climber(scorer, images, free_prior(8)).climb(start, shifts + rng.uniform(-4, 4, (8, 3)), [7.0, 9.0, 12.0])
    assert angular_distance_deg(modes.rotation, truth).max() <= 0.05
    assert np.linalg.norm(modes.shift - shifts, axis=1).max() <= 0.05


def dense_posterior(scorer: Scorer, image: WhitenedImages, mode: Modes) -> tuple[float, F64, F64]:
    """log evidence, mean change (6,) and covariance from a dense grid of 3.5 sigma about a mode."""
    sigma = np.sqrt(np.diag(mode.covariance[0]))
    axis = np.linspace(-3.5, 3.5, 10)
    steps = axis[1] - axis[0]
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    turns, moves = cube * sigma[:3], cube * sigma[3:]
    rotations = turned(np.broadcast_to(mode.rotation[0], (len(cube), 3, 3)), turns)
    phases = shift_phases(SERIES, image.tilts, mode.shift[0] + moves, DISC, PIXEL, len(DISC))
    cross, quadratic = scorer.terms(SERIES, image, rotations, phases, DISC.frequencies3d())
    prior = -0.5 * ((mode.shift[0] + moves) ** 2).sum(axis=1) / 30.0**2
    log = (2.0 * cross - quadratic[:, None]).astype(np.float64) + prior
    top = log.max()
    weight = np.exp(log - top)
    evidence = top + np.log(weight.sum()) + np.log(np.prod(steps * sigma))
    weight /= weight.sum()
    first = np.concatenate([weight.sum(axis=1) @ turns, weight.sum(axis=0) @ moves])
    second = np.zeros((6, 6))
    second[:3, :3] = np.einsum("r,ra,rb->ab", weight.sum(axis=1), turns, turns)
    second[3:, 3:] = np.einsum("t,ta,tb->ab", weight.sum(axis=0), moves, moves)
    second[:3, 3:] = turns.T @ weight @ moves
    second[3:, :3] = second[:3, 3:].T
    return float(evidence), first, second - np.outer(first, first)


def test_a_gaussian_agrees_with_a_dense_grid(scorer: Scorer) -> None:
    rng = np.random.default_rng(4)
    truth = Rotation.random(rng=rng).as_matrix()
    _, image = simulated(scorer, truth, np.array([2.0, 1.0, -3.0]), 0.35, rng)
    mode = climber(scorer, [image], free_prior(1)).climb(truth[None], np.zeros((1, 3)), [9.0, 12.0])
    evidence, mean, covariance = dense_posterior(scorer, image, mode)
    sigma = np.sqrt(np.diag(covariance))
    # The likelihood is not exactly quadratic, and its curvature is replaced by its expectation.
    assert np.abs(mean / sigma).max() <= 0.25
    assert np.abs(np.sqrt(np.diag(mode.covariance[0])) / sigma - 1).max() <= 0.15
    correlation = covariance / np.outer(sigma, sigma)
    ours = mode.covariance[0] / np.sqrt(np.outer(np.diag(mode.covariance[0]), np.diag(mode.covariance[0])))
    assert np.abs(correlation - ours).max() <= 0.15
    assert abs(evidence - mode.log_mass[0]) <= 0.3


@pytest.mark.parametrize("sigma", [0.35, 1.2])
def test_measured_moments_agree_with_a_dense_grid(scorer: Scorer, sigma: float) -> None:
    """Also where the likelihood is not the Gaussian of its curvature."""
    rng = np.random.default_rng(4)
    truth = Rotation.random(rng=rng).as_matrix()
    _, image = simulated(scorer, truth, np.array([2.0, 1.0, -3.0]), sigma, rng)
    climb = climber(scorer, [image], free_prior(1))
    mode = climb.climb(truth[None], np.zeros((1, 3)), [9.0, 12.0])
    matched = match_moments(climb, mode, np.array([0]), 12.0)
    evidence, mean, covariance = dense_posterior(scorer, image, mode)
    width = np.sqrt(np.diag(covariance))
    moved = np.concatenate(
        [
            Rotation.from_matrix(matched.rotation[0] @ mode.rotation[0].T).as_rotvec(),
            matched.shift[0] - mode.shift[0],
        ]
    )
    # Both leave out tails, at other distances.
    assert np.abs((moved - mean) / width).max() <= 0.1
    assert np.abs(np.sqrt(np.diag(matched.covariance[0])) / width - 1).max() <= 0.1
    assert np.abs((matched.covariance[0] - covariance) / np.outer(width, width)).max() <= 0.2
    assert abs(evidence - matched.log_mass[0]) <= 0.1


class ExactGaussian:
    """Stands for a climber whose log posterior is a Gaussian in rotation and shift."""

    def __init__(self, mode: Modes) -> None:
        self.mode, self.inverse = mode, np.linalg.inv(mode.covariance[0])

    def log_posterior(self, item: int, rotations: F64, shifts: F64, radius: float) -> F64:
        turns = Rotation.from_matrix(rotations @ self.mode.rotation[0].T).as_rotvec()
        moves = shifts - self.mode.shift[0]
        pairs = np.concatenate([np.repeat(turns, len(moves), axis=0), np.tile(moves, (len(turns), 1))], axis=1)
        return -0.5 * np.einsum("na,ab,nb->n", pairs, self.inverse, pairs).reshape(len(turns), len(moves))


@pytest.mark.parametrize(("correlation", "known"), [(0.0, True), (0.7, True), (0.9, False), (-0.95, False)])
def test_moments_of_a_gaussian_are_its_own_or_refused(correlation: float, known: bool) -> None:
    """Rotations that go with shifts, as about an axis off the centre, are not followed by a product of points."""
    sigma = np.array([0.02, 0.03, 0.01, 0.4, 1.0, 0.7])
    covariance = np.diag(sigma**2)
    for a, b in ((0, 4), (1, 3)):
        covariance[a, b] = covariance[b, a] = correlation * sigma[a] * sigma[b]
    mode = Modes(np.eye(3)[None], np.ones((1, 3)), np.zeros(1), covariance[None])
    matched = match_moments(ExactGaussian(mode), mode, np.array([0]), 12.0)  # type: ignore[arg-type]
    if not known:
        assert np.isnan(matched.log_mass[0])
        return
    assert abs(matched.log_mass[0] - mode.log_mass[0]) <= 0.01
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    ratios = np.linalg.eigvalsh(root @ matched.covariance[0] @ root.T)
    assert np.abs(ratios - 1).max() <= (0.005 if correlation == 0 else 0.07)


def test_mates_are_one_mode() -> None:
    group = symmetry_matrices("D3")
    rotation = Rotation.from_euler("xyz", [10.0, 20.0, 30.0], degrees=True).as_matrix()
    rotations = np.stack([rotation, rotation @ group[4], rotation @ Rotation.from_rotvec([0, 0, 0.5]).as_matrix()])
    covariance = np.broadcast_to(np.diag([1e-4] * 3 + [0.1] * 3), (3, 6, 6))
    modes = Modes(rotations, np.zeros((3, 3)), np.array([3.0, 2.0, 1.0]), covariance)
    assert distinct(modes, np.arange(3), SAME_MODE, None).tolist() == [0, 1, 2]
    assert distinct(modes, np.arange(3), SAME_MODE, group).tolist() == [0, 2]


def test_error_bars_are_calibrated(scorer: Scorer) -> None:
    """Squared distances of the truth in standard deviations are chi^2 of six degrees of freedom."""
    rng = np.random.default_rng(5)
    n = 200
    truth, shifts = Rotation.random(n, rng=rng).as_matrix(), rng.normal(size=(n, 3)) * 4
    images = [simulated(scorer, r, d, 0.35, rng)[1] for r, d in zip(truth, shifts, strict=True)]
    modes = climber(scorer, images, free_prior(n)).climb(truth, shifts, [12.0])
    turn = Rotation.from_matrix(truth @ np.swapaxes(modes.rotation, 1, 2)).as_rotvec()
    off = np.concatenate([turn, shifts - modes.shift], axis=1)
    distance = np.einsum("ni,ni->n", off, np.linalg.solve(modes.covariance, off[..., None])[..., 0])
    # mean 6, variance 12: four standard errors, and a tenth for what a Gaussian leaves out
    assert abs(distance.mean() / 6 - 1) <= 4 * np.sqrt(12 / n) / 6 + 0.1, distance.mean()
    assert (distance > 16.81).mean() <= 0.04  # 1 % expected


def test_points_keep_mean_and_covariance(scorer: Scorer) -> None:
    rng = np.random.default_rng(6)
    root = rng.normal(size=(6, 6)) * np.array([0.03] * 3 + [0.8] * 3)[:, None]
    covariance = root @ root.T
    modes = Modes(Rotation.random(1, rng=rng).as_matrix(), np.ones((1, 3)), np.zeros(1), covariance[None])
    poses = gaussian_poses(modes, np.ones(1), 12.0, 2.0)
    assert len(poses.rotations) == 6
    turns = Rotation.from_matrix(poses.rotations @ modes.rotation[0].T).as_rotvec()
    weights = np.diag(poses.weights).astype(np.float64)
    assert np.abs(weights @ turns).max() <= 1e-6
    spread = np.einsum("n,na,nb->ab", weights, turns, turns)
    np.testing.assert_allclose(spread, covariance[:3, :3], atol=1e-6 * np.abs(covariance[:3, :3]).max())
    # the mean phase over rotations and shifts, against samples of the Gaussian
    samples = rng.multivariate_normal(np.r_[np.zeros(3), np.ones(3)], covariance, 20000)[:, 3:]
    count = DISC.count(6.0)
    few = np.array([0, 3])
    expected = shift_phases(SERIES, few, samples, DISC, PIXEL, count).mean(axis=0).reshape(2, -1)
    phases = poses.phases(SERIES, few, DISC, PIXEL, count).astype(np.complex128)
    found = (weights @ phases).reshape(2, -1)
    assert np.abs(found - expected).max() <= 0.04  # six points for the part that goes with rotations, and samples


def test_sharp_rotations_are_one_point() -> None:
    covariance = np.diag([1e-5] * 3 + [0.1] * 3)
    modes = Modes(np.eye(3)[None], np.zeros((1, 3)), np.zeros(1), covariance[None])
    poses = gaussian_poses(modes, np.ones(1), 12.0, 2.0)
    np.testing.assert_array_equal(poses.rotations, np.eye(3)[None])
    sizes = np.abs(poses.phases(SERIES, np.arange(TILTS), DISC, PIXEL, len(DISC)))
    assert abs(sizes[0, 0] - 1) <= 1e-6
    assert sizes.max() <= 1 + 1e-6
    assert 0.85 < sizes.min() < 0.99


def test_radii_grow_to_the_full_one() -> None:
    assert climbing_radii(7.5, 30.0)[-1] == 30.0
    assert all(b > a for a, b in zip(climbing_radii(7.5, 30.0), climbing_radii(7.5, 30.0)[1:], strict=False))
    assert 6.0 <= climbing_radii(7.5, 30.0)[0] <= 10.0
    assert climbing_radii(7.5, 5.0) == [5.0]


GRID = PoseGrid(3, 1, np.eye(3), 7.5, 12.0, 8.0, np.zeros(3))


def test_peaks_are_cells_with_their_neighbours() -> None:
    turns = Rotation.from_euler("z", np.array([[0.0], [7.5], [15.0], [90.0], [97.5]]), degrees=True).as_matrix()
    shifts = np.array([[0.0, 0, 0], [8, 0, 0], [40, 0, 0]])
    weights = np.zeros((5, 3))
    weights[0, 0], weights[1, 1], weights[3, 2] = 0.5, 0.3, 0.2
    peaks = find_peaks(weights, turns, shifts, GRID)
    assert peaks is not None
    np.testing.assert_array_equal(peaks[0], turns[[0, 3]])
    np.testing.assert_array_equal(peaks[1], shifts[[0, 2]])
    many = Rotation.from_euler("z", np.arange(28)[:, None] * 12.8, degrees=True).as_matrix()
    assert find_peaks(np.full((28, 3), 1 / 84), many, shifts, GRID) is None
    of_mates = find_peaks(np.full((28, 3), 1 / 84), many, shifts, replace(GRID, mates=symmetry_matrices("I")))
    assert of_mates is not None
    assert len(of_mates[0]) == 56
    assert find_peaks(np.zeros((0, 0)), many[:0], shifts[:0], GRID) is None
    # at 0 and 90 degrees a particle with a 4-fold is the same
    same = find_peaks(weights, turns, np.zeros((3, 3)), GRID, symmetry_matrices("C4"))
    assert same is not None
    np.testing.assert_array_equal(same[0], turns[[0]])


def estimates(
    scorer: Scorer, sigma: float, *, climb: bool, n: int = 6
) -> tuple[list[F64], F64, list[float], list[bool]]:
    """Errors in degrees and Å, error bars, and which posteriors were sharp, of n particles searched locally."""
    rng = np.random.default_rng(7)
    truth, shifts = Rotation.random(n, rng=rng).as_matrix(), rng.uniform(-6, 6, (n, 3))
    start = turned(truth, rng.normal(size=(n, 3)) * np.radians(3.0))
    loaded = [simulated(scorer, r, d, sigma, rng)[0] for r, d in zip(truth, shifts, strict=True)]
    grid = PoseGrid(3, 2, np.eye(3), 7.5, 12.0, 6.0, np.zeros(3))
    settings = Settings(grid, 8.0, 12.0, 12.0, PIXEL, 30.0, climb=climb)
    noise = np.full((TILTS, DISC.n_shells), sigma**2)
    group = Group(SERIES, noise, np.arange(n), start, np.zeros((n, 3)), loaded.__getitem__)
    found = Expectation(scorer, DISC, settings).run(group, None, None, lambda n: None)
    errors = [angular_distance_deg(e.rotation, r) for e, r in zip(found, truth, strict=True)]
    moved = np.array([np.linalg.norm(e.shift_angstrom - d) for e, d in zip(found, shifts, strict=True)])
    return errors, moved, [e.log_evidence for e in found], [e.sharp for e in found]


def test_climbs_and_grids_agree_where_a_grid_suffices(scorer: Scorer) -> None:
    """Posteriors as wide as the cells of 1.9 degrees and 1.5 Å: the same poses and integrals over rad^3 Å^3."""
    climbed, searched = estimates(scorer, 1.5, climb=True), estimates(scorer, 1.5, climb=False)
    assert sum(climbed[3]) >= 4
    assert not any(searched[3])
    evidence = np.array(climbed[2]) - searched[2]
    assert evidence.min() >= -0.5
    assert evidence.max() <= 2.5  # what falls between the points of the grid
    assert np.abs(np.array(climbed[0]) - searched[0]).max() <= 1.9
    assert np.abs(climbed[1] - searched[1]).max() <= 1.0


def test_climbs_find_what_falls_between_the_points_of_a_grid(scorer: Scorer) -> None:
    climbed, searched = estimates(scorer, 0.3, climb=True), estimates(scorer, 0.3, climb=False)
    assert all(climbed[3])
    assert np.max(climbed[0]) <= 1.2
    assert climbed[1].max() <= 0.3
    assert np.median(climbed[0]) <= 0.6 * np.median(searched[0])
    assert (np.array(climbed[2]) > searched[2]).all()


def test_noise_is_left_to_the_grid(scorer: Scorer) -> None:
    assert not any(estimates(scorer, 6.0, climb=True, n=3)[3])


def test_a_twofold_object_has_two_modes() -> None:
    scorer = Scorer(load_backend("auto"), reference_volume(density(twofold=True)), 2.0, 1)
    rng = np.random.default_rng(8)
    truth = Rotation.from_euler("xyz", [20.0, 30.0, 40.0], degrees=True).as_matrix()
    raw, _ = simulated(scorer, truth, np.zeros(3), 0.3, rng)
    grid = PoseGrid(2, 1, np.eye(3), None, 6.0, 6.0, np.zeros(3))
    settings = Settings(grid, 6.0, 12.0, 12.0, PIXEL, 30.0)
    noise = np.full((TILTS, DISC.n_shells), 0.09)
    group = Group(SERIES, noise, np.arange(1), truth[None], np.zeros((1, 3)), [raw].__getitem__)
    (found,) = Expectation(scorer, DISC, settings).run(group, None, None, lambda n: None)
    assert found.sharp
    assert found.n_significant == 2
    assert abs(found.max_probability - 0.5) <= 0.15
    half_turn = truth @ np.diag([-1.0, -1.0, 1.0])
    assert min(angular_distance_deg(found.rotation, truth), angular_distance_deg(found.rotation, half_turn)) <= 2.0
