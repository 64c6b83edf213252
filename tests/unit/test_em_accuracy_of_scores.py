"""Rounding of log likelihoods at the size of real particles: every compiled backend against float64."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.particles import SimulatedParticles
from tiltwise.em.laplace import Climber, PosePrior, turned
from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.extract.cache import ANCHOR_STEP_PX, PackedSpectra, spread
from tiltwise.kernels.api import Backend
from tiltwise.maps.whitening import WhitenedImages, whiten

BOX, TILTS, PIXEL, NATS = 64, 41, 4.0, 400.0
LARGEST_ERROR = 0.01
"""Nats: changes the weight of a pose by one percent."""
RELATIVE_ERROR = 1e-5
"""Error over the sum of the absolute values of all terms, so that terms which cancel do not hide one."""

Array = NDArray[Any]
F64 = NDArray[np.float64]


@dataclass
class Problem:
    """Six rotations by five shifts of one particle, below a radius, and what float64 makes of them."""

    scorer: Scorer
    data: SimulatedParticles
    image: WhitenedImages
    radius: float
    rotations: F64
    shifts: F64
    phases: NDArray[np.complex64]
    cross: F64
    quadratic: F64
    absolute: F64
    """(R, T) sum of absolute terms"""
    slices: dict[str, NDArray[np.complex64]] = field(default_factory=dict)
    """by backend: emulated kernels are slow"""
    found: dict[str, Array] = field(default_factory=dict)
    """(R, T) log likelihoods by backend"""

    @property
    def frequencies(self) -> NDArray[np.float32]:
        return self.data.disc.frequencies3d(self.data.disc.count(self.radius))

    def with_backend(self, backend: Backend) -> Scorer:
        return replace(self.scorer, backend=backend)

    def score(self, backend: Backend, *lists: NDArray[np.int32]) -> Array:
        """(r, t) as the engine computes it: slices and scores of the same backend."""
        name, image = backend.name, self.image
        if name not in self.slices:
            scorer = self.with_backend(backend)
            self.slices[name] = scorer.slices(self.data.series, image.tilts, self.rotations, self.frequencies)
        cross, quadratic = backend.score(self.slices[name], image.score_image, image.score_power, self.phases, *lists)
        return 2.0 * cross - quadratic[:, None]

    def log_likelihood(self, backend: Backend) -> Array:
        """(R, T), computed once."""
        if backend.name not in self.found:
            self.found[backend.name] = self.score(backend)
        return self.found[backend.name]

    @property
    def exact(self) -> F64:
        return np.asarray(2.0 * self.cross - self.quadratic[:, None])


@pytest.fixture(scope="module", params=[20.0, BOX / 2], ids=["20-shells", "nyquist"])
def problem(request: pytest.FixtureRequest, oracle: Backend) -> Problem:
    data = SimulatedParticles.create(
        1, box=BOX, tilts=TILTS, pixel_size=PIXEL, nats=NATS, radius=20.0, reach_angstrom=10.0
    )
    rng = np.random.default_rng(3)
    truth, shift = data.rotations[0], data.shifts[0]
    # the truth, poses about as far off as a posterior is wide, cells of a search, and one that has nothing in common
    turns = np.radians([0.0, 0.3, 1.0, 4.0, 12.0])
    axes = rng.normal(size=(5, 3))
    vectors = axes / np.linalg.norm(axes, axis=1)[:, None] * turns[:, None]
    near = turned(np.broadcast_to(truth, (5, 3, 3)), vectors)
    rotations = np.concatenate([near, Rotation.random(1, rng=rng).as_matrix()])
    moves = rng.normal(size=(5, 3))
    moves *= (np.array([0.0, 0.3, 2.0, 8.0, 40.0]) / np.linalg.norm(moves, axis=1))[:, None]
    count = data.disc.count(request.param)
    image = data.whitened[0].prefix(count)
    phases = shift_phases(data.series, image.tilts, shift + moves, data.disc, PIXEL, count)
    # Volume, matrices, images and phases are the same single precision numbers for all; everything after is float64.
    exact = Scorer(oracle, data.scorer.volume, data.scorer.scale, 1)
    slices = exact.slices(data.series, image.tilts, rotations, data.disc.frequencies3d(count))
    cross, quadratic = oracle.score(slices, image.score_image, image.score_power, phases)
    moved = image.score_image.astype(np.complex128) * phases
    absolute = np.array([2.0 * np.abs((v.conj() * moved).real).sum(axis=1) for v in slices]) + quadratic[:, None]
    return Problem(
        exact,
        data,
        image,
        request.param,
        rotations,
        shift + moves,
        phases,
        np.asarray(cross, np.float64),
        np.asarray(quadratic, np.float64),
        absolute,
    )


def test_the_problem_is_realistic(problem: Problem) -> None:
    """About 400 nats at the truth, of terms that add up to several times as much."""
    exact = problem.exact
    assert 250.0 <= exact[0, 0] <= 600.0
    assert exact[0, 0] - exact[4, 3] >= 50.0
    assert problem.absolute.min() >= 2.0 * NATS
    assert len(problem.image.score_image) == TILTS * len(problem.frequencies)


def test_log_likelihoods_are_those_of_float64(problem: Problem, compiled: Backend) -> None:
    error = np.abs(problem.log_likelihood(compiled) - problem.exact)
    assert error.max() <= LARGEST_ERROR, f"{error.max():.1e} nats"
    assert (error / problem.absolute).max() <= RELATIVE_ERROR


def test_images_kept_in_sixteen_bits_score_the_same(problem: Problem, oracle: Backend) -> None:
    """Away from the anchor, where the phase ramp is rounded as well; 8e-4 nat measured, 0.02 in half precision."""
    data, raw, count = problem.data, problem.data.raw[0], len(problem.frequencies)
    moved = np.array([[0.5, -0.5, 0.5]]) * ANCHOR_STEP_PX * PIXEL
    ramp = shift_phases(data.series, raw.tilts, moved, data.disc, PIXEL, len(data.disc)).reshape(raw.data.shape)
    packed = PackedSpectra.of((raw.masked * ramp.conj()).astype(np.complex64), data.disc)
    unit = spread(packed.unit, data.disc, count)
    kept = replace(raw, masked=packed.unpack(ramp[:, :count] * unit))
    image = whiten(kept, data.disc, data.noise_power, count)
    slices = problem.scorer.slices(data.series, image.tilts, problem.rotations, problem.frequencies)
    cross, quadratic = oracle.score(slices, image.score_image, image.score_power, problem.phases)
    error = np.abs(2.0 * cross - quadratic[:, None] - problem.exact)
    assert error.max() <= LARGEST_ERROR, f"{error.max():.1e} nats"


def test_lists_of_poses_score_the_same(problem: Problem, compiled: Backend) -> None:
    """The pruned searches pass lists of rotations and shifts, in any order."""
    rows, columns = np.array([4, 0, 5], np.int32), np.array([3, 0], np.int32)
    some = np.ix_(rows, columns)
    error = np.abs(problem.score(compiled, rows, columns) - problem.exact[some])
    assert error.max() <= LARGEST_ERROR
    assert (error / problem.absolute[some]).max() <= RELATIVE_ERROR


SOME = np.arange(0, 30, 3)
"""Every third pair, among them all rotations and all shifts: enough, as each has a sum of its own."""


def curvature_values(problem: Problem, backend: Backend) -> F64:
    """(10,) log likelihoods as climbs see them; the prior is too wide to matter, and the same for all."""
    prior = PosePrior(np.eye(3)[None], np.zeros((1, 3)), None, 1e9)
    owner = np.zeros(len(SOME), np.intp)
    climber = Climber(
        problem.with_backend(backend), problem.data.series, problem.data.disc, PIXEL, [problem.image], owner, prior
    )
    turn, move = np.divmod(SOME, len(problem.shifts))
    every, count = np.arange(len(SOME)), len(problem.frequencies)
    return climber.evaluate(problem.rotations[turn], problem.shifts[move], every, count)[0]


@pytest.fixture(scope="module")
def exact_curvature(problem: Problem, oracle: Backend) -> F64:
    return curvature_values(problem, oracle)


def test_values_of_climbs_are_those_of_float64(problem: Problem, exact_curvature: F64, compiled: Backend) -> None:
    error = np.abs(curvature_values(problem, compiled) - exact_curvature)
    assert error.max() <= LARGEST_ERROR, f"{error.max():.1e} nats"
    assert (error / problem.absolute.ravel()[SOME]).max() <= RELATIVE_ERROR


def test_climbs_and_scores_have_the_same_likelihood(problem: Problem, exact_curvature: F64) -> None:
    """Tables of phases and slopes of shifts are rounded apart."""
    error = np.abs(exact_curvature - problem.exact.ravel()[SOME])
    assert error.max() <= LARGEST_ERROR, f"{error.max():.1e} nats"
    assert (error / problem.absolute.ravel()[SOME]).max() <= RELATIVE_ERROR


def test_posteriors_sum_to_one(problem: Problem, compiled: Backend, oracle: Backend) -> None:
    zeros = np.zeros(len(problem.rotations), np.float32), np.zeros(len(problem.shifts), np.float32)
    log = np.asarray(problem.log_likelihood(compiled), np.float32)
    weights, summary = compiled.posterior(log, *zeros, 1.0)
    expected, exact = oracle.posterior(problem.exact, *zeros, 1.0)  # type: ignore[arg-type]
    assert np.isfinite(weights).all()
    assert abs(weights.sum(dtype=np.float64) - 1.0) <= 1e-5
    # an error of e nats changes weights by the factor exp(e), before they are normalised
    assert 0.5 * np.abs(weights - expected).sum() <= LARGEST_ERROR
    assert abs(summary.log_evidence - exact.log_evidence) <= LARGEST_ERROR
    assert summary.best == exact.best
