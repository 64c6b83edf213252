"""Bad and unusual particles and noise in the E-step: an error with a message, or the right answer; never NaN sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.particles import SimulatedParticles
from helpers.search import (
    F64,
    GLOBAL,
    PIXEL,
    Mode,
    N,
    Search,
    assert_is_the_prior,
    assert_near_truth,
    assert_same,
    assert_sound,
    assert_sums_finite,
    every_mode,
    instead,
    no_contrast,
    of_some_tilts,
    particles,
    without,
)
from tiltwise.em.expectation import Expectation
from tiltwise.em.octree import GlobalSearch, mass_missed
from tiltwise.em.settings import Settings
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.maps.whitening import WhitenedImages, whiten


@pytest.fixture(scope="module")
def data() -> SimulatedParticles:
    return particles()


# ---- groups and particles -------------------------------------------------------------------------------


@every_mode
def test_plain_particles_are_found(data: SimulatedParticles, mode: Mode) -> None:
    """What all other tests start from."""
    search = Search(data, mode).run()
    assert_sound(search)
    assert_near_truth(search)
    assert all(e.sharp for e in search.found) == mode.climb


@every_mode
def test_a_group_without_members_adds_nothing(data: SimulatedParticles, mode: Mode) -> None:
    search = Search(data, mode, raw=[]).run()
    assert_sound(search)
    assert not search.accumulator.weight.any()
    assert not search.noise.power.any()


@every_mode
@pytest.mark.parametrize("index", range(N))
def test_one_particle_is_found_as_in_company(data: SimulatedParticles, mode: Mode, index: int) -> None:
    alone = replace(data, rotations=data.rotations[[index]], shifts=data.shifts[[index]], raw=[data.raw[index]])
    company = Search(data, mode).run()
    search = Search(alone, mode, last=company.centres[[index]]).run()
    assert_sound(search)
    assert_same(search, company, [0], [index])


@every_mode
def test_one_tilt_is_enough(mode: Mode) -> None:
    """All three angles show in one projection, the shift along the beam does not: that is left to the prior."""
    data = particles(tilts=1)
    search = Search(data, mode).run()
    assert_sound(search)
    beam = data.series.projection[0, 2, :3]
    for estimate, shift in zip(search.found, data.shifts, strict=True):
        off = estimate.shift_angstrom - shift
        assert np.linalg.norm(off - (off @ beam) * beam) <= 4.0
        assert abs(estimate.shift_angstrom @ beam) <= search.grid.fine_shift_step_angstrom
        if estimate.sharp:
            assert estimate.std_angstrom >= 0.9 * 10.0 / np.sqrt(3.0)
    if mode.local:
        assert search.errors()[0].max() <= 10.0


@every_mode
@pytest.mark.parametrize("index", [0, 1])
def test_a_particle_without_visible_tilts(data: SimulatedParticles, mode: Mode, index: int) -> None:
    search = Search(data, mode, raw=instead(data.raw, index, of_some_tilts(data.raw[index], [])))
    if not search.refused():
        assert_sound(search)
        rest = without(range(N), index)
        assert_same(search, Search(data, mode).run(), rest)
        assert_is_the_prior(search, [index])


@every_mode
@pytest.mark.parametrize("index", [0, 1])
def test_a_particle_without_contrast_keeps_its_prior(data: SimulatedParticles, mode: Mode, index: int) -> None:
    search = Search(data, mode, raw=instead(data.raw, index, no_contrast(data.raw[index])), order=1).run()
    assert_sound(search)
    assert_is_the_prior(search, [index])
    company = Search(data, mode, order=1).run()
    rest = without(range(N), index)
    assert_same(search, company, rest)


@pytest.mark.parametrize("mode", GLOBAL, ids=str)
def test_a_flat_posterior_on_the_coarsest_grid(data: SimulatedParticles, mode: Mode) -> None:
    """72 rotations are few enough to pass for peaks; there is nothing to climb."""
    search = Search(data, mode, raw=instead(data.raw, 1, no_contrast(data.raw[1])), order=0).run()
    assert_sound(search)
    assert_is_the_prior(search, [1])


def test_a_narrow_prior_is_climbed_and_comes_back(data: SimulatedParticles) -> None:
    """Without data the Gaussian of a climb is the prior itself."""
    search = Search(data, Mode(True, True), raw=[no_contrast(image) for image in data.raw], sigma_deg=2.0)
    search.settings["offset_sigma_angstrom"] = 3.0
    assert_sound(search.run())
    for estimate, centre in zip(search.found, search.centres, strict=True):
        assert estimate.sharp
        assert angular_distance_deg(estimate.rotation, centre) <= 0.01
        assert abs(estimate.std_deg / 2.0 - 1.0) <= 0.01
        assert abs(estimate.std_angstrom / 3.0 - 1.0) <= 0.01
        assert abs(estimate.square_offset / 27.0 - 1.0) <= 0.01
        integral = 3.0 * np.log(2.0 * np.pi * np.radians(2.0) * 3.0)
        assert abs(estimate.log_evidence - integral) <= 0.01


# ---- noise power ----------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("factor", [1e20, 1e40, 1e300])
def test_huge_noise_leaves_the_prior(data: SimulatedParticles, mode: Mode, factor: float) -> None:
    """Also where the inverse is no number of single precision any more."""
    search = Search(data, mode, noise_power=data.noise_power * factor, order=1).run()
    assert_sound(search)
    assert_is_the_prior(search, range(N))


@every_mode
def test_tiny_noise_is_no_crash(data: SimulatedParticles, mode: Mode) -> None:
    """Scores of 10^22 nats: 40 nats below the best is the same number."""
    search = Search(data, mode, noise_power=data.noise_power * 1e-20)
    if not search.refused():
        assert_sound(search)


@every_mode
@pytest.mark.parametrize(
    "value", [0.0, np.nan, -1.0, np.inf, 1e-40], ids=["zero", "nan", "negative", "infinite", "tiny"]
)
@pytest.mark.parametrize("where", ["everywhere", "last-shell"])
def test_noise_power_must_be_positive(data: SimulatedParticles, mode: Mode, value: float, where: str) -> None:
    """A single bad shell of one tilt would be enough to lose the map."""
    noise = data.noise_power.copy()
    noise[np.index_exp[2, -1] if where == "last-shell" else ...] = value
    assert Search(data, mode, noise_power=noise).refused()


# ---- images ---------------------------------------------------------------------------------------------

NAN = np.complex64(complex(np.nan, np.nan))


def spoiled(image: ParticleImages, kind: str) -> ParticleImages:
    data, masked, ctf2 = image.data.copy(), image.masked.copy(), image.ctf2.copy()
    match kind:
        case "one-pixel":
            data[2, 7] = masked[2, 7] = NAN
        case "everything":
            data[:] = masked[:] = NAN
        case "infinite":
            data[2, 7] = masked[2, 7] = np.inf
        case "ctf":
            ctf2[2, 7] = np.nan
        case "beyond-scores":
            data[2, -1] = masked[2, -1] = NAN
        case "unmasked":
            data[2, 7] = NAN
        case "power":
            return replace(image, power=np.full_like(image.power, np.nan))
    return replace(image, data=data, masked=masked, ctf2=ctf2)


@every_mode
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("kind", ["one-pixel", "everything", "infinite", "ctf", "beyond-scores", "unmasked", "power"])
def test_nan_in_one_particle_stays_there(data: SimulatedParticles, mode: Mode, index: int, kind: str) -> None:
    """Either an error, or the particle is left out of the sums and the others do not notice."""
    search = Search(data, mode, raw=instead(data.raw, index, spoiled(data.raw[index], kind)))
    search.settings |= {"fine_radius": 6.0, "coarse_radius": 5.0}
    company = Search(data, mode, settings=dict(search.settings)).run()
    if not search.refused():
        assert_sums_finite(search)
        assert_same(search, company, without(range(N), index))
        assert np.isfinite(search.found[index].rotation).all()
        assert np.isfinite(search.found[index].shift_angstrom).all()


@pytest.mark.parametrize("first", ["no-contrast", "one-tilt", "half-of-the-tilts"])
def test_a_weak_particle_does_not_prune_the_search_of_others(first: str) -> None:
    """How far below the best a cell may lie goes with the signal of a particle, not of the first of its batch."""
    data = particles(n=40, box=24, tilts=9, nats=400.0, radius=12.0, reach_angstrom=10.0, threads=2)
    search = Search(data, Mode(False, True), shift_range=16.0, shift_step=8.0)
    settings = Settings(search.grid, 9.0, 12.0, 12.0, PIXEL, 10.0)
    levels = Expectation(data.scorer, data.disc, settings)._levels
    engine = GlobalSearch(data.scorer, data.series, data.disc, PIXEL, levels)

    def prior(i: int, shifts: F64) -> NDArray[np.float32]:
        return settings.shift_prior(np.zeros(3), shifts)

    raw = data.raw[0]
    weak = {
        "no-contrast": no_contrast(raw),
        "one-tilt": of_some_tilts(raw, [4]),
        "half-of-the-tilts": of_some_tilts(raw, [2, 3, 4, 5, 6]),
    }[first]
    images: list[WhitenedImages] = [whiten(weak, data.disc, data.noise_power, len(data.disc)), *data.whitened[1:]]
    full = engine.run(images, prior, prune=False)
    kept = engine.run(images, prior)
    missed = [mass_missed(f, k, lambda shifts: prior(0, shifts), levels[-1]) for f, k in zip(full, kept, strict=True)]
    assert np.max(missed) <= 1e-3, f"{np.sum(np.array(missed) > 1e-3)} particles lose up to {np.max(missed):.2f}"
