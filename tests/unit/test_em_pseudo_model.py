"""Pseudo-subtomograms as images: sums, both likelihoods, noise power, derivatives and M-step, against float64 formulas.

`D`, `W` and `M` are Eqs. 8-10; the tilt images are those of one particle in a known pose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.compare import assert_close
from helpers.particles import tilt_series
from tiltwise.em.laplace import Climber
from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.em.maximisation import Maximiser, NoiseSums, PosteriorPoses, ShiftSpread
from tiltwise.em.noise_power import noise_power
from tiltwise.em.priors import PosePrior
from tiltwise.em.pseudo_model import PseudoModel, TiltSums
from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import Accumulator, reference_volume
from tiltwise.maps.whitening import WhitenedImages, noise_weight, slice_matrices, whiten
from tiltwise.model import Views, WholeView
from tiltwise.spectral.ball import FourierBall
from tiltwise.spectral.components import FourierComponents
from tiltwise.spectral.disc import FourierDisc

F64 = NDArray[np.float64]
BOX, PIXEL, TILTS = 24, 4.0, 11
DISC = FourierDisc.create(BOX)
EVERY = np.arange(TILTS)
TRUTH = Rotation.from_euler("zyz", [70.0, 50.0, 10.0], degrees=True).as_matrix()
SHIFT = np.array([3.0, -2.0, 1.5])
SERIES = tilt_series(TILTS, PIXEL)
VIEW = WholeView(SERIES.name)
BACKEND, ORACLE = load_backend("auto"), load_backend("reference")
CTF = np.cos(0.15 * DISC.shells + 0.3 * EVERY[:, None])
SIGMA2 = 2.0 + 3.0 * np.abs(np.linspace(-1.0, 1.0, TILTS))
"""Noise power of every tilt: the steeper, the thicker."""
NOISE = np.repeat(SIGMA2[:, None], DISC.n_shells, axis=1)
ONE = np.ones((1, DISC.n_shells))
STILL = np.zeros(3)


def density() -> NDArray[np.float32]:
    """Blobs within a sphere of about 0.6 of the box."""
    rng = np.random.default_rng(2)
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    centres = rng.normal(size=(12, 3))
    centres *= 5.0 * rng.uniform(size=(12, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1)[:, None]
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 3.0) for a, b, c in centres).astype(np.float32)


SCORER = Scorer(BACKEND, reference_volume(density()), 2.0, 1)


def simulated(seed: int | None, signal: float = 1.0, sigma2: F64 = SIGMA2) -> ParticleImages:
    """C X of a particle in the true pose; with None without noise, which is the mean over all noise."""
    model = SCORER.slices(SERIES, EVERY, TRUTH[None], DISC.frequencies3d())
    phases = shift_phases(SERIES, EVERY, SHIFT[None], DISC, PIXEL, len(DISC))
    image = signal * CTF * (model * phases.conj()).reshape(TILTS, -1)
    if seed is not None:
        noise = np.random.default_rng(seed).normal(size=(2, TILTS, len(DISC))) * np.sqrt(sigma2 / 2)[:, None]
        image += noise[0] + 1j * noise[1]
    data = (CTF * image).astype(np.complex64)
    return ParticleImages(EVERY, data, data, (CTF**2).astype(np.float32), NOISE)


def source(
    images: ParticleImages, likelihood: str, *, whitened: bool = True, diameter: float | None = None
) -> PseudoModel:
    """Pseudo-subtomograms of one particle; `whitened` False leaves the noise power of the tilts out of exact sums."""
    optset: Any = SimpleNamespace(series=(SERIES,), particles=SimpleNamespace(tomogram=(SERIES.name,)))
    tilts: Any = SimpleNamespace(
        optset=optset, disc=DISC, box=BOX, pixel_size=PIXEL, series_of=np.zeros(1, np.intp), visible=None
    )
    cache: Any = SimpleNamespace(source=tilts, load=lambda *_: images)
    noise = [NOISE if whitened else np.ones_like(NOISE)] if likelihood == "exact" else None
    return PseudoModel(optset, TiltSums(cache, BACKEND, noise), exact=likelihood == "exact", diameter_angstrom=diameter)


def pseudo(images: ParticleImages, likelihood: str) -> tuple[ParticleImages, FourierBall]:
    made = source(images, likelihood)
    return made.load(0, STILL), made.ball


Likelihood = Callable[[F64, F64], F64]
"""log L (R, T) of rotations and shifts"""


def scored(view: Views, disc: FourierComponents, image: WhitenedImages) -> Likelihood:
    def log_likelihood(rotations: F64, shifts: F64) -> F64:
        phases = shift_phases(view, image.tilts, shifts, disc, PIXEL, len(disc))
        cross, quadratic = SCORER.terms(view, image, rotations, phases, disc.frequencies3d())
        return 2.0 * cross.astype(np.float64) - quadratic[:, None]

    return log_likelihood


def on_stack(images: ParticleImages) -> Likelihood:
    return scored(SERIES, DISC, whiten(images, DISC, NOISE, len(DISC)))


def on_pseudo(images: ParticleImages, likelihood: str, noise: F64 = ONE) -> Likelihood:
    found, ball = pseudo(images, likelihood)
    return scored(VIEW, ball, whiten(found, ball, noise, len(ball)))


def model(ball: FourierComponents, rotation: F64, shift: F64) -> NDArray[np.complex128]:
    """(K,) V(Rk) moved by a shift, in double precision."""
    values = ORACLE.project(SCORER.volume, 2.0 * rotation.T[None], ball.frequencies3d(), BOX)[0]
    return np.asarray(values * np.exp(-2j * np.pi * ball.frequencies @ shift / (BOX * PIXEL)))


def turned(rotvecs: F64) -> F64:
    """Rotations away from the truth by (n, 3) radians."""
    return Rotation.from_rotvec(rotvecs).as_matrix() @ TRUTH


STEPS = np.array([np.radians(2.0)] * 3 + [1.0] * 3)


def derivatives(log_likelihood: Likelihood) -> tuple[F64, F64]:
    """Slopes (6,) and curvatures (6,) at the truth by finite differences: rotations in rad, shifts in Å."""
    change = np.concatenate([np.zeros((1, 6)), np.diag(STEPS), np.diag(-STEPS)])
    by_turn = log_likelihood(turned(change[[0, 1, 2, 3, 7, 8, 9], :3]), SHIFT[None])[:, 0]
    by_shift = log_likelihood(TRUTH[None], SHIFT + change[[4, 5, 6, 10, 11, 12], 3:])[0]
    up, down = np.r_[by_turn[1:4], by_shift[:3]], np.r_[by_turn[4:], by_shift[3:]]
    return (up - down) / (2 * STEPS), (2 * by_turn[0] - up - down) / STEPS**2


CUBE = np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
CENTRE = (len(CUBE) // 2, len(CUBE) // 2)


def over_poses(log_likelihood: Likelihood) -> F64:
    """log L relative to the truth at poses up to 10 degrees and 6 Å away along each axis."""
    values = log_likelihood(turned(CUBE * np.radians(10.0)), SHIFT + 6.0 * CUBE)
    return np.asarray(values - values[CENTRE])


# ---- sums --------------------------------------------------------------------------------------------------


def test_sums_are_equations_8_to_10() -> None:
    """By adjointness: for any V on the grid, sum conj(V) D is the sum over the slices interpolated from V."""
    images = simulated(1)
    found, ball = pseudo(images, "relion")
    rng = np.random.default_rng(0)
    volume = np.zeros((BOX, BOX, BOX // 2 + 1), np.complex64)
    kx, ky, kz = ball.frequencies.T
    values = (rng.normal(size=(2, len(ball))) * (ball.shells < 11)).astype(np.float32)
    v = values[0] + 1j * values[1]
    v[0] = 0.0
    volume[kz, ky, kx] = v
    volume[-kz[kx == 0], -ky[kx == 0], 0] = v[kx == 0].conj()
    matrices = slice_matrices(SERIES, EVERY, np.eye(3)[None], 1.0)
    slices = ORACLE.project(volume, matrices, DISC.frequencies3d(), BOX // 2)
    for sums, weights in ((found.data[0], images.data), (found.ctf2[0], CTF**2), (found.samples, np.ones_like(CTF))):
        assert sums is not None
        products = (slices.conj() * weights).real
        assert abs((v.conj() * np.ravel(sums)).real.sum() - products.sum()) <= 1e-6 * np.abs(products).sum()


def test_voxels_that_no_slice_reaches_are_left_out() -> None:
    _, ball = pseudo(simulated(1), "exact")
    assert 0.5 <= len(ball) / len(FourierBall.create(BOX)) <= 0.95  # a missing wedge
    assert not ball.frequencies[0].any()


def test_the_mask_acts_on_scores_alone() -> None:
    images = simulated(3)
    found, masked = (source(images, "exact", diameter=d).load(0, STILL) for d in (None, 40.0))
    np.testing.assert_array_equal(found.data, masked.data)
    assert np.linalg.norm(masked.masked) < 0.9 * np.linalg.norm(found.masked)


# ---- likelihoods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 50])
def test_exact_log_likelihoods_are_close_to_those_of_the_stack(seed: int | None) -> None:
    images = simulated(seed)
    stack, found = over_poses(on_stack(images)), over_poses(on_pseudo(images, "exact"))
    value_range = np.ptp(stack)
    assert np.abs(found - stack).max() <= 0.07 * value_range  # measured 0.054 and 0.052
    # the best pose is as good as the best of the stack
    assert stack.max() - stack[np.unravel_index(found.argmax(), found.shape)] <= 0.02 * value_range


def test_exact_curvatures_are_close_to_those_of_the_stack() -> None:
    images = simulated(None)
    expected, found = derivatives(on_stack(images))[1], derivatives(on_pseudo(images, "exact"))
    # Rotations change the quadratic term, which knows the slices of the images less well.
    ratio = found[1] / expected
    np.testing.assert_allclose(ratio[3:], 1.0, atol=0.06)  # 1.01 to 1.03
    assert ratio[:3].min() >= 0.9
    assert ratio[:3].max() <= 1.45  # 1.20 to 1.31
    off = found[0] / found[1]  # where the maximum lies
    assert np.linalg.norm(np.degrees(off[:3])) <= 0.9  # 0.66 degrees
    assert np.linalg.norm(off[3:]) <= 0.2  # 0.11 Å, of 3.9 Å


def test_the_form_of_relion_is_equation_7() -> None:
    images = simulated(4)
    found, ball = pseudo(images, "relion")
    assert found.samples is not None
    data, ctf2, samples = (a[0].astype(np.complex128) for a in (found.data, found.ctf2, found.samples))
    sigma2 = np.linspace(1.0, 3.0, ball.n_shells)[None]
    used = (samples.real >= 0.01) & (np.arange(len(ball)) > 0)

    def direct(rotation: F64, shift: F64) -> float:
        off = np.abs(data - ctf2 * model(ball, rotation, shift)) ** 2
        return -float((off / (samples.real * sigma2[0, ball.shells]))[used].sum())

    rotations, shifts = turned(np.array([[0.0, 0.0, 0.0], [0.1, -0.2, 0.1]])), np.stack([SHIFT, SHIFT + 5.0])
    whole = replace(found, masked=found.data)  # Eq. 7 has no mask
    values = scored(VIEW, ball, whiten(whole, ball, sigma2, len(ball)))(rotations, shifts)
    expected = np.array([[direct(r, s) for s in shifts] for r in rotations])
    difference = values - values[0, 0] - (expected - expected[0, 0])
    assert np.abs(difference).max() <= 1e-4 * np.ptp(expected)


def test_the_form_of_relion_is_over_confident_and_less_precise() -> None:
    """Of a true likelihood, variance of the slope over curvature is 1; above 1, error bars are too small."""
    learned = relion_noise()
    forms: dict[str, Callable[[ParticleImages], Likelihood]] = {
        "stack": on_stack,
        "exact": lambda images: on_pseudo(images, "exact"),
        "relion": lambda images: on_pseudo(images, "relion", learned),
    }
    slopes: dict[str, list[F64]] = {name: [] for name in forms}
    for seed in range(100, 220):
        images = simulated(seed)
        for name, form in forms.items():
            slopes[name].append(derivatives(form(images))[0])
    curvature = {name: derivatives(form(simulated(None)))[1] for name, form in forms.items()}
    variance = {name: np.var(values, axis=0) for name, values in slopes.items()}
    confidence = {name: float((variance[name] / curvature[name]).mean()) for name in forms}
    # Means over six parameters; 120 particles know each of them to 13 %.
    assert abs(confidence["stack"] - 1) <= 0.2
    assert abs(confidence["exact"] - 1) <= 0.2
    assert confidence["relion"] >= 2.5
    precision = {name: curvature[name] ** 2 / variance[name] for name in forms}
    assert (precision["exact"] / precision["stack"]).mean() >= 0.95
    assert (precision["relion"] / precision["stack"]).mean() <= 0.93


# ---- noise power -------------------------------------------------------------------------------------------


def relion_noise() -> F64:
    """(1, S) sigma^2 of Eq. 12 in RELION's form at the true pose, smoothed over shells."""
    sums = NoiseSums.empty(1, DISC.n_shells)
    for seed in range(8):
        add_noise(sums, *pseudo(simulated(seed), "relion"), ONE)
    return noise_power(sums, FourierBall.create(BOX), 1.0, ONE)


