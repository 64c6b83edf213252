"""Alignment without images: gradients, gauge, and the errors of estimators on correlations that are known parabolas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.alignments import DOSE, PIXEL, error_ratio, moving, observed, planted, rms, specimen, whole_matrix
from tiltwise.motion.climb import Climbed, climb, climb_lbfgs
from tiltwise.motion.fits import back_in_reach
from tiltwise.motion.gaussian_process import MotionBasis, covariance
from tiltwise.motion.geometry import Alignment
from tiltwise.motion.learning import as_coefficients, learn, log_evidence
from tiltwise.motion.normal import NormalEquations, Solver
from tiltwise.motion.objective import Free, gradient, value
from tiltwise.motion.state import Fitted


@pytest.mark.parametrize("block", ["turn", "shift", "particle", "motion"])
def test_gradient_of_every_block_is_that_of_differences(block: str) -> None:
    rng = np.random.default_rng(1)
    one = moving(specimen(7, 6, rng), 3000.0, 0.2)
    evidence = observed(one, planted(one, rng, motion=True), 0.7, rng, hidden=0.2)
    at = planted(one, rng, motion=True)
    found = gradient(one, evidence, at)
    steps = [np.zeros((6, 5)), np.zeros((7, 3)), np.zeros_like(at.coefficients)]
    part = {"turn": 0, "shift": 0, "particle": 1, "motion": 2}[block]
    direction = rng.normal(size=steps[part].shape)
    if part == 0:
        direction *= np.array([1e-3] * 3 + [0.0] * 2) if block == "turn" else np.array([0.0] * 3 + [1.0] * 2)
    analytic = float((direction * (found.tilt, found.particle, found.coefficients)[part]).sum())
    h = 1e-4
    steps[part] = h * direction
    plus = value(one, evidence, at.moved(*steps))
    steps[part] = -h * direction
    minus = value(one, evidence, at.moved(*steps))
    assert analytic == pytest.approx((plus - minus) / (2 * h), rel=1e-6)


def test_curvature_is_that_of_the_gradient() -> None:
    rng = np.random.default_rng(2)
    one = moving(specimen(6, 5, rng), 3000.0, 0.2)
    none = Alignment.none(one)
    evidence = observed(one, none, 1e-9, rng, hidden=0.2)  # parabolas at no displacement: curvature is expected
    evidence = replace(evidence, information=np.tile(np.eye(2), (len(evidence.particle), 1, 1)))
    matrix = whole_matrix(NormalEquations.of(one, evidence, none))
    n_tilt, n_modes = 25, none.coefficients.size
    step = rng.normal(size=len(matrix)) * np.concatenate(
        [np.tile([1e-4] * 3 + [0.1] * 2, 5), np.full(n_modes + 18, 0.1)]
    )
    tilt, modes, particle = np.split(step, [n_tilt, n_tilt + n_modes])
    h = 1e-4
    moved = none.moved(h * tilt.reshape(5, 5), h * particle.reshape(6, 3), h * modes.reshape(none.coefficients.shape))
    found = gradient(one, evidence, moved)
    data = found.coefficients + moved.coefficients  # without the prior
    change = -np.concatenate([found.tilt.ravel(), data.ravel(), found.particle.ravel()]) / h
    expected = matrix @ step
    assert np.linalg.norm(change - expected) <= 1e-4 * np.linalg.norm(expected)


def test_rigid_problem_has_exactly_six_null_directions() -> None:
    rng = np.random.default_rng(3)
    one = specimen(80, 41, rng)
    evidence = observed(one, Alignment.none(one), 1.0, rng)
    matrix = whole_matrix(NormalEquations.of(one, evidence, planted(one, rng)))
    scale = 1.0 / np.sqrt(np.diagonal(matrix))
    singular = np.linalg.svd(matrix * scale * scale[:, None], compute_uv=False)
    assert len(singular) == 445
    assert (singular < 1e-9 * singular[0]).sum() == 6
    assert singular[-7] > 1e-6 * singular[0]


@pytest.mark.parametrize("method", [climb, climb_lbfgs])
def test_climb_takes_no_rigid_motion_from_its_start(method: Callable[..., Climbed]) -> None:
    rng = np.random.default_rng(4)
    one = specimen(60, 21, rng)
    truth = planted(one, rng)
    evidence = observed(one, truth, 0.5, rng)
    found = method(one, evidence, Alignment.none(one))
    turned = np.einsum("fji,fj->fi", one.rotation, Rotation.from_matrix(found.alignment.turn).as_rotvec())
    assert np.abs(turned.mean(axis=0)).max() <= 1e-6  # radians, mean turn of the specimen
    # a rigid motion added to the start changes no predicted position
    r, a = np.array([1e-3, -2e-3, 5e-4]), np.array([3.0, -1.0, 2.0])
    tilt = np.concatenate([one.rotation @ r, one.rotation[:, :2] @ a], axis=1)
    arms = one.position_px - one.centre_px
    inverse = Rotation.from_rotvec(-r).as_matrix()
    shifted = replace(
        Alignment.none(one).moved(tilt, np.zeros((60, 3)), np.zeros((20, 0, 3))),
        displacement_px=arms @ inverse.T - arms - a @ inverse.T,
    )
    again = method(one, evidence, shifted)
    # L-BFGS stops where relative changes are small
    assert rms(one, again.alignment, one, found.alignment) <= (1e-3 if method is climb else 1e-2)


def test_particles_alone_reach_their_own_tops() -> None:
    """With tilts and motion fixed every particle has its own least squares; one that no image shows stays."""
    rng = np.random.default_rng(13)
    one = replace(specimen(30, 21, rng), position_sigma_px=2.0)
    truth = replace(Alignment.none(one), displacement_px=rng.normal(size=(30, 3)) * 2)
    evidence = observed(one, truth, 0.5, rng, hidden=0.3)
    evidence = replace(evidence, information=evidence.information * rng.uniform(0.2, 3, (len(evidence.tilt), 1, 1)))
    hidden = evidence.particle == 7
    evidence = replace(evidence, information=np.where(hidden[:, None, None], 0.0, evidence.information))
    alone = Free(angles=False, shifts=False)
    found = climb(one, evidence, Alignment.none(one), alone)
    assert found.converged
    for particle in range(30):
        rows = evidence.particle == particle
        rotation = one.rotation[evidence.tilt[rows], :2]
        weight = np.einsum("nij,nik,nkl->jl", rotation, evidence.information[rows], rotation) + np.eye(3) / 4.0
        right = np.einsum("nij,nik,nk->j", rotation, evidence.information[rows], evidence.observed[rows])
        assert np.abs(found.alignment.displacement_px[particle] - np.linalg.solve(weight, right)).max() <= 1e-2
    assert found.value == pytest.approx(value(one, evidence, found.alignment), abs=1e-6)
    assert not found.alignment.displacement_px[7].any()


def test_rigid_errors_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(5)
    one = specimen(80, 41, rng)
    truth = planted(one, rng)
    found = climb(one, observed(one, truth, 1.0, rng), Alignment.none(one))
    assert found.converged
    parameters, observations = 445 - 6, 2 * 80 * 41
    assert rms(one, found.alignment, one, truth) <= 1.1 * np.sqrt(parameters / observations)


@pytest.mark.parametrize(
    ("kernel", "length", "sigma", "limit"),
    [
        ("exponential", 15000.0, 0.3, 0.10),
        ("exponential", 15000.0, 1.0, 0.29),
        ("gaussian", 2000.0, 0.3, 0.11),
        ("gaussian", 2000.0, 1.0, 0.33),
    ],
)
def test_motion_errors_are_those_of_the_posterior(kernel: str, length: float, sigma: float, limit: float) -> None:
    rng = np.random.default_rng(6)
    one = moving(specimen(80, 41, rng), length, 0.2, kernel)
    one = replace(one, basis=one.basis[:, :8])
    truth = planted(one, rng, motion=True)
    evidence = observed(one, truth, sigma, rng)
    found = climb(one, evidence, Alignment.none(one)).alignment
    still = replace(one, basis=one.basis[:, :0])
    rigid = climb(still, evidence, Alignment.none(still)).alignment
    with_motion = rms(one, found, one, truth)
    assert with_motion <= 1.2 * limit
    assert with_motion < rms(still, rigid, one, truth)


def test_quadratic_motion_is_followed() -> None:
    """Drifts v t + a t^2 / 2, t being the dose over 120: no draw of the prior, and known at the first tilt exactly."""
    rng = np.random.default_rng(21)
    still = specimen(80, 41, rng)
    fields = MotionBasis.create(still.position_px * PIXEL, 3000.0, "gaussian").functions
    speed, bend = (fields @ rng.normal(size=(fields.shape[1], 3)) * size / np.sqrt(3.0) for size in (4.0, 6.0))
    time = np.arange(41) * DOSE / 120.0
    drift = (speed[:, None] * time[:, None] + 0.5 * bend[:, None] * time[:, None] ** 2) / PIXEL
    true = replace(still, motion_px=drift)
    truth = planted(still, rng)
    evidence = observed(true, truth, 0.3, rng)
    one = moving(still, 3000.0, 0.06)
    found = climb(one, evidence, Alignment.none(one)).alignment
    rigid = climb(still, evidence, Alignment.none(still)).alignment
    solver = Solver(NormalEquations.of(one, evidence, found), Free())
    drawn = [found.moved(*solver.draw(rng, one.basis.shape[1])) for _ in range(20)]
    posterior = np.sqrt(np.mean([rms(one, draw, one, found) ** 2 for draw in drawn]))
    error = rms(one, found, true, truth)
    assert error * PIXEL < max(0.5, 1.2 * posterior * PIXEL)
    assert 2.0 * error < rms(still, rigid, true, truth)
    assert not found.motion(one)[:, 0].any()


def test_error_bars_cover_predicted_positions() -> None:
    rng = np.random.default_rng(7)
    one = moving(specimen(20, 9, rng), 3000.0, 0.2)
    truths = (planted(one, rng, motion=True) for _ in range(6))
    assert 0.8 <= error_ratio(one, truths, rng) <= 1.25


def test_prior_is_calibrated() -> None:
    rng = np.random.default_rng(8)
    one = moving(specimen(40, 21, rng), 3000.0, 0.5)
    one = replace(one, basis=one.basis[:, :4])  # those that the data determine
    truth = replace(Alignment.none(one), coefficients=rng.normal(size=Alignment.none(one).coefficients.shape))
    alone = Free(angles=False, shifts=False, positions=False)
    found = climb(one, observed(one, truth, 0.01, rng), Alignment.none(one), alone, steps=200).alignment
    # every image sees two of the three components of a motion
    assert (found.coefficients**2).sum() == pytest.approx(2 / 3 * (truth.coefficients**2).sum(), rel=0.1)
    silent = observed(one, Alignment.none(one), 1.0, rng)
    nothing = replace(silent, information=np.zeros_like(silent.information))
    assert np.abs(climb(one, nothing, Alignment.none(one)).alignment.coefficients).max() == 0.0


def test_methods_agree() -> None:
    rng = np.random.default_rng(9)
    one = moving(specimen(20, 11, rng), 3000.0, 0.2)
    evidence = observed(one, planted(one, rng, motion=True), 0.5, rng)
    newton = climb(one, evidence, Alignment.none(one))
    quasi = climb_lbfgs(one, evidence, Alignment.none(one), steps=3000)
    assert quasi.value == pytest.approx(newton.value, abs=0.05)


def test_frozen_parameters_stay() -> None:
    rng = np.random.default_rng(10)
    one = specimen(20, 11, rng)
    evidence = observed(one, planted(one, rng), 0.5, rng)
    for method in (climb, climb_lbfgs):
        found = method(one, evidence, Alignment.none(one), Free(angles=False, positions=False)).alignment
        assert np.array_equal(found.turn, np.tile(np.eye(3), (11, 1, 1)))
        assert not found.displacement_px.any()
        assert found.shift_px.any()


@pytest.mark.parametrize("velocity", [0.1, 0.4])
def test_width_and_range_of_motion_are_learned(velocity: float) -> None:
    rng = np.random.default_rng(11)
    plain = specimen(36, 13, rng)
    length = 1500.0
    one = moving(plain, length, velocity)
    evidence = observed(one, planted(one, rng, motion=True), 0.7, rng)
    start = [climb(plain, evidence, Alignment.none(plain)).alignment, plain]

    def total(v: float, d: float) -> float:
        other = moving(plain, d, v)
        before = start[0].motion(start[1])
        begun = replace(start[0], coefficients=as_coefficients(other, np.diff(before, axis=1)))
        found = climb(other, evidence, begun)
        start[:] = [found.alignment, other]
        return log_evidence(found)

    found = learn(total, None, None)
    assert 1 / 1.5 <= found.velocity / velocity <= 1.5
    assert 0.5 <= found.length_angstrom / length <= 2.0


def test_basis_is_the_covariance() -> None:
    rng = np.random.default_rng(12)
    points = rng.uniform(0, 4000, (50, 3))
    for kernel in ("gaussian", "exponential"):
        basis = MotionBasis.create(points, 2000.0, kernel)  # type: ignore[arg-type]
        full = covariance(points, points, 2000.0, kernel)  # type: ignore[arg-type]
        assert np.abs(basis.functions @ basis.functions.T - full).max() <= 2e-3
        assert np.abs(basis.at(points) - basis.functions).max() <= 1e-6


def test_what_is_kept_between_rounds_does_not_depend_on_modes() -> None:
    """Eigenvectors of a basis have the signs that a library chose: displacements are the same everywhere."""
    rng = np.random.default_rng(14)
    one = moving(specimen(12, 9, rng), 3000.0, 0.4)
    truth = planted(one, rng, motion=True)
    kept = Fitted(one, truth).written_out()
    assert not kept.alignment.coefficients.size
    assert np.abs(kept.alignment.predict(kept.specimen) - truth.predict(one)).max() <= 1e-9
    flipped = replace(one, basis=-one.basis)
    other = Fitted(flipped, replace(truth, coefficients=-truth.coefficients)).written_out()
    assert other.specimen.motion_px.tobytes() == kept.specimen.motion_px.tobytes()


def test_a_tilt_that_has_left_its_tables_is_as_it_was() -> None:
    rng = np.random.default_rng(3)
    one = specimen(8, 6, rng)
    true = planted(one, rng)
    evidence = observed(one, true, 0.5, rng)
    assert back_in_reach(one, evidence, true) is true
    far = np.zeros((6, 5))
    far[2, 3:] = 2.0 * evidence.reach_px
    lost = true.moved(far, np.zeros((8, 3)), np.zeros_like(true.coefficients))
    back = back_in_reach(one, evidence, lost)
    np.testing.assert_array_equal(back.turn[2], np.eye(3))
    np.testing.assert_array_equal(back.shift_px[2], 0.0)
    rest = np.arange(6) != 2
    np.testing.assert_array_equal(back.turn[rest], true.turn[rest])
    np.testing.assert_array_equal(back.displacement_px, true.displacement_px)
