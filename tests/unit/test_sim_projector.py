"""Projectors against direct sums, against maps, and against a rotation in real space."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.sim.density import GaussianDensity, VoxelDensity, sample_map
from tiltwise.sim.phantom import build_phantom
from tiltwise.sim.projector import GaussianProjector, Projector, SplineProjector

PIXEL = 4.0
ROTATIONS = euler_to_matrix([[20.0, 40.0, -60.0], [-130.0, 95.0, 10.0], [0.0, 0.0, 0.0]])
CENTRES = np.array([[14.3, 15.9], [13.0, 17.25], [15.5, 14.0]])


def two_kinds() -> GaussianDensity:
    rng = np.random.default_rng(3)
    return GaussianDensity(
        position_angstrom=rng.uniform(-20, 20, (60, 3)),
        weight=rng.uniform(0.5, 1.0, 60),
        kind=rng.integers(0, 3, 60),
        amplitude=np.array([[1.0, 2.0], [3.0, 0.5], [1.0, 1.0]]),
        bfactor_angstrom2=np.array([[90.0, 300.0], [150.0, 60.0], [200.0, 20.0]]),
    )


def direct(density: GaussianDensity | VoxelDensity, box: int) -> np.ndarray:
    """What the contract of `Projector.images` says, by direct summation."""
    kx, ky = np.meshgrid(np.arange(box // 2 + 1), np.fft.fftfreq(box) * box)
    plane = np.stack([kx, ky, np.zeros_like(kx)], axis=-1)
    images = []
    for rotation, centre in zip(ROTATIONS, CENTRES, strict=True):
        values = density.transform(plane @ rotation / (box * PIXEL)) / PIXEL**3
        phase = np.exp(-2j * np.pi / box * (kx * centre[0] + ky * centre[1]))
        images.append(np.where(np.hypot(kx, ky) < box / 2, values * phase, 0))
    return np.array(images)


@pytest.mark.parametrize("box", [28, 29])
def test_gaussian_projector_is_exact(box: int) -> None:
    density = two_kinds()
    images = GaussianProjector(density).images(ROTATIONS, CENTRES, box, PIXEL)
    expected = direct(density, box)
    # single precision: angles of up to a turn carry 1e-7
    assert np.linalg.norm(images - expected) <= 2e-6 * np.linalg.norm(expected)


def test_gaussian_projector_does_not_depend_on_the_blocks_of_the_products() -> None:
    """A number of scatterers that is no multiple of the block, and one below it."""
    for n in (7, 1000):
        density = build_phantom(60.0, 1000)
        few = GaussianDensity(
            density.position_angstrom[:n],
            density.weight[:n],
            density.kind[:n],
            density.amplitude,
            density.bfactor_angstrom2,
        )
        expected = direct(few, 28)
        images = GaussianProjector(few).images(ROTATIONS, CENTRES, 28, PIXEL)
        assert np.linalg.norm(images - expected) <= 2e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("box", [28, 29])
@pytest.mark.parametrize("kind", ["phantom", "noise"])
def test_spline_projector_errs_by_less_than_1e_4(kind: str, box: int) -> None:
    """`noise` fills the whole sphere of its map: the worst case for interpolation."""
    density: GaussianDensity | VoxelDensity
    if kind == "phantom":
        density = build_phantom(80.0, 400)
    else:
        density = VoxelDensity.create(np.random.default_rng(1).standard_normal((20, 20, 20)), PIXEL)
    images = SplineProjector(density, 0.5 / PIXEL).images(ROTATIONS, CENTRES, box, PIXEL)
    expected = direct(density, box)
    assert np.linalg.norm(images - expected) <= 1e-4 * np.linalg.norm(expected)


def test_spline_values_at_single_frequencies() -> None:
    density = build_phantom(120.0, 600)
    rng = np.random.default_rng(5)
    k = rng.standard_normal((800, 3))
    k *= rng.uniform(0, 0.125, (800, 1)) / np.linalg.norm(k, axis=1, keepdims=True)
    exact = density.transform(k)
    error = SplineProjector(density, 0.125).values(k) - exact
    assert np.linalg.norm(error) <= 1e-5 * np.linalg.norm(exact)
    assert np.abs(error).max() <= 1e-5 * np.abs(exact).max()


def test_a_map_has_no_signal_beyond_its_own_nyquist() -> None:
    density = VoxelDensity.create(np.random.default_rng(1).random((12, 12, 12)), 6.0)
    images = SplineProjector(density, 0.5 / 2.0).images(ROTATIONS, CENTRES, 30, 2.0)
    kx, ky = np.meshgrid(np.arange(16), np.fft.fftfreq(30) * 30)
    beyond = np.hypot(kx, ky) / 60.0 >= 1 / 12.0
    assert not images[:, beyond].any()
    assert images[:, ~beyond].any()


@pytest.mark.parametrize("box", [32, 33])
def test_unrotated_image_is_the_sum_of_the_map_over_z(box: int) -> None:
    density = build_phantom(90.0, 400)
    expected = np.fft.rfft2(sample_map(density, box, PIXEL).astype(np.float64).sum(axis=0))
    projectors: list[Projector] = [GaussianProjector(density), SplineProjector(density, 0.5 / PIXEL)]
    for projector in projectors:
        centre = np.full((1, 2), box // 2, float)
        image = projector.images(np.eye(3)[None], centre, box, PIXEL)[0]
        assert np.linalg.norm(image - expected) <= 2e-5 * np.linalg.norm(expected)


def test_projection_agrees_with_a_rotation_in_real_space() -> None:
    """The map is turned by A voxel by voxel: point x of the reference goes to A x."""
    from scipy.ndimage import affine_transform

    box, pixel = 60, 1.5  # well sampled, so that the spline in real space is good to a percent
    density = build_phantom(64.0, 300)
    reference = sample_map(density, box, pixel).astype(np.float64)
    rotation = ROTATIONS[0]
    backward = rotation.T[::-1, ::-1]  # axes z, y, x; output voxel -> input voxel
    centre = np.full(3, box // 2, float)
    turned = affine_transform(reference, backward, centre - backward @ centre, order=5)
    centres = np.full((1, 2), box // 2, float)
    image = np.fft.irfft2(GaussianProjector(density).images(rotation[None], centres, box, pixel)[0], s=(box, box))
    expected = turned.sum(axis=0)
    assert np.linalg.norm(image - expected) <= 1e-2 * np.linalg.norm(expected)
    wrong = np.fft.irfft2(GaussianProjector(density).images(rotation.T[None], centres, box, pixel)[0], s=(box, box))
    assert np.linalg.norm(wrong - expected) >= 0.3 * np.linalg.norm(expected)