def add_noise(sums: NoiseSums, images: ParticleImages, ball: FourierBall, noise: F64) -> None:
    poses = PosteriorPoses(TRUTH[None], np.ones((1, 1), np.float32), SHIFT[None])
    maximiser = Maximiser(SCORER, ball, PIXEL, VIEW, noise, Accumulator.empty(BOX), sums)
    maximiser.add(whiten(images, ball, noise, len(ball)), images, poses)


def test_noise_power_of_relion_is_equation_12() -> None:
    images, ball = pseudo(simulated(5), "relion")
    sums = NoiseSums.empty(1, ball.n_shells)
    add_noise(sums, images, ball, 2.0 * ONE)
    residual = np.abs(images.data[0] - images.ctf2[0] * model(ball, TRUTH, SHIFT)) ** 2
    assert images.samples is not None
    size, samples = (np.bincount(ball.shells, a, ball.n_shells) for a in (residual, images.samples[0]))
    components = np.bincount(ball.shells, minlength=ball.n_shells)
    found = (sums.power - sums.explained / np.maximum(components, 1))[0] * components
    np.testing.assert_allclose(found[1:12], size[1:12], rtol=1e-4)
    np.testing.assert_allclose((sums.weight[0] * components)[:12], samples[:12], rtol=1e-5)


