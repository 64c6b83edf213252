"""Unusual boxes, shifts, radii and references in the E-step: an error with a message, or the right answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.particles import SimulatedParticles, blobs, tilt_series
from helpers.search import (
    BOX,
    PIXEL,
    RADIUS,
    TILTS,
    Mode,
    N,
    Search,
    assert_is_the_prior,
    assert_near_truth,
    assert_same,
    assert_sound,
    every_mode,
    particles,
)
from tiltwise.em.likelihood import Scorer
from tiltwise.em.settings import Settings
from tiltwise.errors import ShapeError, TiltwiseError
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import reference_volume
from tiltwise.spectral.disc import FourierDisc


@pytest.fixture(scope="module")
def data() -> SimulatedParticles:
    return particles()


# ---- sizes ----------------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("box", [3, 4, 5, 15, 25])
def test_odd_and_tiny_boxes(mode: Mode, box: int) -> None:
    data = particles(box=box, radius=box / 2)
    search = Search(data, mode).run()
    assert_sound(search)
    if box >= 15:
        assert_near_truth(search)


@every_mode
@pytest.mark.parametrize("order", [0, 1])
def test_a_box_of_two_pixels_holds_no_signal(mode: Mode, order: int) -> None:
    """Its only component is DC, which does not score."""
    rng = np.random.default_rng(1)
    disc = FourierDisc.create(2)
    assert len(disc) == 1
    ones = np.ones((TILTS, disc.n_shells))
    raw = []
    for _ in range(N):
        image = rng.normal(size=(TILTS, 1)).astype(np.complex64)
        raw.append(ParticleImages(np.arange(TILTS), image, image, np.ones((TILTS, 1), np.float32), ones))
    scorer = Scorer(load_backend(), reference_volume(blobs(2, 10, 0.5, 1.2)), 2.0, 1)
    rotations = Rotation.random(N, rng=rng).as_matrix()
    data = SimulatedParticles(
        scorer, tilt_series(TILTS, PIXEL), disc, PIXEL, rotations, np.zeros((N, 3)), raw, [], ones
    )
    search = Search(data, mode, order=order).run()
    assert_sound(search)
    for estimate, centre in zip(search.found, search.centres, strict=True):
        assert np.linalg.norm(estimate.shift_angstrom) <= 2.0
        if mode.local and mode.climb:
            assert angular_distance_deg(estimate.rotation, centre) <= search.sigma_deg


@pytest.mark.parametrize("box", [0, 1, -4])
def test_boxes_without_a_component_are_refused(box: int) -> None:
    with pytest.raises(ShapeError, match="no Fourier disc of this size"):
        FourierDisc.create(box)


@every_mode
@pytest.mark.parametrize("threads", [0, 8])
def test_more_threads_than_particles(data: SimulatedParticles, mode: Mode, threads: int) -> None:
    """The same bytes; 0 is the default number of threads."""
    results = []
    for count in (1, threads):
        scorer = replace(data.scorer, threads=count)
        search = Search(replace(data, scorer=scorer), mode, settings={"threads": count}).run()
        assert_sound(search)
        poses = [np.concatenate([e.rotation.ravel(), e.shift_angstrom]) for e in search.found]
        results.append((np.concatenate(poses).tobytes(), search.accumulator.data.tobytes()))
    assert results[0] == results[1]


# ---- shifts ---------------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9])
def test_displacements_far_beyond_the_box(data: SimulatedParticles, mode: Mode, distance: float) -> None:
    """The prior pulls the particle back to its coordinate; images are periodic, so it cannot be lost."""
    displacements = np.zeros((N, 3))
    displacements[1, 0] = distance
    search, company = Search(data, mode, displacements=displacements).run(), Search(data, mode).run()
    assert_sound(search)
    assert_same(search, company, [0, 2])
    if distance <= 1e6:  # beyond, differences of the prior are lost in single precision
        pulled = search.found[1].shift_angstrom[0] - company.found[1].shift_angstrom[0]
        assert pulled <= (-0.2 if mode.climb else 0.0)
    assert np.linalg.norm(search.found[1].shift_angstrom) <= 4 * BOX * PIXEL
    assert abs(search.found[1].square_offset / distance**2 - 1.0) <= 0.1


@every_mode
def test_a_lattice_of_shifts_beyond_the_box(data: SimulatedParticles, mode: Mode) -> None:
    """Three boxes away in all directions; the width of the prior tells copies from the particle."""
    size = BOX * PIXEL
    search = Search(data, mode, shift_range=3 * size, shift_step=0.75 * size, order=1).run()
    assert_sound(search)
    assert max(np.linalg.norm(e.shift_angstrom) for e in search.found) <= size
    if mode.climb:
        assert_near_truth(search)


@every_mode
def test_a_single_shift(data: SimulatedParticles, mode: Mode) -> None:
    """A range of zero: shifts are the children of the one cell, or climbed."""
    near = replace(data, shifts=np.zeros((N, 3)))
    search = Search(near, mode, shift_range=0.0).run()
    assert len(search.grid.shifts()) == 1
    assert_sound(search)
    assert max(np.abs(e.shift_angstrom).max() for e in search.found) <= 6.0


# ---- sampling and radii ---------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("oversampling", [0, 2])
def test_other_oversampling(data: SimulatedParticles, mode: Mode, oversampling: int) -> None:
    search = Search(data, mode, oversampling=oversampling).run()
    assert_sound(search)
    angle, shift = search.errors()
    if mode.climb:
        assert_near_truth(search)
        assert_same(search, Search(data, mode).run(), range(N))
    else:
        # half the diagonal of a cell, and what noise adds
        assert angle.max() <= search.grid.fine_step_deg + 4.0
        assert shift.max() <= search.grid.fine_shift_step_angstrom + 1.5


@every_mode
@pytest.mark.parametrize("factor", [3.0, 1e6])
def test_radii_beyond_nyquist_are_nyquist(data: SimulatedParticles, mode: Mode, factor: float) -> None:
    """There are no components to add."""
    radii = {"fine_radius": factor * RADIUS, "map_radius": factor * RADIUS}
    search = Search(data, mode, settings=radii).run()
    assert_sound(search)
    assert_same(search, Search(data, mode).run(), range(N))


@every_mode
def test_a_map_finer_than_the_scores(data: SimulatedParticles, mode: Mode) -> None:
    fine, full = {"fine_radius": 5.0, "coarse_radius": 4.0}, {"map_radius": RADIUS}
    search = Search(data, mode, settings=fine | full).run()
    assert_sound(search)
    low = Search(data, mode, settings=fine | {"map_radius": 5.0}).run()
    assert_same(search, low, range(N))
    y = np.fft.fftfreq(2 * BOX, 1.0 / (2 * BOX))
    square = y[:, None, None] ** 2 + y[:, None] ** 2 + np.arange(BOX + 1) ** 2
    beyond = square >= (2 * 5.0 + 2) ** 2
    assert search.accumulator.weight[beyond].sum() > 0.0
    assert not low.accumulator.weight[beyond].any()


@every_mode
@pytest.mark.parametrize(
    "changes",
    [
        {"map_radius": 5.0},
        {"coarse_radius": 7.5, "fine_radius": 5.0, "map_radius": 6.0},
        {"coarse_radius": 0.0},
        {"offset_sigma_angstrom": 0.0},
        {"pixel_size": 0.0},
    ],
    ids=["map-below-fine", "map-below-coarse", "coarse-0", "offset-sigma-0", "pixel-0"],
)
def test_settings_that_cannot_work_are_refused(data: SimulatedParticles, mode: Mode, changes: dict[str, float]) -> None:
    assert Search(data, mode, settings=changes).refused()


@pytest.mark.parametrize("radius", [np.inf, np.nan, 0.0, -1.0])
def test_radii_must_be_positive_numbers(data: SimulatedParticles, radius: float) -> None:
    """An infinite radius would be divided for ever on the way to where climbs start."""
    grid = Search(data, Mode(True, True)).grid
    try:
        Settings(grid, RADIUS, radius, radius, PIXEL, 10.0)
    except TiltwiseError:
        return
    raise AssertionError("accepted")


@pytest.mark.parametrize("changes", [{"shift_step": 0.0}, {"shift_range": -1.0}, {"order": -1}, {"order": 9}], ids=str)
def test_grids_that_do_not_exist_are_refused(data: SimulatedParticles, changes: dict[str, Any]) -> None:
    with pytest.raises(TiltwiseError):
        Search(data, Mode(True, True), **changes).run()


def test_an_angular_prior_needs_a_width(data: SimulatedParticles) -> None:
    with pytest.raises(TiltwiseError, match="width of the angular prior"):
        Search(data, Mode(True, True), sigma_deg=0.0).run()


def test_following_in_a_global_search(data: SimulatedParticles) -> None:
    """All particles are found where they were, so nobody is left for the levels."""
    search = Search(data, Mode(False, True, follow=True))
    if not search.refused():
        assert_sound(search)
        assert_near_truth(search)


# ---- references -----------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("order", [0, 1])
def test_an_empty_reference_leaves_the_prior(data: SimulatedParticles, mode: Mode, order: int) -> None:
    empty = replace(data, scorer=replace(data.scorer, volume=np.zeros_like(data.scorer.volume)))
    search = Search(empty, mode, order=order).run()
    assert_sound(search)
    assert_is_the_prior(search, range(N))
    assert search.accumulator.weight.any()


@every_mode
def test_a_sphere_has_shifts_but_no_rotations(mode: Mode) -> None:
    """Information about rotations is rounding."""
    axis = np.arange(BOX) - BOX // 2
    profile = np.exp(-(axis**2) / 8.0)
    sphere = (profile[:, None, None] * profile[:, None] * profile).astype(np.float32)
    data = particles()
    scorer = replace(data.scorer, volume=reference_volume(sphere))
    rng = np.random.default_rng(4)
    model = scorer.slices(data.series, np.arange(TILTS), np.eye(3)[None], data.disc.frequencies3d())
    model = model.reshape(TILTS, -1)
    sigma = np.sqrt((np.abs(model[:, 1:]) ** 2).sum() / 300.0)
    power, raw = np.full((TILTS, data.disc.n_shells), sigma**2), []
    for _ in range(N):
        noise = rng.normal(size=(2, *model.shape)) * sigma / np.sqrt(2)
        image = (model + noise[0] + 1j * noise[1]).astype(np.complex64)
        raw.append(ParticleImages(np.arange(TILTS), image, image, np.ones(image.shape, np.float32), power))
    sphere_data = replace(data, scorer=scorer, raw=raw, shifts=np.zeros((N, 3)), noise_power=power)
    search = Search(sphere_data, mode, order=1).run()
    assert_sound(search)
    assert not any(e.sharp for e in search.found)
    assert search.errors()[1].max() <= 4.0
    if mode.local:
        off = [angular_distance_deg(e.rotation, c) for e, c in zip(search.found, search.centres, strict=True)]
        assert np.max(off) <= 30.0


def test_moments_that_collapse_do_not_reach_the_map(data: SimulatedParticles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one point holds all of the posterior its covariance is zero: no Gaussian, and no weight of NaN."""
    monkeypatch.setattr("tiltwise.em.climbs.LARGEST_DEFECT", -1.0)
    monkeypatch.setattr("tiltwise.em.moments.POINTS", 1e3 * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]))
    sharp = replace(data, noise_power=data.noise_power / 1e2)
    search = Search(sharp, Mode(True, True)).run()
    assert_sound(search)
    assert search.errors()[0].max() <= 12.0  # on the grid
