"""Images kept in memory: the same numbers as cut anew, and close to those cut at the position itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.compare import assert_close, relative_l2
from helpers.particles import particles_at, tilt_series
from tiltwise.errors import DataError
from tiltwise.extract.cache import ANCHOR_STEP_PX, LARGEST, PackedImages, PackedSpectra, ParticleCache, spread
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource
from tiltwise.model import OpticsGroup, OptimisationSet
from tiltwise.spectral.disc import FourierDisc

TILTS, PIXEL, SIZE = 5, 3.0, 200
STEP = ANCHOR_STEP_PX * PIXEL
DISC = FourierDisc.create(24)
ARRAYS = ("tilts", "data", "masked", "ctf2", "power")


class CountingSource(ParticleSource):
    """Remembers which particles were cut."""

    cuts: list[int]

    def cut(self, particle: int, displacement_angstrom: NDArray[np.float64]) -> ParticleImages:
        self.cuts.append(particle)
        return super().cut(particle, displacement_angstrom)


def source_of(folder: Path, coordinates: Any, *, diameter: float | None = 36.0) -> CountingSource:
    """Particles of one series, whose images all show two dark balls in noise, the larger one in their middle."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    ball = np.exp(-(x**2 + y**2) / 18.0) + 0.5 * np.exp(-((x - 5) ** 2 + (y + 3) ** 2) / 8.0)
    images = (rng.normal(0.0, 0.1, (TILTS, SIZE, SIZE)) - ball).astype(np.float32)
    path = folder / "TS.mrcs"
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(images)
    defocus = np.linspace(12000.0, 14000.0, TILTS)
    series = replace(
        tilt_series(TILTS, PIXEL),
        image_files=(str(path),) * TILTS,
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus - 300.0,
    )
    coordinates = np.asarray(coordinates, float)
    particles = particles_at(coordinates)
    optics = OpticsGroup(1, "og", 300.0, 2.7, 0.1, PIXEL)
    optset = OptimisationSet((series,), particles, (optics,), {}, True, None, {})
    source = CountingSource(optset, box_px=32, crop_px=24, binning=1.0, diameter_angstrom=diameter)
    source.cuts = []
    return source


MIDDLE = np.array([100.0, 100.0, 50.0])


@pytest.fixture
def source(tmp_path: Path) -> CountingSource:
    return source_of(tmp_path, np.add(MIDDLE, [[0.0, 0.0, 0.0], [3.0, -2.0, 1.0], [10.0, 4.0, 0.0]]))


def assert_same_bytes(found: ParticleImages, expected: ParticleImages) -> None:
    for name in ARRAYS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), name


