"""Projection geometry against the worked numbers of RELION-4 and RELION-5 metadata."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.projection import (
    angles_from_projection_matrices,
    depth_offset_px,
    is_visible,
    particle_positions,
    project_points,
    projection_matrices_from_angles,
)
from tiltwise.geometry.rotations import rotation_z

ORIGIN = [2.70, -1.35, 4.05]
SUBTOMOGRAM = [30.0, 45.0, 60.0]
PIXEL = 1.35

RELION4 = np.array(
    [
        [0.076496178, -0.996637375, -0.029364132, 3570.789709234],
        [0.930441146, 0.081938498, -0.357162893, 218.304285622],
        [0.358367950, 0.0, 0.933580426, -1340.459997274],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
SIZE4, IMAGE = (3838, 3710, 1400), (3710, 3838)


def position4() -> NDArray[np.float64]:
    """The particle of the RELION-4 example; its file counts from 1."""
    return particle_positions(np.array([[1024.0, 2100.5, 650.25]]) + 1.0, [ORIGIN], [SUBTOMOGRAM], PIXEL)


def test_origin_is_rotated_by_the_subtomogram_before_it_is_subtracted() -> None:
    shift = -particle_positions(np.zeros((1, 3)), [ORIGIN], [SUBTOMOGRAM], PIXEL)[0]
    np.testing.assert_allclose(shift, [-2.241089835, 0.149630651, 2.992511824], rtol=0, atol=6e-10)
    np.testing.assert_allclose(position4()[0], [1027.241089835, 2101.350369349, 648.257488176], rtol=0, atol=6e-10)


def test_relion4_matrix_projects_as_worked_out() -> None:
    q = project_points(RELION4[None], position4())[0, 0]
    # the matrix has 9 decimals, positions are about 2000
    np.testing.assert_allclose(q, [1536.0498917, 1114.7396356, -367.1292119], rtol=0, atol=3e-6)
    depth = depth_offset_px(RELION4[None], position4(), SIZE4)[0, 0]
    assert abs(depth - -367.8836084) <= 2e-6
    assert abs(-1 * PIXEL * depth - 496.6428713) <= 3e-6


def test_relion4_matrix_becomes_relion5_angles() -> None:
    angles = angles_from_projection_matrices(RELION4[None], PIXEL, SIZE4, IMAGE)
    found = [a[0] for a in angles]
    expected = [0.0, -21.0, 85.30000055, -9.087320496, -17.816309966]
    # Angles: 9 decimals of the matrix are 6e-8 degrees.  Shifts: 2000 pixels of lever, and the matrix is not
    # an exact rotation (its .xf has 7 digits).
    np.testing.assert_allclose(found[:3], expected[:3], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[3:], expected[3:], rtol=0, atol=1e-5)
    again = projection_matrices_from_angles(*angles, PIXEL, SIZE4, IMAGE)
    centred = np.array([-1206.9, 332.775, -65.8125]) / PIXEL + np.divide(SIZE4, 2.0)
    position = particle_positions(centred[None], [ORIGIN], [SUBTOMOGRAM], PIXEL)
    np.testing.assert_allclose(
        project_points(again, position)[0, 0, :2], [1536.0498878, 1114.7396258], rtol=0, atol=3e-6
    )
    assert abs(-PIXEL * depth_offset_px(again, position, SIZE4)[0, 0] - 496.6428713) <= 3e-6


def test_relion5_example_from_a_real_series() -> None:
    size = (4000, 4000, 3000)
    matrix = projection_matrices_from_angles([0.0], [9.02], [85.267461], [-64.15332], [2.585551], PIXEL, size, IMAGE)
    expected = [
        [0.081484221, -0.996590692, 0.012934991, 3618.289477925],
        [0.984266527, 0.082504498, 0.156244715, -446.993901119],
        [-0.156779224, 0.0, 0.987633674, -1167.892064193],
        [0.0, 0.0, 0.0, 1.0],
    ]
    np.testing.assert_allclose(matrix[0], expected, rtol=0, atol=6e-10)
    centred = np.array([[812.25, -431.5, 155.0]]) / PIXEL + np.divide(size, 2.0)
    position = particle_positions(centred, [ORIGIN], [SUBTOMOGRAM], PIXEL)
    np.testing.assert_allclose(position[0], [2603.907756502, 1680.220739719, 1611.822302990], rtol=0, atol=6e-10)
    q = project_points(matrix, position)[0, 0, :2]
    np.testing.assert_allclose(q, [2176.823430123, 2506.409829664], rtol=0, atol=6e-10)
    depth = depth_offset_px(matrix, position, size)[0, 0]
    assert abs(depth - 15.759282698) <= 6e-10
    offset = -1 * PIXEL * depth
    assert abs(offset - -21.275031642) <= 6e-10
    # defocus of the file plus this offset
    np.testing.assert_allclose(
        np.array([39424.761719, 38845.8125]) + offset, [39403.486687, 38824.537468], rtol=0, atol=6e-7
    )


def test_relion5_centres_the_image_half_a_pixel_beyond_imod() -> None:
    specimen = np.array([[100.0, -50.0, 30.0]]) + np.divide(SIZE4, 2.0)
    relion5 = projection_matrices_from_angles(
        [0.0], [-21.0], [85.3], [-8.993774226], [-15.975783801], PIXEL, SIZE4, IMAGE
    )
    q = project_points(relion5, specimen)[0, 0, :2]
    np.testing.assert_allclose(q, [1904.9385, 1985.3984], rtol=0, atol=6e-5)
    np.testing.assert_allclose(q - 0.5, [1904.4385, 1984.8984], rtol=0, atol=6e-5)


# The series of the extraction example: XTilt, YTilt, ZRot, XShift, YShift.
EXTRACTION = np.array(
    [
        [-1.5, 0, 83.0, 1.036753, 2.464854],
        [0, -20, 83.3, 0.991311, -3.90947],
        [1.5, 20, 83.6, 2.716068, 1.339124],
        [-1.5, -40, 83.9, -1.61086, 1.743354],
        [0, 40, 84.2, 1.093717, 0.882397],
    ]
)


@pytest.mark.parametrize(
    ("centred", "origin", "subtomogram", "expected"),
    [
        (
            (30.4, -25.2, 11.0),
            (1.7, -2.3, 3.1),
            (25.0, 60.0, -35.0),
            {0: (108.95597, 103.20004, -9.5179), 3: (106.70383, 96.41355, -27.0624)},
        ),
        (
            (-41.0, 22.0, -17.0),
            (0.0, 0.0, 0.0),
            (0.0, 0.0, 0.0),
            {0: (83.32663, 70.19822, 17.5701), 3: (83.41315, 80.01648, 39.8137)},
        ),
    ],
)
def test_extraction_example(centred, origin, subtomogram, expected) -> None:  # type: ignore[no-untyped-def]
    size, pixel = (190, 180, 100), 2.0
    matrices = projection_matrices_from_angles(*EXTRACTION.T, pixel, size, (192, 176))
    coordinate = np.array([centred]) / pixel + np.divide(size, 2.0)
    position = particle_positions(coordinate, [origin], [subtomogram], pixel)
    q = project_points(matrices, position)[0]
    depth = depth_offset_px(matrices, position, size)[0]
    for tilt, (x, y, defocus) in expected.items():
        np.testing.assert_allclose(q[tilt, :2], (x, y), rtol=0, atol=6e-6)
        assert abs(-1 * pixel * depth[tilt] - defocus) <= 6e-5


def test_offsets_applied_give_the_coordinates_relion_rewrites() -> None:
    coordinate = np.array([[30.4, -25.2, 11.0]]) / 2.0
    position = particle_positions(coordinate, [(1.7, -2.3, 3.1)], [(25, 60, -35)], 2.0)[0] * 2.0
    np.testing.assert_allclose(position, [30.758522, -21.52718, 8.957490], rtol=0, atol=6e-6)


def test_angles_survive_the_round_trip() -> None:
    rng = np.random.default_rng(5)
    given = rng.uniform(-80, 80, (5, 40)) * [[0.1], [1.0], [2.0], [3.0], [3.0]]
    # odd sizes: the integer centre of the forward transform must be the one of the inverse
    size, image = (401, 399, 201), (383, 385)
    matrices = projection_matrices_from_angles(*given, 1.7, size, image)
    found = angles_from_projection_matrices(matrices, 1.7, size, image)
    np.testing.assert_allclose(found, given, rtol=0, atol=1e-11)


@pytest.mark.parametrize("y_tilt", [90.0, -90.0])
def test_side_views_keep_their_matrix(y_tilt: float) -> None:
    matrices = projection_matrices_from_angles([12.0], [y_tilt], [85.0], [1.0], [2.0], 1.0, (64, 64, 32), (60, 60))
    angles = angles_from_projection_matrices(matrices, 1.0, (64, 64, 32), (60, 60))
    assert angles.x_tilt_deg[0] == 0.0
    again = projection_matrices_from_angles(*angles, 1.0, (64, 64, 32), (60, 60))
    np.testing.assert_allclose(again, matrices, rtol=0, atol=1e-12)


def _matrix(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)[None].copy()
    matrix[0, :3, :3] = rotation
    return matrix


@pytest.mark.parametrize(
    ("rotation", "words"),
    [
        (np.diag([1.0, 1.0, -1.0]), "both IMOD flips"),
        (1.001 * rotation_z(85.0), "magnification"),
        (np.diag([1.0005, 1.0, 1.0]), "magnification"),
        (np.full((3, 3), np.nan), "cannot be written"),
    ],
)
def test_mirrors_and_magnification_have_no_relion5_angles(rotation: NDArray[np.float64], words: str) -> None:
    with pytest.raises(DataError, match=words):
        angles_from_projection_matrices(_matrix(rotation), 1.0, (64, 64, 32), (60, 60))


def test_visibility_is_strict() -> None:
    q = np.array([[10.0, 20.0], [10.001, 20.0], [89.999, 69.999], [90.0, 60.0], [50.0, 70.0]])
    assert is_visible(q, (100, 80), 10.0).tolist() == [False, True, True, False, False]


def test_depth_is_zero_at_half_the_size_even_where_it_is_odd() -> None:
    size = (401, 399, 201)
    matrices = projection_matrices_from_angles([3.0], [40.0], [85.0], [0.0], [0.0], 1.0, size, (400, 400))
    assert abs(depth_offset_px(matrices, np.array([[200.5, 199.5, 100.5]]), size)[0, 0]) <= 1e-12
    # while the rotation centre is at size // 2
    np.testing.assert_allclose(project_points(matrices, np.array([[200.0, 199.0, 100.0]]))[0, 0, :2], 200.0, atol=1e-12)


def test_projection_and_slice_use_the_same_rotation() -> None:
    """A point moved along the beam does not move in the image: row 3 of the rotation is the beam."""
    matrices = projection_matrices_from_angles([2.0], [30.0], [80.0], [0.0], [0.0], 1.0, (64, 64, 32), (60, 60))
    beam = matrices[0, 2, :3]
    start = np.array([[20.0, 30.0, 10.0]])
    moved = project_points(matrices, start + 7.0 * beam) - project_points(matrices, start)
    np.testing.assert_allclose(moved[0, 0], [0.0, 0.0, 7.0], rtol=0, atol=1e-12)
