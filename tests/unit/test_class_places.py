"""Where particles differ: first guess by windows, share of signal by place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.classes.guess import Particles
from tiltwise.classes.locality import independent, signal_places
from tiltwise.classes.particle_maps import BYTES, FEWEST, MOST, plan, to_one_average, white_maps
from tiltwise.classes.windows import Level, cross_fitted, cut, edge, places, strongest
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.spectral.fft import centred_fft3, centred_ifft3
from tiltwise.spectral.masks import soft_sphere
from tiltwise.spectral.shells import shell_indices

F64 = NDArray[np.float64]

SIZE, PARTICLES = 17, 240
FOLDS = np.arange(PARTICLES) % 6
CENTRE = np.array([3.0, -2.0, 4.0])  # x, y, z
KIND = np.where(np.arange(PARTICLES) < PARTICLES // 2, -1.0, 1.0)[np.random.default_rng(5).permutation(PARTICLES)]


def grid() -> F64:
    """(S, S, S, 3) x, y, z of voxels."""
    axis = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z], axis=-1).astype(np.float64)


def blob(centre: F64, width: float = 1.2) -> F64:
    """Of unit norm."""
    found = np.exp(-((grid() - centre) ** 2).sum(axis=-1) / (2.0 * width**2))
    return np.asarray(found / np.linalg.norm(found))


def levels(signal: F64, seed: int = 1, symmetry: str = "C1") -> list[Level]:
    """Particles of white noise, and `signal` (n, S, S, S), at two finenesses."""
    rng = np.random.default_rng(seed)
    maps = (rng.standard_normal((PARTICLES, SIZE, SIZE, SIZE)) + signal).astype(np.float32)
    group = symmetry_matrices(symmetry)
    inside = np.linalg.norm(grid(), axis=-1) <= 7.5
    axis = np.arange(11) - 5
    ball = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= 25
    coarse = white_maps(centred_fft3(maps).astype(np.complex64), 5, ball.astype(np.float32))
    return [Level.of(maps, inside, 10.0, group), Level.of(coarse, ball, 17 / 11 * 10.0, group)]


def apart(kind: F64, scores: F64) -> float:
    """Distance of two classes in units of their spread."""
    first, second = scores[kind < 0], scores[kind > 0]
    return float(abs(first.mean() - second.mean()) / np.sqrt(0.5 * (first.var() + second.var())))


def test_a_difference_below_the_limit_of_the_whole_is_found_in_a_ball() -> None:
    """Variance 2.2 along the direction; in all 1,791 voxels it would have to exceed sqrt(1791 / 240) = 2.7."""
    strength = 1.5
    found = levels(strength * KIND[:, None, None, None] * blob(CENTRE))
    rows = found[0].rows
    assert strength**2 < np.sqrt(rows.shape[1] / len(rows))
    assert apart(KIND, cross_fitted(rows, FOLDS)) < 1.0
    (place,) = places(found, FOLDS, 1)
    assert np.linalg.norm(np.array(place.centre_angstrom) / 10.0 - CENTRE) <= 2.5
    assert place.significance >= 10.0
    assert apart(KIND, place.scores) >= 2.2  # 3.0 along the true direction


def test_nothing_is_found_in_noise() -> None:
    for seed in (1, 2):
        assert places(levels(np.zeros((PARTICLES, 1, 1, 1)), seed), FOLDS, 1) == []


@pytest.mark.parametrize("folds", [4, 6])
def test_folds_are_no_classes(folds: int) -> None:
    """Noise less the mean of the particles of other folds: that of a fold is more than noise, and the same for all."""
    number = np.arange(PARTICLES) % folds
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((PARTICLES, SIZE, SIZE, SIZE)).astype(np.float32)
    left = np.stack([one - noise[number != fold].mean(axis=0) for one, fold in zip(noise, number, strict=True)])
    share = np.bincount(number) / PARTICLES
    ball = np.linalg.norm(grid(), axis=-1) <= 7.5

    def level(maps: NDArray[np.float32]) -> Level:
        return Level.of(maps, ball, 10.0, symmetry_matrices("C1"))

    if folds == 4:
        assert places([level(left)], number, folds - 1)
    to_one_average(left, number, share)
    np.testing.assert_allclose(left, noise - noise.mean(axis=0), atol=1e-5)
    assert places([level(left)], number, folds - 1) == []


def test_the_noisiest_particle_is_no_class() -> None:
    """Noise of particles that differ as those of thin and thick ice do; more voxels than particles."""
    few = 60
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((few, SIZE, SIZE, SIZE)) * np.exp(0.3 * rng.standard_normal((few, 1, 1, 1)))
    ball = np.linalg.norm(grid(), axis=-1) <= 7.5
    level = Level.of(noise.astype(np.float32), ball, 10.0, symmetry_matrices("C1"))
    for count in (1, 3):
        assert places([level], np.arange(few) % 6, count) == []


def test_a_later_start_passes_over_the_strongest_difference() -> None:
    other = np.array([-4.0, 3.0, -1.0])
    second = np.roll(KIND, 60)
    signal = 2.5 * KIND[:, None, None, None] * blob(CENTRE) + 2.0 * second[:, None, None, None] * blob(other)
    # every second of all is looked at
    particles = Particles(2 * PARTICLES, np.arange(0, 2 * PARTICLES, 2), FOLDS, levels(signal), 1)
    weights, (place,) = particles.first_guess(2, 1, np.random.default_rng(1))
    assert np.linalg.norm(np.array(place.centre_angstrom) / 10.0 - other) <= 2.5
    assert apart(second, place.scores) >= 2.5
    assert not weights[1::2].any()
    agree = float(np.mean((weights[::2].argmax(axis=1) > 0) == (second > 0)))
    assert max(agree, 1.0 - agree) >= 0.9
    none, found = particles.first_guess(2, 2, np.random.default_rng(1))
    assert found == []
    assert (none == 0.5).all()


def test_what_fills_the_whole_is_found_though_no_ball_stands_out() -> None:
    """Three kinds that differ everywhere: the two directions are equally strong, all balls show them."""
    rng = np.random.default_rng(4)
    kinds = rng.standard_normal((3, SIZE, SIZE, SIZE))
    (place, _) = places(levels(0.7 * kinds[rng.permutation(PARTICLES) % 3]), FOLDS, 2)
    assert np.isinf(place.radius_angstrom)


def test_mates_of_a_place_do_not_count_twice() -> None:
    level = levels(np.zeros((PARTICLES, 1, 1, 1)), symmetry="C2")[0]
    near = np.flatnonzero(np.linalg.norm(level.points - np.array([1.0, 0.0, 0.0]), axis=1) <= 2.05)
    kept = level.nearest(np.array([1.0, 0.0, 0.0]), near)
    assert (level.points[kept][:, 0] >= 0).all()
    assert len(near) == 33 > len(kept)


@pytest.mark.parametrize("dimensions", [1, 33, 600])
def test_largest_eigenvalues_of_noise_are_those_of_tracy_and_widom(dimensions: int) -> None:
    """Mean -1.2, standard deviation 1.3 of the limit law."""
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((12, 200, dimensions)).astype(np.float32)
    found = [edge(float(strongest(one)[0][0]), *one.shape) for one in rows]
    assert abs(np.mean(found) + 1.2) <= 1.5


def test_largest_directions_agree_with_singular_values() -> None:
    rng = np.random.default_rng(7)
    for shape in ((30, 250), (250, 30), (300, 400)):
        rows = rng.standard_normal(shape).astype(np.float32)
        _, values, vectors = np.linalg.svd(rows, full_matrices=False)
        found, direction = strongest(rows, 2)
        np.testing.assert_allclose(found, values[:2] ** 2 / shape[0], rtol=1e-4)
        assert abs(direction @ vectors[0]) >= 0.999


def test_one_particle_is_no_direction() -> None:
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((100, 30)).astype(np.float32)
    rows[17] *= 20.0
    _, free = strongest(rows)
    _, held = strongest(cut(rows))
    outlier = rows[17] / np.linalg.norm(rows[17])
    assert abs(free @ outlier) > 0.95 > abs(held @ outlier)


def test_white_maps_have_equal_power_in_every_shell_and_unit_variance_in_the_particle() -> None:
    """Noise that is coloured, and only in a ball: images are masked."""
    rng = np.random.default_rng(9)
    ball = (np.linalg.norm(grid(), axis=-1) <= 6.5).astype(np.float32)
    colour = 1.0 + 3.0 * shell_indices(SIZE, 3)
    coloured = centred_fft3(
        ball * centred_ifft3(centred_fft3(rng.standard_normal((60, SIZE, SIZE, SIZE))) * colour, SIZE)
    )
    for reach, radius in ((8, 6.5), (5, 6.5 * 11 / 17)):
        size = 2 * reach + 1
        axis = np.arange(size) - reach
        square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
        maps = white_maps(coloured.astype(np.complex64), reach, (square <= radius**2).astype(np.float32))
        assert maps.shape == (60, size, size, size)
        power = np.abs(centred_fft3(maps)) ** 2
        shells = shell_indices(size, 3)
        means = [power[:, shells == shell].mean() for shell in (1, 3, reach)]
        np.testing.assert_allclose(means, means[0], rtol=1e-4)
        assert maps[:, square <= (radius - 1.5) ** 2].var() == pytest.approx(1.0, abs=0.1)


def test_white_maps_are_where_particles_are() -> None:
    """A point stays at its place at any fineness."""
    maps = np.random.default_rng(3).standard_normal((50, SIZE, SIZE, SIZE))
    maps[::2, 8 + 3, 8 - 2, 8] += 20.0
    coarse = white_maps(centred_fft3(maps).astype(np.complex64), 5, np.ones((11, 11, 11), np.float32))
    z, y, x = np.unravel_index(coarse.var(axis=0).argmax(), coarse.shape[1:])
    np.testing.assert_allclose((np.array([z, y, x]) - 5) * 17 / 11, [3, -2, 0], atol=0.8)


def test_memory_of_the_first_guess_is_bounded() -> None:
    rng = np.random.default_rng(1)
    for count, length in ((100, 240.0), (20_000, 240.0), (20_000, 1500.0)):
        found = plan(np.arange(count), length, 500, rng)
        assert 4 * len(found.members) * found.size**3 <= BYTES
        assert min(count, FEWEST) <= len(found.members) <= min(count, MOST)
        assert (np.diff(found.members) > 0).all()
    assert plan(np.arange(100), 240.0, 500, rng).reach == 12
    # the corners of the cube are not beyond the last shell that is compared
    assert plan(np.arange(100), 240.0, 12, rng).reach == 6


def halves(signal: F64, seed: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [np.asarray(signal + rng.standard_normal(signal.shape), np.float32) for _ in range(2)]


def test_a_compact_difference_is_where_halves_agree() -> None:
    size, pixel = 32, 5.0
    axis = np.arange(size) - size // 2
    centre = np.array([4, -3, 5])
    square = sum((axis.reshape([-1 if i == j else 1 for j in range(3)]) - centre[i]) ** 2 for i in range(3))
    domain = np.exp(-np.asarray(square, np.float64) / 8.0)
    mask = soft_sphere(size, 13.0, 3.0).astype(np.float32)
    gain = np.exp(-((np.arange(size // 2 + 1) / 6.0) ** 2))
    first, second = halves(1.5 * domain, 3)
    factor = signal_places(first, second, gain, mask, pixel)
    assert factor.shape == mask.shape
    assert 0.0 <= factor.min() <= factor.max() <= 1.0
    assert factor[domain > 0.5].min() >= 0.5
    far = (np.asarray(square) > 11**2) & (mask > 0.5)
    assert factor[far].mean() <= 0.15


def test_places_do_not_matter_where_no_place_shows_more() -> None:
    size = 32
    mask = soft_sphere(size, 13.0, 3.0).astype(np.float32)
    first, second = halves(np.zeros((size,) * 3), 4)
    assert (signal_places(first, second, np.ones(17), mask, 5.0) == 1.0).all()


def test_a_difference_everywhere_is_kept_everywhere() -> None:
    size = 32
    mask = soft_sphere(size, 13.0, 3.0).astype(np.float32)
    first, second = halves(2.0 * np.random.default_rng(5).standard_normal((size,) * 3), 6)
    assert signal_places(first, second, np.ones(17), mask, 5.0)[mask > 0.5].mean() >= 0.9


def test_degrees_of_freedom_of_white_noise_are_voxels() -> None:
    ball = np.fft.ifftshift(soft_sphere(24, 5.0, 0.0))
    count = ball.sum()
    white = np.ones(13)
    # corners beyond the last shell are missing
    assert independent(ball / count, white) == pytest.approx(count * np.pi / 6, rel=0.3)
    noise = centred_ifft3(
        centred_fft3(np.random.default_rng(2).standard_normal((2, 40, 24, 24, 24))) * (shell_indices(24, 3) <= 6), 24
    )
    products = (noise[0] * noise[1])[:, np.fft.fftshift(ball) > 0.5].mean(axis=1) / noise.var()
    assert independent(ball / count, np.where(np.arange(13) <= 6, 1.0, 0.0)) == pytest.approx(
        1.0 / products.var(), rel=0.6
    )
