"""Bad and unusual input of the E-step: an error with a message, or the right answer; never a NaN in the sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.compare import relative_l2
from helpers.particles import SimulatedParticles, blobs, tilt_series
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.expectation import Expectation
from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import turned
from tiltwise.em.likelihood import Scorer, WhitenedImages, whiten
from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.octree import GlobalSearch, mass_missed
from tiltwise.em.settings import Group, Settings
from tiltwise.em.volumes import Accumulator, reference_volume, solve_map
from tiltwise.errors import ShapeError, TiltwiseError
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.rotations import angular_distance_deg, euler_to_matrix
from tiltwise.kernels.select import load_backend
from tiltwise.spectral.disc import FourierDisc

BOX, TILTS, PIXEL, RADIUS = 16, 5, 4.0, 8.0
N = 3
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Mode:
    """A way to search."""

    local: bool
    climb: bool
    follow: bool = False

    def __str__(self) -> str:
        return "-".join(
            ["local" if self.local else "global", "climb" if self.climb else "grid", *(["follow"] * self.follow)]
        )


LOCAL = [Mode(True, True), Mode(True, False), Mode(True, True, follow=True)]
GLOBAL = [Mode(False, True), Mode(False, False)]
MODES = [*LOCAL, *GLOBAL]
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)


def particles(**changes: Any) -> SimulatedParticles:
    arguments: dict[str, Any] = {
        "box": BOX,
        "tilts": TILTS,
        "pixel_size": PIXEL,
        "nats": 1000.0,
        "radius": RADIUS,
        "reach_angstrom": 6.0,
    }
    return SimulatedParticles.create(changes.pop("n", N), **(arguments | changes))


@pytest.fixture(scope="module")
def data() -> SimulatedParticles:
    return particles()


@dataclass
class Search:
    """One E-step over particles whose last orientations are three degrees off the truth."""

    data: SimulatedParticles
    mode: Mode
    raw: Sequence[ParticleImages] | None = None
    order: int = 2
    oversampling: int = 1
    sigma_deg: float = 10.0
    shift_range: float = 8.0
    shift_step: float = 6.0
    displacements: F64 | None = None
    noise_power: F64 | None = None
    last: F64 | None = None
    """last orientations, if others than those three degrees off"""
    settings: dict[str, Any] = field(default_factory=dict)
    accumulator: Accumulator = field(init=False)
    noise: NoiseSums = field(init=False)
    found: list[PoseEstimate] = field(init=False, default_factory=list)
    advanced: int = 0

    @property
    def images(self) -> Sequence[ParticleImages]:
        return self.data.raw if self.raw is None else self.raw

    @property
    def centres(self) -> F64:
        if self.last is not None:
            return self.last
        turns = np.random.default_rng(3).normal(size=(len(self.data.raw), 3))
        turns *= np.radians(3.0) / np.linalg.norm(turns, axis=1)[:, None]
        return turned(self.data.rotations, turns)[: len(self.images)]

    @property
    def grid(self) -> PoseGrid:
        return PoseGrid(
            self.order,
            self.oversampling,
            euler_to_matrix([3.0, 2.0, 1.0]),
            self.sigma_deg if self.mode.local else None,
            self.shift_range,
            self.shift_step,
            np.zeros(3),
        )

    def run(self) -> Search:
        data, n = self.data, len(self.images)
        self.accumulator = Accumulator.empty(data.disc.box)
        self.noise = NoiseSums.empty(data.series.n_tilts, data.disc.n_shells)
        radius = data.disc.radius
        chosen: dict[str, Any] = {
            "coarse_radius": max(0.75 * radius, 1.0),
            "fine_radius": radius,
            "map_radius": radius,
            "pixel_size": PIXEL,
            "offset_sigma_angstrom": 10.0,
            "climb": self.mode.climb,
            "follow": self.mode.follow,
        }
        settings = Settings(self.grid, **(chosen | self.settings))
        group = Group(
            data.series,
            data.noise_power if self.noise_power is None else self.noise_power,
            np.arange(n),
            self.centres,
            np.zeros((n, 3)) if self.displacements is None else self.displacements,
            self.images.__getitem__,
        )

        def advance(count: int) -> None:
            self.advanced += count

        self.found = Expectation(data.scorer, data.disc, settings).run(group, self.accumulator, self.noise, advance)
        return self

    def refused(self) -> bool:
        """Runs; whether that ended in an error with a message.  Sums are finite in either case."""
        try:
            self.run()
        except TiltwiseError:
            assert_sums_finite(self)
            return True
        return False

    def errors(self) -> tuple[F64, F64]:
        """Degrees and Å off the truth."""
        angle = [angular_distance_deg(e.rotation, r) for e, r in zip(self.found, self.data.rotations, strict=False)]
        pairs = zip(self.found, self.data.shifts, strict=False)
        return np.array(angle, np.float64), np.array([np.linalg.norm(e.shift_angstrom - d) for e, d in pairs])


def assert_sums_finite(search: Search) -> None:
    assert np.isfinite(search.accumulator.data).all(), "NaN in the sums of the map"
    assert np.isfinite(search.accumulator.weight).all(), "NaN in the weights of the map"
    assert search.accumulator.weight.min() >= 0.0
    for name in ("power", "explained", "weight"):
        assert np.isfinite(getattr(search.noise, name)).all(), f"NaN in the noise sums: {name}"


def assert_sound(search: Search) -> None:
    """One finite estimate of every particle, finite sums, a finite map."""
    n = len(search.images)
    assert len(search.found) == search.advanced == n
    assert_sums_finite(search)
    assert np.isfinite(solve_map(search.accumulator)).all()
    for estimate in search.found:
        assert np.abs(estimate.rotation @ estimate.rotation.T - np.eye(3)).max() <= 1e-6
        assert abs(np.linalg.det(estimate.rotation) - 1.0) <= 1e-6
        assert np.isfinite(estimate.shift_angstrom).all()
        assert np.isfinite(estimate.log_evidence)
        assert 0.0 < estimate.max_probability <= 1.0 + 1e-6
        assert estimate.n_significant >= 1
        assert 0.0 < estimate.std_deg < 180.0
        assert 0.0 < estimate.std_angstrom < np.inf
        assert 0.0 <= estimate.square_offset < np.inf


def assert_near_truth(search: Search, rows: Sequence[int] = range(N)) -> None:
    """About what the noise allows after a climb, and a cell of the finer grid without."""
    angle, shift = search.errors()
    limits = (6.0, 2.5) if search.mode.climb else (10.0, 4.0)
    assert angle[list(rows)].max() <= limits[0]
    assert shift[list(rows)].max() <= limits[1]


def assert_same(search: Search, expected: Search, rows: Sequence[int], others: Sequence[int] | None = None) -> None:
    """Particles `rows` came out as `others` of another run; company may change the order of sums, and pruning."""
    for i, j in zip(rows, rows if others is None else others, strict=True):
        one, other = search.found[i], expected.found[j]
        assert angular_distance_deg(one.rotation, other.rotation) <= 0.1
        assert np.abs(one.shift_angstrom - other.shift_angstrom).max() <= 0.05
        assert abs(one.log_evidence - other.log_evidence) <= 0.1
        assert one.sharp == other.sharp


def assert_same_sums(search: Search, expected: Search) -> None:
    assert relative_l2(search.accumulator.data, expected.accumulator.data) <= 5e-3
    assert relative_l2(search.accumulator.weight, expected.accumulator.weight) <= 5e-3
    assert relative_l2(search.noise.power, expected.noise.power) <= 1e-6


def assert_is_the_prior(search: Search, rows: Sequence[int]) -> None:
    """Nothing was learned of these particles: they stay where they were, as uncertain as the prior is."""
    grid = search.grid
    shifts = grid.fine_shifts(grid.shifts())
    prior = np.exp(-0.5 * (shifts**2).sum(axis=1) / 10.0**2)
    for i in rows:
        estimate = search.found[i]
        assert np.linalg.norm(estimate.shift_angstrom) <= grid.fine_shift_step_angstrom
        if search.mode.local:
            assert angular_distance_deg(estimate.rotation, search.centres[i]) <= grid.fine_step_deg
            assert estimate.std_deg >= 0.5 * search.sigma_deg
        else:
            volume = 8.0 * np.pi**2 * prior.sum() * grid.fine_shift_step_angstrom**3
            assert abs(estimate.log_evidence - np.log(volume)) <= 0.01
            assert estimate.max_probability <= 1e-3
        if not estimate.sharp:
            square = prior @ (shifts**2).sum(axis=1) / prior.sum()
            assert abs(estimate.square_offset / square - 1.0) <= 0.05


def without(images: Sequence[Any], index: int) -> list[Any]:
    return [image for i, image in enumerate(images) if i != index]


def instead(images: Sequence[ParticleImages], index: int, other: ParticleImages) -> list[ParticleImages]:
    return [other if i == index else image for i, image in enumerate(images)]


def of_some_tilts(image: ParticleImages, tilts: Sequence[int]) -> ParticleImages:
    t = np.array(tilts, dtype=np.intp)
    return ParticleImages(image.tilts[t], image.data[t], image.masked[t], image.ctf2[t], image.power[t])


def no_contrast(image: ParticleImages) -> ParticleImages:
    """C = 0 everywhere."""
    return replace(image, data=0 * image.data, masked=0 * image.masked, ctf2=0 * image.ctf2)


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
    missed = [
        mass_missed(f, k, lambda shifts: prior(0, shifts), levels[-1].shifts) for f, k in zip(full, kept, strict=True)
    ]
    assert np.max(missed) <= 1e-3, f"{np.sum(np.array(missed) > 1e-3)} particles lose up to {np.max(missed):.2f}"


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
