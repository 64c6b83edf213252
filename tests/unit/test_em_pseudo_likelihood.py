"""Likelihood on pseudo-subtomograms: adjointness, distance to the likelihood on tilt images, RELION's form, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.particles import tilt_series
from tiltwise.em.likelihood import Scorer
from tiltwise.em.likelihood import shift_phases as stack_phases
from tiltwise.em.pseudo_likelihood import (
    WhitenedPseudo,
    shift_phases,
    terms,
    whiten_pseudo_exact,
    whiten_pseudo_relion,
)
from tiltwise.errors import DataError, ShapeError
from tiltwise.extract.images import ParticleImages
from tiltwise.io.stacks import PseudoSubtomogram
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import Accumulator, reference_volume
from tiltwise.maps.whitening import WhitenedImages, slice_matrices, whiten
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import centred_fft3, centred_ifft3

F64 = NDArray[np.float64]
BOX, PIXEL, TILTS = 24, 4.0, 11
DISC = FourierDisc.create(BOX)
EVERY = np.arange(TILTS)
FRAME = Rotation.from_euler("zyz", [20.0, 35.0, -50.0], degrees=True).as_matrix()
# The pose relative to the frame, shift in Å.
TRUTH = Rotation.from_euler("zyz", [70.0, 50.0, 10.0], degrees=True).as_matrix()
SHIFT = np.array([3.0, -2.0, 1.5])


SERIES = tilt_series(TILTS, PIXEL)
BACKEND = load_backend("auto")
MATRICES = slice_matrices(SERIES, EVERY, FRAME[None], 1.0)
CTF = np.cos(0.15 * DISC.shells + 0.3 * EVERY[:, None])
SIGMA2 = 2.0 + 3.0 * np.abs(np.linspace(-1.0, 1.0, TILTS))
"""Noise power of every tilt: the steeper, the thicker."""
NOISE = np.repeat(SIGMA2[:, None], DISC.n_shells, axis=1)


def density() -> NDArray[np.float32]:
    """Blobs within a sphere of about 0.6 of the box."""
    rng = np.random.default_rng(2)
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    centres = rng.normal(size=(12, 3))
    centres *= 5.0 * rng.uniform(size=(12, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1)[:, None]
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 3.0) for a, b, c in centres).astype(np.float32)


SCORER = Scorer(BACKEND, reference_volume(density()), 2.0, 1)


def phases_of_stack(shifts: F64) -> NDArray[np.complex64]:
    """Phases of the images for shifts along the axes of the frame."""
    return stack_phases(SERIES, EVERY, shifts @ FRAME.T, DISC, PIXEL, len(DISC))


def simulated(seed: int | None) -> NDArray[np.complex64]:
    """(F, K) C X of a particle in the true pose; with None without noise, which is the mean over all noise."""
    model = SCORER.slices(SERIES, EVERY, (FRAME @ TRUTH)[None], DISC.frequencies3d())
    image = CTF * (model * phases_of_stack(SHIFT[None]).conj()).reshape(TILTS, -1)
    if seed is not None:
        noise = np.random.default_rng(seed).normal(size=(2, TILTS, len(DISC))) * np.sqrt(SIGMA2 / 2)[:, None]
        image += noise[0] + 1j * noise[1]
    return (CTF * image).astype(np.complex64)


def whitened(data: NDArray[np.complex64], count: int = len(DISC)) -> WhitenedImages:
    images = ParticleImages(EVERY, data, data, (CTF**2).astype(np.float32), NOISE)
    return whiten(images, DISC, NOISE, count)


def exact(data: NDArray[np.complex64]) -> WhitenedPseudo:
    return whiten_pseudo_exact(BACKEND, whitened(data), SERIES, FRAME, DISC, threads=1)


def pseudo_subtomogram(data: NDArray[np.complex64]) -> PseudoSubtomogram:
    """Eqs. 8-10 without noise power, as files hold them."""
    total, counts = Accumulator.empty(BOX, 1), Accumulator.empty(BOX, 1)
    for sums, weights in ((total, CTF**2), (counts, np.ones_like(CTF))):
        weights = weights.astype(np.float32)
        BACKEND.insert(data, weights, MATRICES, DISC.frequencies3d(), BOX // 2, sums.data, sums.weight, threads=1)
        sums.complete()
    return PseudoSubtomogram(
        centred_ifft3(total.data, BOX).astype(np.float32),
        total.weight.astype(np.float32),
        counts.weight.astype(np.float32),
        PIXEL,
    )


Likelihood = Callable[[F64, F64], F64]
"""log L (R, T) of rotations and shifts"""


def on_stack(data: NDArray[np.complex64]) -> Likelihood:
    image = whitened(data)

    def log_likelihood(rotations: F64, shifts: F64) -> F64:
        cross, quadratic = SCORER.terms(SERIES, image, FRAME @ rotations, phases_of_stack(shifts), DISC.frequencies3d())
        return 2.0 * cross.astype(np.float64) - quadratic[:, None]

    return log_likelihood


def on_pseudo(image: WhitenedPseudo) -> Likelihood:
    def log_likelihood(rotations: F64, shifts: F64) -> F64:
        cross, quadratic = terms(BACKEND, SCORER.volume, 2.0, image, rotations, shifts, PIXEL, 1)
        return 2.0 * cross.astype(np.float64) - quadratic[:, None]

    return log_likelihood


class Components(NamedTuple):
    """D, W and M (K,)"""

    data: NDArray[np.complex128]
    ctf2: F64
    multiplicity: F64


def components(pseudo: PseudoSubtomogram, image: WhitenedPseudo) -> Components:
    kx, ky, kz = image.frequencies.astype(int).T
    assert pseudo.multiplicity is not None
    arrays = centred_fft3(pseudo.data.astype(np.float64)), pseudo.ctf2, pseudo.multiplicity
    return Components(*(array[kz, ky, kx] for array in arrays))


def model_at(image: WhitenedPseudo, rotation: F64, shift: F64) -> NDArray[np.complex128]:
    """(K,) V(Rk) moved by a shift."""
    matrix = np.ascontiguousarray(2.0 * rotation.T[None], dtype=np.float32)
    values = BACKEND.project(SCORER.volume, matrix, image.frequencies, BOX, threads=1)[0]
    return values * np.exp(-2j * np.pi * image.frequencies @ shift / (BOX * PIXEL))


@pytest.fixture(scope="module")
def learned_noise() -> F64:
    """sigma^2 per shell of Eq. 12 in RELION's form, at the true pose."""
    residual, count = np.zeros(DISC.n_shells), np.zeros(DISC.n_shells)
    for seed in range(8):
        data = simulated(seed)
        image = exact(data)
        shells = np.rint(np.linalg.norm(image.frequencies, axis=1)).astype(int)
        found = components(pseudo_subtomogram(data), image)
        off = np.abs(found.data - found.ctf2 * model_at(image, TRUTH, SHIFT)) ** 2
        residual += np.bincount(shells, off, DISC.n_shells)
        count += np.bincount(shells, found.multiplicity, DISC.n_shells)
    return residual / count


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
    return values - values[CENTRE]


