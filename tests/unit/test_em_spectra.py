"""Noise power from residuals, and the spectra that iterations hand on."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.particles import tilt_series
from tiltwise.em.expectation import Expectation
from tiltwise.em.grid import PoseGrid
from tiltwise.em.likelihood import Scorer
from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.noise_power import noise_power
from tiltwise.em.settings import Group, Settings
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.grids import orientation_angles
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.kernels.select import load_backend
from tiltwise.maps.spectra import joined_fsc, resolution_shell, smoothed
from tiltwise.maps.volumes import Accumulator, reference_volume
from tiltwise.maps.whitening import slice_matrices
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import irfft2, rfft2
from tiltwise.spectral.shells import shell_counts, shell_totals

BOX, CROP, PIXEL = 48, 24, 4.0
PARTICLES = 24
SIGMA2 = np.array([0.5, 1.0, 2.0])
"""Noise power of the tilts."""


ANGLES = np.array([-40.0, 0.0, 35.0])


def blobs(rng: np.random.Generator) -> NDArray[np.float32]:
    z, y, x = np.mgrid[:CROP, :CROP, :CROP] - CROP // 2
    density = np.zeros((CROP,) * 3)
    # Both signs: a transform that is steep at its centre has other shell means on grids of other spacing.
    for sign, (px, py, pz) in zip(np.tile([1, -1], 15), rng.uniform(-4.5, 4.5, (30, 3)), strict=True):
        density += sign * np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / 2.0)
    return density.astype(np.float32)


def test_noise_power_is_recovered_with_a_known_model() -> None:
    """Signal in the crop, white noise over a box twice as wide: sigma^2 of every tilt without the signal's power."""
    rng = np.random.default_rng(5)
    backend, disc, tilts = load_backend("reference"), FourierDisc.create(CROP), tilt_series(ANGLES, PIXEL)
    volume = reference_volume(blobs(rng) * np.float32(0.8))
    grid = PoseGrid(3, 0, np.eye(3), 0.5, 0.0, 1.0, np.zeros(3))
    angles = orientation_angles(3)
    rotations = euler_to_matrix(angles[rng.integers(0, len(angles), PARTICLES)])
    every = np.arange(3)

    half = BOX // 2 + 1
    shells = np.minimum(
        np.rint(np.hypot(*np.meshgrid(np.arange(half), np.fft.fftfreq(BOX, 1 / BOX))) / 2), CROP // 2 + 1
    )
    twice = np.full(half, 2.0)
    twice[[0, -1]] = 1.0
    twice = np.broadcast_to(twice, shells.shape)
    counts = np.bincount(shells.astype(int).ravel(), twice.ravel())[: disc.n_shells]
    inner = slice(BOX // 2 - CROP // 2, BOX // 2 + CROP // 2)
    loaded, signal = [], np.zeros((3, disc.n_shells))
    for rotation in rotations:
        matrices = slice_matrices(tilts, every, rotation[None], 2.0)
        slices = np.zeros((3, CROP, CROP // 2 + 1), np.complex128)
        slices[:, disc.rows, disc.columns] = backend.project(volume, matrices, disc.frequencies3d(), CROP)
        # the plane kx = 0 holds both mates
        slices[:, :, 0] += np.where(np.arange(CROP) > CROP // 2, slices[:, -np.arange(CROP) % CROP, 0].conj(), 0)
        images = np.zeros((3, BOX, BOX))
        images[:, inner, inner] = np.fft.fftshift(irfft2(slices, CROP), axes=(1, 2))
        signal += shell_totals(np.abs(slices) ** 2, CROP, 2) / shell_counts(CROP, 2) / PARTICLES
        images += rng.normal(size=images.shape) * np.sqrt(SIGMA2)[:, None, None]
        square = np.abs(rfft2(images)) ** 2 * twice
        power = np.array([np.bincount(shells.astype(int).ravel(), p.ravel())[: disc.n_shells] for p in square]) / counts
        data = disc.take(rfft2(np.fft.ifftshift(images[:, inner, inner], axes=(1, 2)))).astype(np.complex64)
        loaded.append(ParticleImages(every, data, data, np.ones(data.shape, np.float32), power))

    group = Group(
        tilts,
        np.repeat(SIGMA2[:, None], disc.n_shells, axis=1),
        np.arange(PARTICLES),
        rotations,
        np.zeros((PARTICLES, 3)),
        loaded.__getitem__,
    )
    settings = Settings(grid, CROP / 2, CROP / 2, CROP / 2, PIXEL, 10.0)
    sums = NoiseSums.empty(3, disc.n_shells)
    found = Expectation(Scorer(backend, volume, 2.0), disc, settings).run(
        group, Accumulator.empty(CROP), sums, lambda n: None
    )
    assert min(e.max_probability for e in found) > 0.99, "poses must be certain for this test to mean anything"
    sigma2 = noise_power(sums, disc, (CROP / BOX) ** 2, np.full((3, disc.n_shells), np.nan))
    relative = sigma2 / SIGMA2[:, None]
    # A shell averages counts / 2 independent |n|^2 of 24 particles, each with relative variance 1: five sigma is
    # 5 sqrt(2 / 24 counts); sqrt(2) more for what <CV, n> leaves and for shells that grids of other spacing share
    # out differently.
    bound = 5.0 * np.sqrt(2.0) * np.sqrt(2.0 / (PARTICLES * counts))
    inside = slice(1, CROP // 2 - 1)  # beyond, the shell of the disc is only half full
    # What had to be taken out is far larger than the tolerance.
    assert (signal[0, 2:6] * (CROP / BOX) ** 2 / SIGMA2[0] > 3 * bound[2:6]).all()
    excess = np.abs(relative - 1.0)[:, inside] / bound[inside]
    if not excess.max() <= 1.0:
        pytest.fail(f"sigma^2 is off by {excess.max():.2f} times the tolerance: {relative}")


def test_noise_power_of_premultiplied_images() -> None:
    """C X is known, X is not: sigma^2 is the power of C X without the model over the mean C^2."""
    rng = np.random.default_rng(6)
    backend, disc, tilts = load_backend("reference"), FourierDisc.create(CROP), tilt_series(ANGLES, PIXEL)
    volume = reference_volume(blobs(rng) * np.float32(0.8))
    grid = PoseGrid(3, 0, np.eye(3), 0.5, 0.0, 1.0, np.zeros(3))
    angles = orientation_angles(3)
    rotations = euler_to_matrix(angles[rng.integers(0, len(angles), PARTICLES)])
    every, ctf = np.arange(3), np.cos(0.3 * disc.shells + np.arange(3)[:, None])
    loaded, signal = [], np.zeros((3, disc.n_shells))
    for rotation in rotations:
        matrices = slice_matrices(tilts, every, rotation[None], 2.0)
        model = ctf * backend.project(volume, matrices, disc.frequencies3d(), CROP)
        noise = rng.normal(size=(2, *model.shape)) * np.sqrt(SIGMA2 / 2)[:, None]
        data = (ctf * (model + noise[0] + 1j * noise[1])).astype(np.complex64)
        signal += disc.shell_means(np.abs(ctf * model) ** 2)
        power = disc.shell_means(np.abs(data.astype(np.complex128)) ** 2)
        loaded.append(ParticleImages(every, data, data, (ctf**2).astype(np.float32), power, premultiplied=True))
    group = Group(
        tilts,
        np.repeat(SIGMA2[:, None], disc.n_shells, axis=1),
        np.arange(PARTICLES),
        rotations,
        np.zeros((PARTICLES, 3)),
        loaded.__getitem__,
    )
    sums = NoiseSums.empty(3, disc.n_shells)
    settings = Settings(grid, CROP / 2, CROP / 2, CROP / 2, PIXEL, 10.0)
    found = Expectation(Scorer(backend, volume, 2.0), disc, settings).run(
        group, Accumulator.empty(CROP), sums, lambda n: None
    )
    assert min(e.max_probability for e in found) > 0.99, "poses must be certain for this test to mean anything"
    relative = noise_power(sums, disc, 1.0, np.full((3, disc.n_shells), np.nan)) / SIGMA2[:, None]
    # (sum C^4)^1/2 / sum C^2 is the relative standard deviation; DC is not compared and shells are smoothed.
    fourth, second = disc.shell_means(ctf**4), disc.shell_means(ctf**2)
    counts = np.bincount(disc.shells, minlength=disc.n_shells)
    bound = 5.0 * np.sqrt(fourth / (PARTICLES * counts)) / second
    inside = slice(2, CROP // 2 - 1)
    removed = signal / sums.weight / SIGMA2[:, None]
    assert (removed[0, 2:4] > 3 * bound[0, 2:4]).all(), "there is too little signal to remove"
    excess = (np.abs(relative - 1.0) / bound)[:, inside]
    if not excess.max() <= 1.0:
        pytest.fail(f"sigma^2 is off by {excess.max():.2f} times the tolerance: {relative}")


def test_noise_power_without_evidence_stays() -> None:
    disc = FourierDisc.create(CROP)
    sums = NoiseSums.empty(2, disc.n_shells)
    sums.power[0], sums.weight[0] = 3.0, 1.0
    old = np.full((2, disc.n_shells), 7.0)
    found = noise_power(sums, disc, 1.0, old)
    np.testing.assert_allclose(found[0], 3.0, rtol=1e-12)
    np.testing.assert_array_equal(found[1], old[1])


def test_an_overfitted_model_leaves_a_tenth_of_the_power() -> None:
    disc = FourierDisc.create(CROP)
    sums = NoiseSums.empty(1, disc.n_shells)
    sums.power[:], sums.weight[:] = 2.0, 1.0
    sums.explained[:] = 1e6
    np.testing.assert_allclose(noise_power(sums, disc, 1.0, np.ones((1, disc.n_shells))), 0.2, rtol=1e-12)


def test_the_mean_grey_value_does_not_leak_into_the_noise() -> None:
    """Tilt images whose mean is far from zero: shell 0 is enormous, shell 1 must not see it."""
    spectrum = np.full((2, 9), 2.0)
    spectrum[:, 0] = 1e6, 1e-9
    found = smoothed(spectrum)
    np.testing.assert_allclose(found[:, 1:], 2.0, rtol=1e-12)
    np.testing.assert_allclose(found[:, 0], [1e6, 2.0], rtol=1e-12)


def test_resolution_is_the_first_crossing() -> None:
    curve = np.array([1, 1, 1, 1, 1, 1, 0.9, 0.6, 0.4, 0.9, 0.9, 0.0])
    assert resolution_shell(curve) == 7
    assert resolution_shell(np.zeros(12)) == 5
    assert resolution_shell(np.ones(12)) == 11
    assert resolution_shell(np.where(np.arange(12) == 8, np.nan, 1.0)) == 7


def test_joined_fsc_doubles_the_signal_to_noise_ratio() -> None:
    curve = np.array([0.1, 0.5, 0.9])
    joined = joined_fsc(curve)
    np.testing.assert_allclose(joined / (1 - joined), 2 * curve / (1 - curve), rtol=1e-12)
    assert joined_fsc(np.array([-0.3]))[0] == 0.0