@pytest.mark.parametrize(("whitened", "expected"), [(True, 1.0), (False, 3.0)])
def test_noise_power_of_exact_sums_is_that_of_the_images(*, whitened: bool, expected: float) -> None:
    """Although trilinear shares average the noise of a voxel: nine tenths of the density are known to 10 %."""
    power, weight = np.zeros(DISC.n_shells), np.zeros(DISC.n_shells)
    sigma2 = SIGMA2 if whitened else np.full(TILTS, 3.0)
    for seed in range(12):
        made = source(simulated(seed, 0.0, sigma2), "exact", whitened=whitened)
        images = made.load(0, STILL)
        power += images.power[0]
        weight += noise_weight(images, made.ball)[0]
    ratio = power[2:12] / weight[2:12]
    np.testing.assert_allclose(ratio.mean(), expected, rtol=0.1)
    np.testing.assert_allclose(ratio, expected, rtol=0.3)


# ---- E-step and M-step against formulas --------------------------------------------------------------------


def test_climbs_see_the_derivatives_of_the_log_posterior() -> None:
    images, ball = pseudo(simulated(6), "exact")
    image = whiten(images, ball, ONE, len(ball))
    prior = PosePrior(TRUTH[None], np.array([[1.0, 2.0, 3.0]]), 0.2, 8.0)
    scorer = Scorer(ORACLE, SCORER.volume, 2.0, 1)
    climber = Climber(scorer, VIEW, ball, PIXEL, [image], np.zeros(1, np.intp), prior)
    rotation, shift = turned(np.array([[0.02, -0.01, 0.03]])), (SHIFT + np.array([0.5, -1.0, 0.3]))[None]
    count = ball.count(9.0)
    value, gradient, information = climber.evaluate(rotation, shift, np.zeros(1, np.intp), count)

    y, b = image.score_image[:count].astype(np.complex128), image.score_power[:count].astype(np.float64)

    def log_posterior(change: F64) -> float:
        turn, move = Rotation.from_rotvec(change[:3]).as_matrix() @ rotation[0], shift[0] + change[3:]
        v = model(ball, turn, move)[:count]
        prior_of = prior.of_rotations(turn[None])[0] + prior.of_shifts(move[None])[0]
        return float((2.0 * (v.conj() * y).real - b * np.abs(v) ** 2).sum() + prior_of)

    # matrices and slopes are stored in single precision
    np.testing.assert_allclose(value[0], log_posterior(np.zeros(6)), rtol=1e-5)
    steps = np.array([1e-4] * 3 + [1e-3] * 3)
    expected = [(log_posterior(s) - log_posterior(-s)) / (2 * np.abs(s).max()) for s in np.diag(steps)]
    assert_close(gradient[0] * steps, np.array(expected) * steps, 1e-3)
    jacobian = np.stack(
        [
            (model(ball, *moved(rotation[0], shift[0], s)) - model(ball, *moved(rotation[0], shift[0], -s)))
            for s in np.diag(steps)
        ]
    )[:, :count] / (2 * steps[:, None])
    fisher = (
        2.0 * np.einsum("ak,k,bk->ab", jacobian.conj(), b, jacobian).real + prior.derivatives(rotation, shift)[1][0]
    )
    scale = np.sqrt(np.diag(fisher))
    assert_close(information[0] / np.outer(scale, scale), fisher / np.outer(scale, scale), 1e-3)


