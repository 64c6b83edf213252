"""Specimen and microscope: placement, orientations, motion, errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.sim.microscope import stated_parameters, true_parameters
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.specimen import (
    Poses,
    axis_frames,
    place_on_lattice,
    place_on_sphere,
    place_particles,
    random_rotations,
    rocked,
    rotation_from_vector,
    smooth_motion,
    uniform_rotations,
)

SIZE = (200, 160, 80)


def left_half(points: np.ndarray) -> np.ndarray:
    return points[:, 0] < 100


def test_particles_on_a_sphere_have_its_normals() -> None:
    centre = np.array([100.0, 80.0, 40.0])
    placed, normals = place_on_sphere(30, centre, 60.0, 20.0, left_half, np.random.default_rng(1))
    distance = np.linalg.norm(placed[:, None] - placed, axis=-1)
    distance[np.diag_indices(30)] = np.inf
    assert placed.shape == (30, 3)
    assert distance.min() >= 20.0
    assert placed[:, 0].max() < 100
    assert np.abs(np.linalg.norm(placed - centre, axis=1) - 60.0).max() <= 1e-9
    assert np.abs(placed - centre - 60.0 * normals).max() <= 1e-9
    assert np.abs(axis_frames(normals)[:, :, 2] - normals).max() <= 1e-9
    with pytest.raises(ConfigError, match="no room"):
        place_on_sphere(30, centre, 10.0, 20.0, left_half, np.random.default_rng(1))


def test_rocking_has_its_width_and_leaves_the_turn_about_the_axis_free() -> None:
    frames = random_rotations(4000, np.random.default_rng(2))
    found = np.swapaxes(frames, 1, 2) @ rocked(frames, 10.0, np.random.default_rng(3))
    off = np.degrees(np.arctan2(found[:, :2, 2], found[:, 2:, 2]))
    assert np.abs(off.std(axis=0) / 10.0 - 1.0).max() <= 0.1
    assert np.abs(off.mean(axis=0)).max() <= 0.6
    turn = np.degrees(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    assert np.histogram(turn, bins=12, range=(-180, 180))[0].min() >= 250  # of 333, 5 sigma
    free, axes = rocked(frames, 0.0, np.random.default_rng(3)), frames[:, :, 2]
    assert np.abs(free[:, :, 2] - axes).max() <= 1e-9


def test_particles_do_not_overlap_and_stay_inside() -> None:
    placed = place_particles(40, SIZE, 12.0, 20.0, left_half, np.random.default_rng(1))
    distance = np.linalg.norm(placed[:, None] - placed, axis=-1)
    distance[np.diag_indices(40)] = np.inf
    assert placed.shape == (40, 3)
    assert distance.min() >= 20.0
    assert placed[:, 0].max() < 100
    assert placed[:, 2].min() >= 12.0
    assert placed[:, 2].max() <= 68.0
    assert np.ptp(placed[:, 2]) > 30


def test_a_thin_slab_holds_one_layer() -> None:
    placed = place_particles(5, (200, 200, 20), 15.0, 20.0, left_half, np.random.default_rng(1))
    assert np.array_equal(placed[:, 2], np.full(5, 10.0))


def test_too_many_particles_are_refused() -> None:
    with pytest.raises(ConfigError, match="no room") as caught:
        place_particles(2000, SIZE, 12.0, 30.0, left_half, np.random.default_rng(1))
    assert "--particles" in str(caught.value)


def test_rotation_vectors() -> None:
    vector = np.random.default_rng(2).standard_normal((20, 3))
    vector[0] = 0
    assert np.allclose(rotation_from_vector(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)


@pytest.mark.parametrize("draw", [random_rotations, uniform_rotations])
def test_orientations_cover_all_rotations(draw: object) -> None:
    assert callable(draw)
    rotations = draw(600, np.random.default_rng(3))
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotations), 1.0)
    # elements have mean 0 and variance 1/3: the mean of 600 is 0.024 rms, five times that for nine of them
    assert np.abs(rotations.mean(axis=0)).max() <= 0.12
    assert np.abs(np.square(rotations).mean(axis=0) - 1 / 3).max() <= 0.07


def test_uniform_orientations_leave_smaller_holes_than_random_ones() -> None:
    """Largest distance from an orientation to the nearest one of the set."""
    probes = random_rotations(400, np.random.default_rng(9))

    def hole(rotations: np.ndarray) -> float:
        return float(angular_distance_deg(probes[:, None], rotations).min(axis=1).max())

    assert hole(uniform_rotations(300, np.random.default_rng(3))) < 0.8 * hole(
        random_rotations(300, np.random.default_rng(3))
    )


def test_errors_of_poses_have_the_stated_size() -> None:
    rng = np.random.default_rng(4)
    true = Poses(rng.uniform(0, 100, (3000, 3)), random_rotations(3000, rng))
    stated = true.perturbed(2.0, 6.0, rng)
    angle = angular_distance_deg(true.rotation, stated.rotation)
    # 9000 normal numbers: their rms is known to 0.75 %
    assert np.sqrt(np.mean(angle**2)) == pytest.approx(6.0, rel=0.03)
    assert np.sqrt(np.mean((stated.position_px - true.position_px) ** 2)) == pytest.approx(2.0, rel=0.03)


def test_motion_is_smooth_and_starts_at_rest() -> None:
    rng = np.random.default_rng(5)
    position = rng.uniform(0, 1, (400, 3)) * SIZE
    acquisition = rng.permutation(41)
    motion = smooth_motion(position, SIZE, acquisition, 0.3, rng)
    in_time = motion[np.argsort(acquisition)]
    assert not in_time[0].any()
    assert np.sqrt(np.mean(np.diff(in_time, axis=0) ** 2)) == pytest.approx(0.3, rel=0.2)
    unit = position / SIZE
    fields = np.stack([np.ones(400), *unit.T, unit[:, 0] * unit[:, 1]], axis=1)
    for displacement in (in_time[-1], in_time[7]):
        rest = displacement - fields @ np.linalg.lstsq(fields, displacement, rcond=None)[0]
        assert np.abs(rest).max() <= 1e-9


def options(**values: object) -> SimulateOptions:
    return SimulateOptions(output="unused", **values)


def test_tilts_are_dose_symmetric() -> None:
    tilts = true_parameters(options(tilt_step=4.0, dose=3.0), np.random.default_rng(1))
    assert np.array_equal(tilts.stage_deg, np.arange(-60.0, 61.0, 4.0))
    order = tilts.stage_deg[np.argsort(tilts.pre_exposure)]
    assert order[:7].tolist() == [0, 4, -4, 8, -8, 12, -12]
    assert np.array_equal(np.sort(tilts.pre_exposure), 3.0 * np.arange(31))


def test_true_parameters() -> None:
    given = options(astigmatism=300.0, scale_at_60=0.7, tilt_shift=12.0, defocus_spread=0.0, defocus_jitter=150.0)
    tilts = true_parameters(given, np.random.default_rng(2))
    assert tilts.scale[tilts.stage_deg == 0] == 1.0
    assert tilts.scale[0] == pytest.approx(0.7)
    assert np.std(tilts.x_shift_angstrom) == pytest.approx(12.0, rel=0.4)
    assert np.std(tilts.defocus_angstrom) == pytest.approx(150.0, rel=0.4)
    series = tilts.series("TS_01", given)
    assert np.allclose(series.defocus_u_angstrom - series.defocus_v_angstrom, 300.0)
    assert np.allclose((series.defocus_u_angstrom + series.defocus_v_angstrom) / 2, tilts.defocus_angstrom)


def test_errors_of_the_metadata() -> None:
    given = options(
        tilt_step=1.0,
        error_shift=4.0,
        error_angle=0.2,
        error_defocus=500.0,
        astigmatism=200.0,
        astigmatism_known=False,
        scale_at_60=0.7,
        scale_known=False,
    )
    true = true_parameters(given, np.random.default_rng(1))
    stated = stated_parameters(true, given, np.random.default_rng(2))
    for name, rms in [
        ("x_tilt_deg", 0.2),
        ("y_tilt_deg", 0.2),
        ("z_rot_deg", 0.2),
        ("x_shift_angstrom", 4.0),
        ("y_shift_angstrom", 4.0),
        ("defocus_angstrom", 500.0),
    ]:
        error = getattr(stated, name) - getattr(true, name)
        # 121 normal numbers: their rms is known to 6.4 %
        assert np.sqrt(np.mean(error**2)) == pytest.approx(rms, rel=0.25), name
    assert not stated.astigmatism_angstrom.any()
    assert np.array_equal(stated.scale, np.ones(121))
    assert np.array_equal(stated.stage_deg, true.stage_deg)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"tilt_min": 10.0, "tilt_max": 0.0}, "--tilt-min"),
        ({"hand": 0}, "--hand"),
        ({"snr": 0.1, "noise": 1.0}, "--snr"),
        ({"signal": False}, "--no-signal"),
        ({"model": "map.mrc", "symmetry": "C6"}, "--sym"),
        ({"symmetry": "X2"}, "--sym"),
        ({"width_px": 385}, "--width-px"),
    ],
)
def test_options_that_make_no_sense(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options(**values)
    assert named in str(caught.value)


def test_lattice_has_six_neighbours_and_keeps_to_what_is_allowed() -> None:
    size = (400, 300, 40)
    inside = lambda points: np.asarray((points[:, 0] > 100) & (points[:, 0] < 300))  # noqa: E731
    points = place_on_lattice(60, size, 20.0, inside)
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() == pytest.approx(20.0)
    assert (np.abs(apart[0] - 20.0) < 1e-9).sum() == 6  # the one in the middle
    assert inside(points).all()
    assert np.array_equal(points[:, 2], np.full(60, 20.0))
    with pytest.raises(ConfigError, match="on the lattice"):
        place_on_lattice(1000, size, 20.0, inside)
