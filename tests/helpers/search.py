"""One E-step over simulated particles, and what every one of them must leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.compare import relative_l2
from helpers.particles import SimulatedParticles
from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.expectation import Expectation
from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import turned
from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.settings import Group, Settings
from tiltwise.errors import TiltwiseError
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.rotations import angular_distance_deg, euler_to_matrix
from tiltwise.maps.volumes import Accumulator, solve_map

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