def random_spectra(seed: int = 0) -> NDArray[np.complex64]:
    """Shells of very different power, one of them empty."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, len(DISC), 2)) * 10.0 ** rng.uniform(-25, 25, (3, DISC.n_shells))[:, DISC.shells, None]
    values[:, DISC.shells == 4] = 0.0
    return np.ascontiguousarray(values, np.float32).view(np.complex64)[..., 0]


def test_rounding_is_that_of_sixteen_bits() -> None:
    spectra = random_spectra()
    packed = PackedSpectra.of(spectra, DISC)
    unit = spread(packed.unit, DISC, len(DISC))
    found = packed.unpack(unit.astype(np.complex64))
    parts, expected = (a.view(np.float32).reshape(*a.shape, 2).astype(np.float64) for a in (found, spectra))
    error = np.abs(parts - expected)
    # half a unit, and single precision of numbers up to LARGEST units
    assert (error <= unit[..., None] * (0.5 + LARGEST * 2.0**-22)).all()
    assert np.abs(packed.values).max() == LARGEST
    assert not found[:, DISC.shells == 4].any()
    loud = DISC.shells > 6
    assert relative_l2(found[0, loud], spectra[0, loud]) <= 1e-4


def test_prefixes_are_the_beginning_of_the_whole() -> None:
    packed = PackedSpectra.of(random_spectra(), DISC)
    unit = spread(packed.unit, DISC, len(DISC)).astype(np.complex64)
    for count in (0, 1, 2, 77, len(DISC)):
        np.testing.assert_array_equal(spread(packed.unit, DISC, count), unit[:, :count])
        np.testing.assert_array_equal(packed.unpack(unit[:, :count]), packed.unpack(unit)[:, :count])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_stay_so(bad: float) -> None:
    """The E-step refuses them."""
    spectra = random_spectra()
    spectra[1, 30] = bad
    packed = PackedSpectra.of(spectra, DISC)
    found = packed.unpack(spread(packed.unit, DISC, len(DISC)).astype(np.complex64))
    assert np.isnan(found[1, 30])
    assert np.isfinite(found[[0, 2]]).all()


def test_bytes_do_not_depend_on_how_many_particles_are_kept(source: CountingSource) -> None:
    sizes = ParticleCache.sizes(source)
    caches = [ParticleCache(source, int(limit)) for limit in (0, sizes[0], sizes.sum() - 1, sizes.sum())]
    moves = np.random.default_rng(2).normal(size=(4, 3, 3)) * 2.0
    for move in moves:
        for particle in (2, 0, 1):
            first = caches[0].load(particle, move[particle])
            for cache in caches[1:]:
                assert_same_bytes(cache.load(particle, move[particle]), first)
                # nothing of a load is changed by another
                assert_same_bytes(cache.load(particle, move[particle]), first)
    assert [cache.n_kept for cache in caches] == [0, 1, 2, 3]


def test_images_are_cut_again_when_the_particle_leaves_its_anchor(source: CountingSource) -> None:
    cache = ParticleCache(source, int(ParticleCache.sizes(source)[1]))
    near, far = np.full(3, 0.49 * STEP), np.array([0.0, 0.0, 0.51 * STEP])
    for displacement in (np.zeros(3), near, -near):
        cache.load(1, displacement)
    assert source.cuts == [1]
    cache.load(1, far)
    cache.load(1, far)
    assert source.cuts == [1, 1]
    cache.load(2, near)
    cache.load(2, near)
    assert source.cuts == [1, 1, 2, 2], "no memory for a second particle"


def test_images_are_those_cut_at_the_position(source: CountingSource) -> None:
    cache = ParticleCache(source, 1 << 20)
    for displacement in (np.zeros(3), np.array([STEP, -2.0 * STEP, 0.0])):
        found, expected = cache.load(0, displacement), source.load(0, displacement)
        np.testing.assert_array_equal(found.tilts, expected.tilts)
        np.testing.assert_array_equal(found.power, expected.power)
        np.testing.assert_array_equal(found.ctf2, expected.ctf2)
        assert_close(found.data, expected.data, 5e-5)
        assert_close(found.masked, expected.masked, 5e-5)
    # As far from its anchor as it gets, the circle and the mask cut a little elsewhere: 0.04 and 0.05 measured of
    # these small boxes that are noise for the most part, and 0.27 without the ramp.
    displacement = np.array([0.49, -0.49, 0.49]) * STEP
    found, expected, still = cache.load(0, displacement), source.load(0, displacement), source.load(0, np.zeros(3))
    low = DISC.count(6)
    for name, tolerance in (("data", 0.06), ("masked", 0.08)):
        a, b, c = (getattr(images, name)[:, :low] for images in (found, expected, still))
        assert relative_l2(a, b) <= tolerance, name
        assert relative_l2(c, b) >= 0.2, name
    assert_close(found.ctf2, expected.ctf2, 3e-3)


def test_low_resolution_is_the_beginning_of_the_whole(source: CountingSource) -> None:
    cache = ParticleCache(source, 1 << 20)
    displacement = np.array([1.0, 0.3, -0.7])
    whole, low = cache.load(0, displacement), cache.load(0, displacement, 50)
    for name in ("data", "masked", "ctf2"):
        assert getattr(low, name).shape == (TILTS, 50)
        np.testing.assert_array_equal(getattr(low, name), getattr(whole, name)[:, :50])
    np.testing.assert_array_equal(low.power, whole.power)


def test_without_a_diameter_one_copy_is_kept(tmp_path: Path) -> None:
    bare, masked = source_of(tmp_path, [MIDDLE], diameter=None), source_of(tmp_path, [MIDDLE])
    cache = ParticleCache(bare, 1 << 20)
    images = cache.load(0, np.zeros(3))
    assert images.masked is images.data
    assert cache.sizes(bare)[0] < 0.6 * cache.sizes(masked)[0]


def bytes_of(packed: PackedImages) -> int:
    spectra = [s for s in (packed.data, packed.masked) if s is not None]
    return packed.power.nbytes + sum(s.values.nbytes + s.unit.nbytes for s in spectra)


def test_sizes_are_what_is_held(source: CountingSource) -> None:
    cache = ParticleCache(source, 1 << 20)
    for particle in range(3):
        cache.load(particle, np.zeros(3))
    held = [bytes_of(cache._kept[particle]) for particle in range(3)]
    np.testing.assert_array_equal(held, cache.sizes(source))


def test_particle_whose_anchor_lies_outside_is_cut_where_it_is(tmp_path: Path) -> None:
    probe = source_of(tmp_path, [MIDDLE])
    ways = np.arange(0.0, 150.0, 0.1)
    seen = [probe.visible(np.array([[0.0, -way, 0.0]]) * PIXEL)[0] for way in ways]
    last = ways[seen.index(False) - 1]
    source = source_of(tmp_path, [MIDDLE - [0.0, last + 0.45 * ANCHOR_STEP_PX, 0.0]])
    displacement = np.array([0.0, 0.45 * STEP, 0.0])
    assert not source.visible(np.zeros((1, 3)))[0]
    cache = ParticleCache(source, 1 << 20)
    images, expected = cache.load(0, displacement), source.load(0, displacement)
    np.testing.assert_array_equal(images.tilts, expected.tilts)
    assert len(images.tilts)
    assert_close(images.data, expected.data, 5e-5)
    with pytest.raises(DataError, match="outside every tilt"):
        cache.load(0, np.array([0.0, -40.0, 0.0]) * PIXEL)
