"""Tilt images: particles where the geometry puts them, CTF of their depth, contrast, fringes, noise.

Geometry and CTF are written out here once more, so that an error in the package's formulas shows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiltwise.geometry.deformation import Deformation, DeformationModel
from tiltwise.sim.density import GaussianDensity
from tiltwise.sim.images import SeriesImager, imaging_box, noise_image
from tiltwise.sim.microscope import true_parameters
from tiltwise.sim.models import Model, load_model
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.projector import GaussianProjector

PIXEL = 4.0


def options(**values: object) -> SimulateOptions:
    given: dict[str, object] = {"pixel_size": PIXEL, "width_px": 128, "height_px": 112, "thickness": 240.0, "box": 48}
    return SimulateOptions(output="unused", **{**given, "tilt_step": 30.0, "tilt_shift": 9.0, **values})


def point_model() -> Model:
    """A blob of 6 Å standard deviation, narrower than two pixels."""
    density = GaussianDensity(
        np.zeros((1, 3)), np.ones(1), np.zeros(1, np.int64), np.full((1, 1), 1e4), np.full((1, 1), 8 * np.pi**2 * 36.0)
    )
    return Model(density, GaussianProjector(density), np.zeros((1, 1, 1), np.float32), 36.0)


def imager(
    model: Model, given: SimulateOptions, position: np.ndarray, displacement: np.ndarray | None = None
) -> SeriesImager:
    series = true_parameters(given, np.random.default_rng(1)).series("TS_01", given)
    moved = np.zeros((series.n_tilts, len(position), 3)) if displacement is None else displacement
    return SeriesImager.create(model, series, position, moved, np.tile(np.eye(3), (len(position), 1, 1)))


def rotation(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def expected_points(given: SimulateOptions, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image points (F, P, 2) and depths (F, P), in pixels, from angles and shifts."""
    tilts = true_parameters(given, np.random.default_rng(1))
    size, image = np.array(given.tomogram_size), np.array(given.image_size)
    points, depths = [], []
    for f in range(len(tilts.stage_deg)):
        turned = (positions - size // 2) @ (rotation("z", tilts.z_rot_deg[f]) @ rotation("y", tilts.y_tilt_deg[f])).T
        shift = np.array([tilts.x_shift_angstrom[f], tilts.y_shift_angstrom[f]]) / PIXEL
        points.append(turned[:, :2] + shift + image // 2)
        depths.append(turned[:, 2])
    return np.array(points), np.array(depths)


IN_FOCUS = {"amplitude_contrast": 1.0, "defocus": 0.0, "defocus_spread": 0.0, "defocus_jitter": 0.0, "dose": 0.0}
"""A CTF of nearly one: pure amplitude contrast, and no defocus but that of the depth"""


def test_particles_land_on_the_projected_points() -> None:
    given = options(**IN_FOCUS, spherical_aberration=0.0)
    positions = np.array([[60.3, 52.8, 30.0], [45.1, 71.6, 21.7], [80.0, 40.45, 41.2]])
    points, _ = expected_points(given, positions)
    y, x = np.indices((112, 128))
    for p in range(3):
        one = imager(point_model(), given, positions[p : p + 1])
        for f in range(one.series.n_tilts):
            image = -one.image(f).astype(np.float64)
            near = np.where(np.hypot(x - points[f, p, 0], y - points[f, p, 1]) < 12, image, 0)
            centroid = np.array([(near * x).sum(), (near * y).sum()]) / near.sum()
            assert np.abs(centroid - points[f, p]).max() <= 0.02  # of a pixel


def test_motion_moves_the_image_and_not_the_defocus() -> None:
    given = options(**IN_FOCUS)
    position = np.array([[60.0, 52.0, 30.0]])
    displacement = np.zeros((5, 1, 3))
    displacement[3, 0] = [2.5, -1.25, 4.0]
    still, moved = imager(point_model(), given, position), imager(point_model(), given, position, displacement)
    points = expected_points(given, position + displacement[3])[0][3]
    assert np.allclose(moved.point_px[3], points)
    assert np.allclose(moved.point_px[2], still.point_px[2])
    assert np.array_equal(moved.depth_px, still.depth_px)


def test_deformations_move_images_and_not_the_defocus() -> None:
    given = options(**IN_FOCUS)
    position, still = np.array([[60.0, 52.0, 30.0], [90.0, 30.0, 20.0]]), np.zeros((5, 2, 3))
    series = true_parameters(given, np.random.default_rng(1)).series("TS_01", given)
    model = DeformationModel("affine", (3, 3), given.image_size)
    bent = replace(series, deformation=Deformation(model, np.tile([0.02, 0.01, -0.03], (5, 1))))
    turn = np.tile(np.eye(3), (2, 1, 1))
    plain, moved = (SeriesImager.create(point_model(), one, position, still, turn) for one in (series, bent))
    away = expected_points(given, position)[0] - np.array(given.image_size) / 2
    expected = np.stack([0.02 * away[..., 0], 0.01 * away[..., 0] - 0.03 * away[..., 1]], axis=-1)
    assert np.allclose(moved.point_px - plain.point_px, expected)
    assert np.array_equal(moved.depth_px, plain.depth_px)


@pytest.mark.parametrize("hand", [-1, 1])
def test_defocus_follows_depth_with_the_sign_of_the_hand(hand: int) -> None:
    """The spectrum of each particle is that of the particle times the CTF at defocus + hand x depth."""
    given = options(hand=hand, defocus=20000.0, astigmatism=1500.0, dose=0.0, thickness=1200.0)
    positions = np.array([[60.0, 52.0, 30.0], [60.0, 52.0, 270.0]])
    one = imager(point_model(), given, positions)
    tilts = true_parameters(given, np.random.default_rng(1))
    _, depths = expected_points(given, positions)
    volts = 300e3
    wavelength = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    k = np.fft.fftfreq(one.box, PIXEL)
    kx, ky = np.meshgrid(k[: one.box // 2], k)
    used = np.hypot(kx, ky) < 0.11
    for f in (0, 2, 3):
        images, corner = one.particle_images(f, slice(0, 2))
        for p in range(2):
            shift = one.point_px[f, p] - corner[p]
            spectrum = np.fft.rfft2(images[p].astype(np.float64))[:, : one.box // 2]
            spectrum *= np.exp(2j * np.pi * PIXEL * (kx * shift[0] + ky * shift[1]))
            plain = 1e4 / PIXEL**3 * np.exp(-2 * np.pi**2 * 36.0 * (kx**2 + ky**2))
            angle = np.radians(tilts.azimuth_deg[f])
            u, v = np.cos(angle) * kx + np.sin(angle) * ky, np.cos(angle) * ky - np.sin(angle) * kx

            def ctf(defocus: float, u: np.ndarray = u, v: np.ndarray = v) -> np.ndarray:
                gamma = -np.pi * wavelength * ((defocus + 750.0) * u**2 + (defocus - 750.0) * v**2)
                gamma += np.pi / 2 * 2.7e7 * wavelength**3 * (u**2 + v**2) ** 2 - np.arctan(0.1 / np.sqrt(1 - 0.01))
                return -np.sin(gamma)

            right, wrong = (
                -plain * ctf(tilts.defocus_angstrom[f] + sign * hand * PIXEL * depths[f, p]) for sign in (1, -1)
            )
            assert np.linalg.norm((spectrum - right)[used]) <= 1e-4 * np.linalg.norm(right[used])
            assert np.linalg.norm((spectrum - wrong)[used]) >= 1e-2 * np.linalg.norm(right[used])


def test_protein_is_dark_at_low_resolution() -> None:
    """Underfocus: the image of a particle correlates negatively with its blurred projection."""
    given = options(defocus=30000.0, dose=0.0, particle_diameter=100.0, beads=200, box=32, width_px=256, height_px=256)
    model = load_model(given)
    one = imager(model, given, np.array([[128.0, 128.0, 30.0]]))
    image = one.image(2)
    x, y = one.point_px[2, 0]
    distance = np.hypot(*(np.indices(image.shape) - np.array([y, x])[:, None, None]))
    assert image[distance < 9].mean() < 0
    assert image[distance < 9].mean() < image[(distance > 14) & (distance < 24)].mean()


def test_damage_and_scale_weaken_the_image() -> None:
    given = options(defocus=20000.0, dose=0.0, tilt_step=60.0)
    position = np.array([[60.0, 52.0, 30.0]])
    plain = imager(point_model(), given, position)
    base, _ = plain.particle_images(1, slice(0, 1))
    weaker = replace(plain, series=replace(plain.series, ctf_scale=np.full(3, 0.6)))
    assert np.allclose(weaker.particle_images(1, slice(0, 1))[0], 0.6 * base, atol=1e-6 * np.abs(base).max())
    exposed = replace(plain, series=replace(plain.series, pre_exposure=np.full(3, 50.0)))
    ratio = np.abs(np.fft.rfft2(exposed.particle_images(1, slice(0, 1))[0])) / np.abs(np.fft.rfft2(base))
    # Grant and Grigorieff at 1 / (28 Å), in row ky = 0
    step = 1 / (plain.box * PIXEL)
    column = round(1 / 28 / step)
    k = column * step
    assert ratio[0, 0, column] == pytest.approx(np.exp(-0.5 * 50.0 / (0.245 * k**-1.665 + 2.81)), rel=1e-3)


def test_boxes_that_leave_the_image_are_cut() -> None:
    """A particle at the edge gives the part of the image that a larger detector would have seen there."""
    positions = np.array([[2.0, 50.0, 30.0], [120.0, 108.0, 20.0], [64.0, 3.0, 30.0], [-30.0, 50.0, 30.0]])
    small = options(tilt_shift=0.0)
    large = small.model_copy(update={"width_px": 256, "height_px": 224})
    inner = imager(point_model(), small, positions)
    offset = np.array([64.0, 56.0, 0.0])
    outer = imager(point_model(), large, positions + offset)
    assert inner.series.image_size == (128, 112)
    for f in range(5):
        whole = outer.image(f)[56:168, 64:192]
        assert np.abs(inner.image(f) - whole).max() <= 1e-5 * np.abs(whole).max()
        assert np.abs(whole).max() > 0


@pytest.mark.parametrize("defocus", [10000.0, 60000.0])
def test_the_imaging_box_holds_the_fringes(defocus: float) -> None:
    """A box of twice the size gives the same image, and next to nothing lies outside the smaller one.

    What differs is the ringing of the sharp limit at Nyquist, which no box holds: look below 0.9 Nyquist too.
    """
    given = options(defocus=defocus, dose=0.0, particle_diameter=120.0, beads=300)
    one = imager(load_model(given), given, np.array([[64.0, 56.0, 30.0]]))
    twice = replace(one, box=2 * one.box)
    image, corner = one.particle_images(2, slice(0, 1))
    larger, larger_corner = twice.particle_images(2, slice(0, 1))
    x, y = corner[0] - larger_corner[0]
    part = larger[0, y : y + one.box, x : x + one.box]
    assert np.linalg.norm(part - image[0]) <= 2e-2 * np.linalg.norm(image)
    k = np.fft.fftfreq(one.box) * 2
    used = np.hypot(k[:, None], k) < 0.9
    difference, spectrum = np.fft.fft2(part - image[0]), np.fft.fft2(image[0])
    assert np.linalg.norm(difference[used]) <= 3e-3 * np.linalg.norm(spectrum[used])
    assert np.sum(part.astype(float) ** 2) >= 0.999 * np.sum(larger.astype(float) ** 2)
    assert one.box == imaging_box(one.series, load_model(given).density.radius_angstrom, one.depth_px)


def test_white_noise() -> None:
    image = noise_image((96, 80), 1.7, 0.0, np.random.default_rng(1))
    assert image.shape == (80, 96)
    # 7680 normal numbers: standard deviation known to 0.8 %, mean to 0.02
    assert image.std() == pytest.approx(1.7, rel=0.04)
    assert abs(image.mean()) <= 0.1
    assert np.array_equal(image, noise_image((96, 80), 1.7, 0.0, np.random.default_rng(1)))


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_coloured_noise_has_the_power_and_the_slope_asked_for(exponent: float) -> None:
    rng = np.random.default_rng(2)
    images = np.stack([noise_image((128, 128), 2.0, exponent, rng) for _ in range(60)])
    assert np.sqrt(np.mean(images.astype(float) ** 2)) == pytest.approx(2.0, rel=0.05)
    k = np.fft.fftfreq(128) * 128
    radius = np.hypot(k[:, None], np.arange(65))
    power = np.mean(np.abs(np.fft.rfft2(images)) ** 2, axis=0)
    rings = np.array([power[(radius > r - 2) & (radius < r + 2)].mean() for r in (8, 16, 32, 60)])
    slope = np.polyfit(np.log([8, 16, 32, 60]), np.log(rings), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.08)
