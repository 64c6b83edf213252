"""Deformation fields: values, gradients, what they leave to the pose, and where particles appear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.particles import tilt_series
from tiltwise.geometry.deformation import Deformation, DeformationModel
from tiltwise.geometry.projection import project_points

F64 = NDArray[np.float64]
SIZE = (400, 300)
MODELS = [
    DeformationModel("affine", (3, 3), SIZE),
    DeformationModel("fourier", (4, 5), SIZE),
    DeformationModel("spline", (3, 4), SIZE),
]
by_kind = pytest.mark.parametrize("model", MODELS, ids=[model.kind for model in MODELS])


def points(n: int = 60, seed: int = 1) -> F64:
    return np.random.default_rng(seed).uniform(0, 1, (n, 2)) * SIZE


def field(model: DeformationModel, at: F64, coefficients: F64) -> F64:
    """(n, 2) W of one image."""
    return Deformation(model, coefficients[None]).displacement(at[:, None])[:, 0]


@by_kind
def test_gradient_in_position(model: DeformationModel) -> None:
    rng = np.random.default_rng(2)
    one = Deformation(model, rng.normal(size=(1, model.n_coefficients)))
    at, h = points()[:, None], 1e-4
    found = one.at(at).jacobian
    for axis in (0, 1):
        step = h * np.eye(2)[axis]
        change = (one.displacement(at + step) - one.displacement(at - step)) / (2 * h) + np.eye(2)[axis]
        error = np.abs(found[..., axis] - change).max()
        assert error <= 1e-6 * np.abs(change).max()


@by_kind
def test_gradient_in_coefficients(model: DeformationModel) -> None:
    """Fields are linear in every coefficient, twists included: the derivative is the field of a unit coefficient."""
    at, pull = points(), np.random.default_rng(3).normal(size=(60, 2))
    value = model.values(at)
    found = model.coefficients(value.T @ pull)
    for number, unit in enumerate(np.eye(model.n_coefficients)):
        expected = float((field(model, at, unit) * pull).sum())
        assert found[number] == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_affine_field_is_relions() -> None:
    at = points()
    away = at - np.array(SIZE) / 2
    expected = np.stack([1e-3 * away[:, 0], 2e-3 * away[:, 0] - 3e-3 * away[:, 1]], axis=1)
    assert np.abs(field(MODELS[0], at, np.array([1e-3, 2e-3, -3e-3])) - expected).max() <= 1e-12


def test_order_of_spline_coefficients_is_relions() -> None:
    """((component x rows + row) x columns + column) x 4 + value, slope x, slope y, twist; slopes per cell."""
    model = MODELS[2]
    nx, ny = model.grid
    cell = np.array(SIZE) / (np.array(model.grid) - 1)
    for component, row, column in ((0, 1, 2), (1, 3, 0)):
        at, start = np.array([[column, row]]) * cell, ((component * ny + row) * nx + column) * 4
        unit = np.eye(model.n_coefficients)
        assert field(model, at, unit[start])[0, component] == pytest.approx(1.0)
        inwards = np.array([-1.0 if column else 1.0, -1.0 if row else 1.0])
        h = 1e-3
        near = at + h * inwards * cell
        for kind, size in ((1, h * inwards[0]), (2, h * inwards[1]), (3, h * h * inwards.prod())):
            assert field(model, near, unit[start + kind])[0, component] == pytest.approx(size, rel=5e-3)
            assert field(model, near, unit[start + kind])[0, 1 - component] == 0.0


def test_splines_contain_every_linear_map_and_stop_at_the_edge() -> None:
    model, at = MODELS[2], points()
    value = model.values(at)
    map_ = np.random.default_rng(4).normal(size=(2, 2))
    wanted = at @ map_ + 3.0
    fitted = np.linalg.lstsq(value, wanted, rcond=None)[0]
    assert np.abs(value @ fitted - wanted).max() <= 1e-8
    one = Deformation(model, model.coefficients(fitted)[None])
    edge, beyond = np.array([[[400.0, 120.0]]]), np.array([[[460.0, 120.0]]])
    assert np.allclose(one.displacement(edge), one.displacement(beyond))
    assert np.allclose(one.at(beyond).jacobian[..., 0], [1.0, 0.0])


def test_order_of_waves_is_relions() -> None:
    assert DeformationModel("fourier", (3, 3), SIZE).waves.tolist() == [[1, 0], [1, -2], [1, -1]]
    waves = DeformationModel("fourier", (4, 4), SIZE).waves.tolist()
    assert waves == [[1, 0], [2, 0], [0, 1], [1, 1], [2, 1], [1, -2], [2, -2], [1, -1], [2, -1]]
    model, at = DeformationModel("fourier", (4, 4), SIZE), points()
    unit = np.zeros(model.n_coefficients)
    unit[2 * (len(waves) + 3) + 1] = 1.0  # sine of the wave (1, 1) along y
    expected = np.sin(np.pi * (at[:, 0] / SIZE[0] + at[:, 1] / SIZE[1]))
    assert np.abs(field(model, at, unit)[:, 1] - expected).max() <= 1e-12


@by_kind
@pytest.mark.parametrize("magnification", [False, True])
def test_modes_are_what_no_pose_can_make(model: DeformationModel, magnification: bool) -> None:
    modes = model.pose_free_modes(magnification=magnification)
    x = y = (np.arange(72) + 0.5) / 72
    at = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2) * SIZE
    value = model.values(at)
    fields = np.einsum("nk,kim->nim", value, np.moveaxis(model.vectors(modes.T), 0, -1)).reshape(2 * len(at), -1)
    overlap = fields.T @ fields / len(at)
    assert (
        np.abs(overlap - np.eye(len(overlap))).max() <= 5e-2
    )  # one pixel, and orthogonal, but for the sum that stands for the integral
    expected = {"affine": 3, "fourier": model.n_coefficients, "spline": model.n_coefficients - 3}[model.kind]
    if magnification and model.kind != "fourier":
        expected -= 1
    assert modes.shape[1] == expected


def test_deformed_images_of_a_series() -> None:
    rng = np.random.default_rng(5)
    plain = tilt_series(7, 2.0)
    model = DeformationModel("spline", (3, 3), plain.image_size)
    deformation = Deformation(model, rng.normal(size=(7, model.n_coefficients)))
    series = replace(plain, deformation=deformation)
    at = rng.uniform(60, 140, (5, 3))
    straight = project_points(plain.projection, at)
    assert np.array_equal(plain.project(at), straight)
    found = series.project(at)
    assert np.array_equal(found[..., 2], straight[..., 2])  # the depth is not deformed
    assert np.allclose(found[..., :2], straight[..., :2] + deformation.displacement(straight[..., :2]))
    moving = np.repeat(at[:, None], 7, axis=1)
    assert np.allclose(series.project(moving), found)
    step = np.array([0.01, -0.02, 0.015])
    change = series.project((at + step)[:1])[0, :, :2] - found[0, :, :2]
    assert np.abs(series.image_axes(at[0]) @ step - change).max() <= 1e-4
    order = np.array([3, 1])
    assert np.array_equal(
        deformation.rows(order).displacement(straight[:, order, :2]),
        deformation.displacement(straight[..., :2])[:, order],
    )