def test_components_are_those_of_half_a_ball() -> None:
    image = exact(simulated(0))
    k = image.frequencies.astype(int)
    square = (k**2).sum(axis=1)
    assert (np.diff(square) >= 0).all()
    np.testing.assert_array_equal(k[0], 0)
    assert image.image[0] == 0
    assert image.power[0] == 0
    axis = np.arange(-BOX // 2, BOX // 2 + 1)
    every = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    ball = {tuple(v) for v in every[(every**2).sum(axis=1) < BOX**2 / 4]}
    half = {tuple(v) for v in k}
    mates = {tuple(-v) for v in k[1:]}
    assert len(half) == len(k)
    assert not half & mates
    assert half | mates == ball
    x, y, z = k.T
    assert ((x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z >= 0))))).all()
    small = whiten_pseudo_exact(BACKEND, whitened(simulated(0)), SERIES, FRAME, DISC, 7.0, threads=1)
    n = len(small.image)
    assert n == int((square < 49).sum())
    np.testing.assert_array_equal(small.frequencies, image.frequencies[:n])
    np.testing.assert_array_equal(small.image, image.image[:n])
    np.testing.assert_array_equal(small.power, image.power[:n])


def test_the_cross_term_is_that_of_the_stack_by_adjointness() -> None:
    """Slices of V(Rk), moved, on the unpadded grid.  Images end sqrt(3) before the ball does."""
    stack = whitened(simulated(1), DISC.count(10.0))
    image = whiten_pseudo_exact(BACKEND, stack, SERIES, FRAME, DISC, threads=1)
    frequencies = DISC.frequencies3d(DISC.count(10.0))
    rotations, shifts = Rotation.random(3, rng=3).as_matrix(), np.array([[0.0, 0.0, 0.0], [5.0, -3.0, 8.0]])
    cross, quadratic = terms(BACKEND, SCORER.volume, 2.0, image, rotations, shifts, PIXEL, 1)
    kx, ky, kz = image.frequencies.astype(int).T
    for r, rotation in enumerate(rotations):
        for t, shift in enumerate(shifts):
            values = model_at(image, rotation, shift)
            values[0] = 0.0
            volume = np.zeros((BOX, BOX, BOX // 2 + 1), np.complex64)
            volume[kz, ky, kx] = values
            volume[-kz[kx == 0], -ky[kx == 0], 0] = values[kx == 0].conj()
            slices = BACKEND.project(volume, MATRICES, frequencies, BOX // 2, threads=1).reshape(-1)
            products = (slices.conj() * stack.score_image).real.astype(np.float64)
            assert abs(cross[r, t] - products.sum()) <= 1e-6 * np.abs(products).sum()
            # sum l |V|^2 >= |sum l V|^2
            assert quadratic[r] >= (stack.score_power * np.abs(slices.astype(np.complex128)) ** 2).sum()


@pytest.mark.parametrize("seed", [None, 50])
def test_log_likelihoods_of_poses_are_close_to_those_of_the_stack(seed: int | None) -> None:
    """Insertion without padding attenuates the density off the centre: most of the difference is a factor of 0.9."""
    data = simulated(seed)
    stack, pseudo = over_poses(on_stack(data)), over_poses(on_pseudo(exact(data)))
    assert np.unravel_index(stack.argmax(), stack.shape) == CENTRE
    assert np.unravel_index(pseudo.argmax(), pseudo.shape) == CENTRE
    value_range = np.ptp(stack)
    assert np.abs(pseudo - stack).max() <= 0.2 * value_range  # measured 0.16 and 0.15
    factor = (pseudo * stack).sum() / (stack**2).sum()
    assert abs(factor - 0.91) <= 0.03  # 0.907 and 0.911
    assert np.abs(pseudo / factor - stack).max() <= 0.1 * value_range  # 0.08


def test_curvatures_are_close_to_those_of_the_stack() -> None:
    data = simulated(None)
    _, expected = derivatives(on_stack(data))
    slope, found = derivatives(on_pseudo(exact(data)))
    ratio = found / expected
    assert ratio.min() >= 0.84  # rotations 0.88 to 0.91, shifts 0.90 to 0.95
    assert ratio.max() <= 0.98
    # Where the maximum lies: the attenuation draws density towards the centre of the box.
    off = slope / found
    assert np.linalg.norm(np.degrees(off[:3])) <= 0.7  # measured 0.46 degrees
    assert np.linalg.norm(off[3:]) <= 0.8  # 0.65 Å, of 3.9 Å


def test_the_form_of_relion_peaks_at_the_same_pose(learned_noise: F64) -> None:
    data = simulated(None)
    log_likelihood = on_pseudo(whiten_pseudo_relion(pseudo_subtomogram(data), learned_noise))
    values = over_poses(log_likelihood)
    assert np.unravel_index(values.argmax(), values.shape) == CENTRE
    ratio = derivatives(log_likelihood)[1] / derivatives(on_stack(data))[1]
    assert ratio.min() >= 1.5  # rotations 3.3 to 3.9, shifts 2.2 to 3.1


def test_the_form_of_relion_is_over_confident_and_less_precise(learned_noise: F64) -> None:
    """Of a true likelihood, variance of the slope over curvature is 1; above 1, error bars are too small."""
    forms: dict[str, Callable[[NDArray[np.complex64]], Likelihood]] = {
        "stack": on_stack,
        "exact": lambda data: on_pseudo(exact(data)),
        "relion": lambda data: on_pseudo(whiten_pseudo_relion(pseudo_subtomogram(data), learned_noise)),
    }
    slopes: dict[str, list[F64]] = {name: [] for name in forms}
    for seed in range(100, 300):
        data = simulated(seed)
        for name, form in forms.items():
            slopes[name].append(derivatives(form(data))[0])
    curvature = {name: derivatives(form(simulated(None)))[1] for name, form in forms.items()}
    variance = {name: np.var(values, axis=0) for name, values in slopes.items()}
    confidence = {name: float((variance[name] / curvature[name]).mean()) for name in forms}
    # Means over six parameters; 200 particles know each of them to 10 %.
    assert abs(confidence["stack"] - 1) <= 0.15
    assert abs(confidence["exact"] - 0.8) <= 0.15
    assert confidence["relion"] >= 2.5  # measured 3.5 to 3.9
    precision = {name: curvature[name] ** 2 / variance[name] for name in forms}
    assert (precision["relion"] / precision["stack"]).mean() <= 0.93  # measured 0.79 to 0.90


def test_the_form_of_relion_is_equation_7(learned_noise: F64) -> None:
    pseudo = pseudo_subtomogram(simulated(4))
    image = whiten_pseudo_relion(pseudo, learned_noise, 11.0)
    shells = np.rint(np.linalg.norm(image.frequencies, axis=1)).astype(int)
    data, ctf2, multiplicity = components(pseudo, image)
    used = multiplicity >= 0.01
    used[0] = False
    assert 0.5 <= used.mean() <= 0.95  # a missing wedge
    assert not image.image[~used].any()
    assert not image.power[~used].any()

    def direct(rotation: F64, shift: F64) -> float:
        off = np.abs(data - ctf2 * model_at(image, rotation, shift)) ** 2
        return -float((off[used] / (multiplicity * learned_noise[shells])[used]).sum())

    rotations, shifts = turned(np.array([[0.0, 0.0, 0.0], [0.1, -0.2, 0.1]])), np.stack([SHIFT, SHIFT + 5.0])
    found = on_pseudo(image)(rotations, shifts)
    expected = np.array([[direct(r, s) for s in shifts] for r in rotations])
    difference = found - found[0, 0] - (expected - expected[0, 0])
    assert np.abs(difference).max() <= 1e-5 * np.ptp(expected)


def test_tiles_of_rotations_and_none_at_all() -> None:
    image = exact(simulated(5))
    rotations = Rotation.random(2000, rng=5).as_matrix()  # slices of 58 MB, more than a tile
    shifts = np.array([[1.0, 2.0, 3.0]])
    cross, quadratic = terms(BACKEND, SCORER.volume, 2.0, image, rotations, shifts, PIXEL, 1)
    some = [0, 1700, 1999]
    few = terms(BACKEND, SCORER.volume, 2.0, image, rotations[some], shifts, PIXEL, 1)
    np.testing.assert_allclose(cross[some], few[0], rtol=1e-5)
    np.testing.assert_allclose(quadratic[some], few[1], rtol=1e-5)
    cross, quadratic = terms(BACKEND, SCORER.volume, 2.0, image, rotations[:0], shifts, PIXEL, 1)
    assert cross.shape == (0, 1)
    assert quadratic.shape == (0,)
    cross, quadratic = terms(BACKEND, SCORER.volume, 2.0, image, rotations[some], shifts[:0], PIXEL, 1)
    assert cross.shape == (3, 0)
    np.testing.assert_allclose(quadratic, few[1], rtol=1e-5)


def test_nan_is_not_lost(learned_noise: F64) -> None:
    data = simulated(6)
    data[3, 40] = np.nan
    assert np.isnan(on_pseudo(exact(data))(TRUTH[None], SHIFT[None])).all()
    pseudo = pseudo_subtomogram(simulated(6))
    assert pseudo.multiplicity is not None
    assert np.isfinite(on_pseudo(whiten_pseudo_relion(pseudo, learned_noise))(TRUTH[None], SHIFT[None])).all()
    for name in ("data", "ctf2", "multiplicity"):
        array = getattr(pseudo, name).copy()
        array[2, 3, 4] = np.nan
        image = whiten_pseudo_relion(replace(pseudo, **{name: array}), learned_noise)
        assert np.isnan(on_pseudo(image)(TRUTH[None], SHIFT[None])).all(), name
    image = whiten_pseudo_relion(pseudo, np.where(np.arange(DISC.n_shells) == 5, np.nan, learned_noise))
    assert np.isnan(on_pseudo(image)(TRUTH[None], SHIFT[None])).all()
    image = exact(simulated(6))
    assert np.isnan(on_pseudo(image)(TRUTH[None], np.array([[np.nan, 0.0, 0.0]]))).all()
    with pytest.raises(DataError, match="rotations: NaN"):
        on_pseudo(image)(np.full((1, 3, 3), np.nan), SHIFT[None])


def test_what_cannot_be_summed_is_refused() -> None:
    image = whitened(simulated(0))
    none = replace(
        image,
        tilts=EVERY[:0],
        **{name: getattr(image, name)[:0] for name in ("score_image", "score_power", "map_image", "map_power")},
    )
    with pytest.raises(DataError, match="no images"):
        whiten_pseudo_exact(BACKEND, none, SERIES, FRAME, DISC)
    small = FourierDisc.create(BOX, 8.0)
    for wrong, disc in (
        (image, small),
        (replace(image, score_image=image.score_image[:-1]), DISC),
        (replace(image, score_power=image.score_power[:-TILTS]), DISC),
    ):
        with pytest.raises(ShapeError, match="do not fit"):
            whiten_pseudo_exact(BACKEND, wrong, SERIES, FRAME, disc)
    for radius in (0.0, np.nan, BOX / 2 + 0.1):
        with pytest.raises(ShapeError, match="Fourier ball"):
            whiten_pseudo_exact(BACKEND, image, SERIES, FRAME, DISC, radius)
    with pytest.raises(ShapeError, match="frame"):
        whiten_pseudo_exact(BACKEND, image, SERIES, FRAME[:2], DISC)
    with pytest.raises(DataError, match="frame"):
        whiten_pseudo_exact(BACKEND, image, SERIES, FRAME * np.nan, DISC)


def test_pseudo_subtomograms_that_do_not_fit_are_refused(learned_noise: F64) -> None:
    pseudo = pseudo_subtomogram(simulated(0))
    with pytest.raises(DataError, match="no multiplicity"):
        whiten_pseudo_relion(replace(pseudo, multiplicity=None), learned_noise)
    for wrong in (
        replace(pseudo, data=pseudo.data[:-1]),
        replace(pseudo, data=np.zeros((0, 0, 0), np.float32)),
        replace(pseudo, ctf2=pseudo.ctf2[..., :-1]),
        replace(pseudo, multiplicity=pseudo.ctf2[:-1]),
    ):
        with pytest.raises(ShapeError, match="do not fit"):
            whiten_pseudo_relion(wrong, learned_noise)
    with pytest.raises(ShapeError, match="do not fit"):
        whiten_pseudo_relion(pseudo, learned_noise[:-1])
    with pytest.raises(DataError, match="not positive"):
        whiten_pseudo_relion(pseudo, np.where(np.arange(DISC.n_shells) == 4, 0.0, learned_noise))
    # DC is not used
    whiten_pseudo_relion(pseudo, np.where(np.arange(DISC.n_shells) == 0, 0.0, learned_noise))


def test_poses_of_the_wrong_shape_are_refused() -> None:
    image = exact(simulated(0))
    for rotations in (TRUTH, TRUTH[None, :2], TRUTH[None, None]):
        with pytest.raises(ShapeError, match="rotation"):
            terms(BACKEND, SCORER.volume, 2.0, image, rotations, SHIFT[None], PIXEL)
    for shifts in (SHIFT, SHIFT[None, :2]):
        with pytest.raises(ShapeError, match="shifts"):
            terms(BACKEND, SCORER.volume, 2.0, image, TRUTH[None], shifts, PIXEL)
    assert shift_phases(image, SHIFT[None], PIXEL).shape == (1, len(image.image))
