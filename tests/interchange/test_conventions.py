"""The table of conventions: documented as it is, and each entry against a position or matrix known otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiltwise.geometry.projection import projection_matrices_from_angles
from tiltwise.geometry.rotations import euler_to_matrix, rotation_x, rotation_y, rotation_z
from tiltwise.interchange import conventions
from tiltwise.interchange.conventions import (
    AV3_ANGLES,
    COORDINATES,
    DYNAMO_ANGLES,
    RELION5_ALIGNMENT,
    RELION_ANGLES,
    CoordinateConvention,
)

SIZE = (4001, 4000, 1401)
PIXEL = 1.35


@pytest.mark.parametrize("rows", ["coordinate_rows", "euler_rows", "alignment_rows"])
def test_the_documentation_has_the_table(rows: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/interchange.md").read_text().splitlines()
    assert [row for row in getattr(conventions, rows)() if row not in page] == []


def test_keys_are_unique() -> None:
    for entries in (COORDINATES, conventions.EULER, conventions.ALIGNMENTS):
        keys = [one.key for one in entries]
        assert len(set(keys)) == len(keys)


# What is stored for the voxel with 0-based index (10, 20, 30) of a tomogram of binning 4, and where that voxel is.
VOXEL = np.array([10.0, 20.0, 30.0])
KNOWN = {
    "RELION 4": (4 * VOXEL, 1.0, 4 * VOXEL + 1),  # binned coordinates are multiplied, then RELION-4 adds 1
    "RELION 5": ((4 * VOXEL - np.array(SIZE) / 2) * PIXEL, 1.0, 4 * VOXEL),
    "RELION 5 px": (4 * VOXEL, 1.0, 4 * VOXEL),
    "Warp 2, M": (VOXEL, 4.0, 4 * VOXEL),
    "M species": (4 * VOXEL * PIXEL, 1.0, 4 * VOXEL),
    "IMOD 4": (VOXEL + 0.5, 4.0, 4 * VOXEL + 1.5),
    "Dynamo 1": (VOXEL + 1, 4.0, 4 * VOXEL),
    "STOPGAP 0.7": (VOXEL + 1, 4.0, 4 * VOXEL),
    "AV3 .em": (VOXEL + 1, 4.0, 4 * VOXEL),
    "CSV px": (VOXEL, 4.0, 4 * VOXEL),
    "CSV Å": (4 * VOXEL * PIXEL, 1.0, 4 * VOXEL),
}


@pytest.mark.parametrize("convention", COORDINATES, ids=lambda one: one.key)
def test_where_a_voxel_is(convention: CoordinateConvention) -> None:
    stored, binning, position = KNOWN[convention.key]
    found = convention.to_position_px(
        np.array([stored]), binning=binning, tomogram_size=SIZE, pixel_size_angstrom=PIXEL
    )
    np.testing.assert_allclose(found, [position], rtol=0, atol=1e-9)


ANGLES = np.random.default_rng(3).uniform(-180, 180, (20, 3))


def test_relion_angles() -> None:
    np.testing.assert_allclose(RELION_ANGLES.to_matrix(ANGLES), euler_to_matrix(ANGLES), atol=1e-12)


def test_dynamo_angles() -> None:
    tdrot, tilt, narot = ANGLES.T
    relion = np.stack([narot - 90, tilt, tdrot + 90], axis=1)
    np.testing.assert_allclose(DYNAMO_ANGLES.to_matrix(ANGLES), euler_to_matrix(relion), atol=1e-12)


def test_av3_angles() -> None:
    phi, psi, theta = ANGLES.T
    relion = np.stack([90 - phi, theta, -90 - psi], axis=1)
    np.testing.assert_allclose(AV3_ANGLES.to_matrix(ANGLES), euler_to_matrix(relion), atol=1e-12)


def test_relion5_alignment() -> None:
    x, y, z = ANGLES.T
    shift = np.random.default_rng(4).normal(size=(20, 2)) * 30
    rotation = rotation_z(z) @ rotation_y(y) @ rotation_x(x)
    found = RELION5_ALIGNMENT.projection(rotation, shift / PIXEL, image_size=(3711, 3838), tomogram_size=SIZE)
    expected = projection_matrices_from_angles(x, y, z, shift[:, 0], shift[:, 1], PIXEL, SIZE, (3711, 3838))
    np.testing.assert_allclose(found, expected, atol=1e-9)