def moved(rotation: F64, shift: F64, change: F64) -> tuple[F64, F64]:
    return Rotation.from_rotvec(change[:3]).as_matrix() @ rotation, shift + change[3:]


@pytest.mark.parametrize("width", [0.0, 2.0])
def test_the_m_step_is_equation_11(width: float) -> None:
    """Numerator and denominator are posterior-weighted sums of D and W over s^2, turned and moved back."""
    images, ball = pseudo(simulated(7), "exact")
    noise = np.linspace(0.5, 2.0, ball.n_shells)[None]
    rotations, shifts = Rotation.random(2, rng=4).as_matrix(), np.array([SHIFT, SHIFT + 4.0, -SHIFT])
    weights = np.array([[0.5, 0.0, 0.1], [0.0, 0.3, 0.1]], np.float32)
    covariance = width**2 * np.array([[1.0, 0.3, 0.1], [0.3, 0.8, -0.2], [0.1, -0.2, 0.5]])
    spread = ShiftSpread(covariance[None], np.zeros(3, np.intp))
    total = Accumulator.empty(BOX)
    maximiser = Maximiser(SCORER, ball, PIXEL, VIEW, noise, total, None)
    maximiser.add(whiten(images, ball, noise, len(ball)), images, PosteriorPoses(rotations, weights, shifts, spread))

    k = ball.frequencies * (2.0 * np.pi / (BOX * PIXEL))
    damping = np.exp(-0.5 * np.einsum("ki,ij,kj->k", k, covariance, k))
    back = np.exp(1j * shifts @ k.T) * damping
    expected, s2 = Accumulator.empty(BOX), noise[0, ball.shells]
    ORACLE.insert(
        (weights.astype(np.float64) @ back) * images.data[0] / s2,
        weights.sum(axis=1, dtype=np.float64)[:, None] * images.ctf2[0] / s2,
        2.0 * np.swapaxes(rotations, 1, 2),
        ball.frequencies3d(),
        BOX,
        expected.data,
        expected.weight,
    )
    assert_close(total.data, expected.data, 1e-5)
    assert_close(total.weight, expected.weight, 1e-5)
