"""FSC by direction and against a model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from helpers.half_maps import BOX, PIXEL, half_maps, particle
from tiltwise.errors import DataError, ShapeError
from tiltwise.io.mrc import write_map
from tiltwise.post.directional import cone_axes, directional_fsc
from tiltwise.post.model import model_map
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import soft_sphere
from tiltwise.spectral.shells import radii

WIDE = soft_sphere(BOX, 23.0, 5.0)


def test_axes_are_one_end_of_each() -> None:
    axes = cone_axes()
    assert axes.shape == (96, 3)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1.0)
    # No axis is the opposite of another, and any direction is near one.
    assert (axes @ axes.T).min() > -1 + 1e-6
    random = np.random.default_rng(1).normal(size=(500, 3))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    assert np.degrees(np.arccos(np.abs(random @ axes.T).max(axis=1))).max() < 11.0


def test_maps_that_are_equally_good_all_around() -> None:
    rng = np.random.default_rng(4)
    signal = rng.normal(size=(BOX,) * 3)
    first, second = (signal + rng.normal(size=signal.shape) for _ in range(2))
    found = directional_fsc(first, second, WIDE, PIXEL, 20)
    assert found.area_ratio > 0.8
    # With 1 : 1 of signal and noise the FSC is 0.5 along every axis.
    np.testing.assert_allclose(found.curves[:, 12:].mean(axis=1), 0.5, atol=0.12)


@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.6, 0.0, 0.8)])
def test_planted_missing_cone_is_seen(axis: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(4)
    full = np.fft.fftfreq(BOX, 1.0 / BOX)
    z, y, x = np.meshgrid(full, full, np.arange(BOX // 2 + 1), indexing="ij")
    along = np.abs(axis[0] * x + axis[1] * y + axis[2] * z) / np.maximum(radii(BOX, 3), 1e-9)
    spectrum = rfft3(rng.normal(size=(BOX,) * 3))
    spectrum[along > np.cos(np.radians(35.0))] = 0.0
    signal = irfft3(spectrum, BOX)
    first, second = (signal + 0.5 * rng.normal(size=signal.shape) for _ in range(2))
    found = directional_fsc(first, second, WIDE, PIXEL, 20)
    assert found.area_ratio < 0.5
    assert abs(float(found.axes[found.worst] @ axis)) > np.cos(np.radians(20.0))
    assert abs(float(found.axes[found.best] @ axis)) < np.cos(np.radians(35.0))
    assert found.resolution_angstrom.max() > 1.5 * found.resolution_angstrom.min()


def test_model_that_is_a_map(tmp_path: Path) -> None:
    write_map(tmp_path / "model.mrc", particle(), PIXEL)
    np.testing.assert_array_equal(model_map(tmp_path / "model.mrc", 0.0, BOX, PIXEL), particle())
    with pytest.raises(ShapeError, match="model map"):
        model_map(tmp_path / "model.mrc", 0.0, BOX + 2, PIXEL)


PDB = "".join(
    f"ATOM  {i:5d}  CA  GLY A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           C\n"
    for i, (x, y, z) in enumerate(
        np.random.default_rng(3).uniform(-30.0, 30.0, (60, 3)) + BOX // 2 * PIXEL + np.array([6.0, -4.0, 2.0]), 1
    )
)


@pytest.mark.skipif(importlib.util.find_spec("gemmi") is None, reason="needs gemmi (extra `models`)")
def test_atoms_stay_where_they_were_fitted(tmp_path: Path) -> None:
    path = tmp_path / "model.pdb"
    path.write_text(PDB + "END\n")
    density = model_map(path, 300.0, BOX, PIXEL)
    places = np.array([[float(line[a : a + 8]) for a in (30, 38, 46)] for line in PDB.splitlines()])
    voxels = np.rint(places / PIXEL).astype(int)
    # Density at the atoms is far above the average: coordinates start at the first voxel.
    assert density[voxels[:, 2], voxels[:, 1], voxels[:, 0]].min() > 5 * density.mean()
    noise = half_maps(0.2)[0] - particle()
    assert fsc(density / density.max() + 0.1 * noise, density)[1:10].min() > 0.9
    far = tmp_path / "far.pdb"
    far.write_text(PDB[:30] + f"{500:8.3f}" + PDB[38:])
    with pytest.raises(DataError, match="does not lie inside the map"):
        model_map(far, 300.0, BOX, PIXEL)
