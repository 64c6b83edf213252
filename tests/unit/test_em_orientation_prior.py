"""Priors on stored axes and on RELION's angles: values, mates, derivatives, and which cells a search looks at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.particles import SimulatedParticles
from tiltwise.em.expectation import Expectation
from tiltwise.em.grid import PoseGrid
from tiltwise.em.laplace import turned
from tiltwise.em.octree import GlobalSearch
from tiltwise.em.orientation_prior import OrientationPrior
from tiltwise.em.priors import PosePrior
from tiltwise.em.settings import Group, Settings
from tiltwise.errors import DataError
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler, rotation_y
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.model import Particles

F64 = NDArray[np.float64]
N = 40
C1 = symmetry_matrices("C1")


def particles(angles: F64, frame_angles: F64, prior: F64 | None = None) -> Particles:
    n, zeros = len(angles), np.zeros((len(angles), 3))
    return Particles(
        name=tuple(f"TS/{i + 1}" for i in range(n)),
        tomogram=("TS",) * n,
        coordinate_px=zeros,
        origin_angstrom=zeros,
        angles_deg=angles,
        subtomogram_angles_deg=frame_angles,
        half_set=np.ones(n, np.int64),
        optics_index=np.zeros(n, np.int64),
        image_files=(),
        ctf_files=(),
        visible=(),
        prior_angles_deg=prior,
    )


def prior_of(sigma: dict[str, float | None], *, symmetry: str = "C1", prior: Any = None, seed: int = 1) -> Any:
    """A prior of N particles in random frames at random angles (those of `prior` where given), and the particles."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform([-180, 20, -180], [180, 160, 180], (N, 3))
    stored = particles(angles, rng.uniform([-180, 0, -180], [180, 180, 180], (N, 3)), prior)
    found = OrientationPrior.of(stored, sigma, symmetry_matrices(symmetry))
    assert found is not None
    return found, stored


def rotation_at(stored: Particles, angles: F64) -> F64:
    return euler_to_matrix(stored.subtomogram_angles_deg) @ euler_to_matrix(angles)


def test_no_width_is_no_prior() -> None:
    rng = np.random.default_rng(0)
    stored = particles(rng.normal(size=(2, 3)), rng.normal(size=(2, 3)))
    assert OrientationPrior.of(stored, {"rot": None, "axis": None}, C1) is None


@pytest.mark.parametrize("axis", range(3))
def test_priors_on_angles_are_gaussians_of_them(axis: int) -> None:
    """In units of a width of 8 degrees, about the stored angles, whatever the others are; rot and psi wrap."""
    name = ("rot", "tilt", "psi")[axis]
    prior, stored = prior_of({name: 8.0})
    rng = np.random.default_rng(2)
    angles = rng.uniform([-180, 25, -180], [180, 155, 180], (N, 3))
    off = rng.uniform(-18.0, 18.0, N)
    angles[:, axis] = stored.angles_deg[:, axis] + off
    assert np.abs(prior.log(rotation_at(stored, angles)) + 0.5 * (off / 8.0) ** 2).max() <= 1e-9
    inside = np.abs(off) <= 24.0
    assert inside.all()
    assert prior.within(rotation_at(stored, angles)).all()
    angles[:, axis] = stored.angles_deg[:, axis] + np.where(stored.angles_deg[:, axis] > 90, -25.0, 25.0)
    assert not prior.within(rotation_at(stored, angles)).any()
    assert prior.within(rotation_at(stored, angles), np.radians(1.5)).all()


@pytest.mark.parametrize("tilt", [0.0, 90.0])
def test_axis_is_the_same_in_both_conventions(tilt: float) -> None:
    """A normal along z of the subtomogram at tilt 0; or that frame turned by 90 degrees about y, tilt 90 and psi 0."""
    rng = np.random.default_rng(3)
    frame = Rotation.random(N, rng=rng).as_matrix()
    normal = frame[:, :, 2]
    angles = np.broadcast_to([0.0, tilt, 0.0], (N, 3))
    stored = particles(np.zeros((N, 3)), matrix_to_euler(frame @ rotation_y(tilt)), angles)
    prior = OrientationPrior.of(stored, {"axis": 10.0}, C1)
    assert prior is not None
    assert np.abs(prior.axis - normal).max() <= 1e-9
    free = frame @ euler_to_matrix(np.stack([rng.uniform(-180, 180, N), np.zeros(N), np.zeros(N)], axis=1))
    rocked = frame @ rotation_y(20.0) @ np.swapaxes(frame, 1, 2) @ free
    assert np.abs(prior.log(free)).max() <= 1e-12
    assert np.abs(prior.log(rocked) + 2.0).max() <= 1e-9


def test_negative_tilts_are_turned_around() -> None:
    rng = np.random.default_rng(8)
    angles = rng.uniform([-180, -160, -180], [180, -20, 180], (N, 3))
    stored = particles(angles, rng.uniform(-180, 180, (N, 3)))
    prior = OrientationPrior.of(stored, dict.fromkeys(("rot", "tilt", "psi", "axis"), 5.0), C1)
    assert prior is not None
    assert np.abs(prior.log(rotation_at(stored, angles))).max() <= 1e-9


def test_files_without_prior_columns_use_their_angles() -> None:
    nothing = np.full((N, 3), np.nan)
    with_columns, stored = prior_of({"axis": 5.0}, prior=nothing)
    without, _ = prior_of({"axis": 5.0})
    assert np.array_equal(with_columns.axis, without.axis)
    assert np.abs(without.log(rotation_at(stored, stored.angles_deg))).max() <= 1e-12
    broken = replace(stored, angles_deg=np.full((N, 3), np.nan), prior_angles_deg=None)
    with pytest.raises(DataError, match="not a number"):
        OrientationPrior.of(broken, {"tilt": 5.0}, C1)


