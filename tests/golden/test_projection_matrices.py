"""Five real tilt series whose files hold both RELION-4 matrices and RELION-5 angles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from tiltwise.geometry.projection import angles_from_projection_matrices, projection_matrices_from_angles

SIZE, IMAGE, PIXEL = (4000, 4000, 3000), (3710, 3838), 1.35
SERIES = ["220728_TS_01", "220728_TS_03", "220728_TS_43", "220728_TS_45", "220728_TS_54"]
ANGLES = ["rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]

# The shipped matrices are single precision (their P P^T deviates from 1 by 1.3e-7) and the angles and shifts
# have 5 or 6 decimals: 1.2e-7 in rotation and, at 2000 pixels of lever, 3.7e-4 pixel remain.
ROTATION, TRANSLATION_PX = 1e-6, 1e-3


def read(path: Path) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    table = starfile.read(path)
    rows = [
        np.array([np.fromstring(str(text).strip("[]"), sep=",") for text in table[f"rlnTomoProj{axis}"]])
        for axis in "XYZW"
    ]
    return [table[name].to_numpy(dtype=np.float64) for name in ANGLES], np.stack(rows, axis=1)


@pytest.mark.parametrize("name", SERIES)
def test_angles_give_the_matrices(shared_data: Path, name: str) -> None:
    angles, matrices = read(shared_data / "data/relion_projection_matrices/tilt_series" / f"{name}.star")
    found = projection_matrices_from_angles(*angles, PIXEL, SIZE, IMAGE)
    assert found.shape == matrices.shape == (41, 4, 4)
    assert np.abs(found - matrices)[:, :3, :3].max() <= ROTATION
    assert np.abs(found - matrices)[:, :3, 3].max() <= TRANSLATION_PX


@pytest.mark.parametrize("name", SERIES)
def test_matrices_give_the_angles(shared_data: Path, name: str) -> None:
    angles, matrices = read(shared_data / "data/relion_projection_matrices/tilt_series" / f"{name}.star")
    found = angles_from_projection_matrices(matrices, PIXEL, SIZE, IMAGE)
    # 1.3e-7 of single precision is 7e-6 degrees; shifts add their own 5 decimals
    np.testing.assert_allclose(found[:3], angles[:3], rtol=0, atol=2e-5)
    np.testing.assert_allclose(found[3:], angles[3:], rtol=0, atol=PIXEL * TRANSLATION_PX)
    again = projection_matrices_from_angles(*found, PIXEL, SIZE, IMAGE)
    assert np.abs(again - matrices)[:, :3, :3].max() <= ROTATION
    assert np.abs(again - matrices)[:, :2, 3].max() <= TRANSLATION_PX