@pytest.mark.parametrize(
    ("symmetry", "names", "count"), [("C6", ("axis",), 1), ("D7", ("axis",), 2), ("D7", ("rot",), 14)]
)
def test_mates_have_the_same_prior(symmetry: str, names: tuple[str, ...], count: int) -> None:
    prior, _ = prior_of(dict.fromkeys(names, 12.0), symmetry=symmetry)
    assert len(prior.mates) == count
    rotation = Rotation.random(N, rng=np.random.default_rng(4)).as_matrix()
    for operator in symmetry_matrices(symmetry):
        assert np.abs(prior.log(rotation @ operator) - prior.log(rotation)).max() <= 1e-6
        assert np.array_equal(prior.within(rotation @ operator), prior.within(rotation))


@pytest.mark.parametrize("names", [("axis",), ("tilt",), ("psi",), ("rot",), ("rot", "tilt", "psi", "axis")])
def test_derivatives(names: tuple[str, ...]) -> None:
    """Central differences of the log prior; the information is that of the true second derivative where it counts."""
    prior, stored = prior_of(dict.fromkeys(names, 10.0), symmetry="D3")
    rng = np.random.default_rng(5)
    near = turned(rotation_at(stored, stored.angles_deg), 0.15 * rng.normal(size=(N, 3)))
    displaced = PosePrior(near, np.zeros((N, 3)), None, 5.0, prior)
    gradient, information = displaced.derivatives(near, np.zeros((N, 3)))
    step = 1e-5
    for axis in range(3):
        change = np.zeros((N, 3))
        change[:, axis] = step
        up, down = prior.log(turned(near, change)), prior.log(turned(near, -change))
        slope = (up - down) / (2 * step)
        assert np.abs(gradient[:, axis] - slope).max() <= 1e-5 * np.abs(gradient).max()
    assert np.abs(information - np.swapaxes(information, 1, 2)).max() <= 1e-9
    assert np.linalg.eigvalsh(information).min() > 0.0
    assert np.array_equal(displaced.of_rotations(near), prior.log(near))


def test_information_at_the_centre_of_an_axis() -> None:
    """1 / sigma^2 about both axes across the stored one, nothing along it."""
    prior, stored = prior_of({"axis": 10.0})
    gradient, information = prior.derivatives(rotation_at(stored, stored.angles_deg))
    axis = prior.axis
    expected = (np.eye(3) - axis[:, :, None] * axis[:, None, :]) / np.radians(10.0) ** 2
    assert np.abs(gradient).max() <= 1e-5
    assert np.abs(information - expected).max() <= 1e-3 * expected.max()


def test_global_search_looks_near_the_axis_only() -> None:
    """Cells beyond three widths and a step are not scored; those that are, have the scores of a free search."""
    data = SimulatedParticles.create(
        6, box=16, tilts=5, pixel_size=4.0, nats=400.0, radius=8.0, reach_angstrom=6.0, seed=3
    )
    n = len(data.rotations)
    rocked = turned(data.rotations, np.radians(6.0) * np.random.default_rng(1).normal(size=(n, 3)))
    stored = particles(np.zeros((n, 3)), matrix_to_euler(rocked))
    prior = OrientationPrior.of(stored, {"axis": 10.0}, C1)
    assert prior is not None
    grid = PoseGrid(2, 1, euler_to_matrix([3.0, 2.0, 1.0]), None, 8.0, 6.0, np.zeros(3))
    settings = Settings(grid, 6.0, 8.0, 8.0, 4.0, 10.0)
    expectation = Expectation(data.scorer, data.disc, settings)
    levels = expectation._levels
    search = GlobalSearch(data.scorer, data.series, data.disc, 4.0, levels)

    def of_shifts(i: int, shifts: F64) -> Any:
        return settings.shift_prior(np.zeros(3), shifts)

    everything = search.run(data.whitened, of_shifts, prune=False)
    for pruned in (False, True):
        found = search.run(data.whitened, of_shifts, prior, prune=pruned)
        for i, (cells, full) in enumerate(zip(found, everything, strict=True)):
            angle = np.degrees(np.arccos(np.clip(levels[-1].rotations[cells.rows][:, :, 2] @ prior.axis[i], -1, 1)))
            assert angle.max() <= 30.0 + grid.coarse_step_deg + 1e-6
            assert np.allclose(cells.cross, full.cross[np.ix_(cells.rows, cells.columns)], rtol=1e-4, atol=1e-3)
        if not pruned:
            assert np.mean([len(cells.rows) for cells in found]) <= 0.2 * len(levels[-1].rotations)
    # a prior so narrow that no cell is in its reach still leaves the nearest
    narrow = replace(prior, sigma_rad={"axis": np.radians(1e-3)})
    assert all(len(cells.rows) for cells in search.run(data.whitened, of_shifts, narrow))
    group = Group(
        data.series, data.noise_power, np.arange(n), rocked, np.zeros((n, 3)), data.raw.__getitem__, prior, audited=4
    )
    estimates = expectation.run(group, None, None, lambda count: None)
    axes = np.stack([estimate.rotation[:, 2] for estimate in estimates])
    assert np.degrees(np.arccos((axes * prior.axis).sum(axis=1))).max() <= 35.0
    assert len(expectation.missed) == 4
    assert max(expectation.missed) <= 0.02
