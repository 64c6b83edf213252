"""Deformations in alignments without images: gradients, gauge, and recovery of what was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from helpers.alignments import error_ratio, moving, observed, planted, rms, specimen, whole_matrix
from tiltwise.geometry.deformation import Deformation, DeformationKind, DeformationModel
from tiltwise.motion.climb import climb, climb_lbfgs
from tiltwise.motion.fields import FieldBasis
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.normal import NormalEquations
from tiltwise.motion.objective import Free, gradient, value

F64 = NDArray[np.float64]
SIZE = (3600, 3600)
KINDS: list[tuple[DeformationKind, bool]] = [
    (kind, per_tilt) for kind in ("affine", "fourier", "spline") for per_tilt in (False, True)
]
every_kind = pytest.mark.parametrize(
    ("kind", "per_tilt"), KINDS, ids=[f"{k}-{'tilt' if p else 'series'}" for k, p in KINDS]
)


def basis(kind: DeformationKind, per_tilt: bool, sigma_px: float = 3.0) -> FieldBasis:
    grid = (4, 4) if kind == "fourier" else (3, 3)
    return FieldBasis.create(DeformationModel(kind, grid, SIZE), per_tilt=per_tilt, sigma_px=sigma_px)


def deformed(one: Specimen, kind: DeformationKind, per_tilt: bool, sigma_px: float = 3.0) -> Specimen:
    return replace(one, fields=basis(kind, per_tilt, sigma_px))


def planted_field(one: Specimen, rng: np.random.Generator, motion: bool = False) -> Alignment:
    alignment = planted(one, rng, motion=motion)
    return replace(alignment, amplitudes=rng.normal(size=alignment.amplitudes.shape))


@every_kind
@pytest.mark.parametrize("block", ["turn", "shift", "particle", "motion", "amplitudes"])
def test_gradient_of_every_block_with_a_deformation(kind: DeformationKind, per_tilt: bool, block: str) -> None:
    """Twists of splines included: they are among the amplitudes."""
    rng = np.random.default_rng(1)
    one = deformed(moving(specimen(7, 6, rng), 3000.0, 0.2), kind, per_tilt, 20.0)
    evidence = observed(one, planted_field(one, rng, motion=True), 0.7, rng, hidden=0.2)
    at = planted_field(one, rng, motion=True)
    found = gradient(one, evidence, at)
    steps = [np.zeros((6, 5)), np.zeros((7, 3)), np.zeros_like(at.coefficients), np.zeros_like(at.amplitudes)]
    part = {"turn": 0, "shift": 0, "particle": 1, "motion": 2, "amplitudes": 3}[block]
    direction = rng.normal(size=steps[part].shape)
    if part == 0:
        direction *= np.array([1e-3] * 3 + [0.0] * 2) if block == "turn" else np.array([0.0] * 3 + [1.0] * 2)
    parts = (found.tilt, found.particle, found.coefficients, found.amplitudes)
    analytic = float((direction * parts[part]).sum())
    h = 1e-4
    steps[part] = h * direction
    plus = value(one, evidence, at.moved(*steps))
    steps[part] = -h * direction
    minus = value(one, evidence, at.moved(*steps))
    assert analytic == pytest.approx((plus - minus) / (2 * h), rel=1e-6)


@every_kind
def test_curvature_with_a_deformation_is_that_of_the_gradient(kind: DeformationKind, per_tilt: bool) -> None:
    rng = np.random.default_rng(2)
    one = deformed(moving(specimen(6, 5, rng), 3000.0, 0.2), kind, per_tilt, 20.0)
    start = replace(Alignment.none(one), amplitudes=rng.normal(size=Alignment.none(one).amplitudes.shape))
    evidence = observed(one, start, 1e-9, rng, hidden=0.2)
    evidence = replace(
        evidence, information=np.tile(np.array([[1.0, 0.3], [0.3, 2.0]]), (len(evidence.particle), 1, 1))
    )
    matrix = whole_matrix(NormalEquations.of(one, evidence, start))
    sizes = np.cumsum([25, start.coefficients.size, start.amplitudes.size])
    unit = np.concatenate([np.tile([1e-4] * 3 + [0.1] * 2, 5), np.full(len(matrix) - 25, 0.1)])
    step = rng.normal(size=len(matrix)) * unit
    tilt, modes, fields, particle = np.split(step, sizes)
    h = 1e-4
    parts = (tilt.reshape(5, 5), particle.reshape(6, 3), modes.reshape(start.coefficients.shape))
    moved = start.moved(*(h * part for part in (*parts, fields.reshape(start.amplitudes.shape))))
    found = gradient(one, evidence, moved)
    data = found.coefficients + moved.coefficients, found.amplitudes + moved.amplitudes  # without the priors
    change = -np.concatenate([part.ravel() for part in (found.tilt, *data, found.particle)]) / h
    expected = matrix @ step
    assert np.linalg.norm(change - expected) <= 1e-4 * np.linalg.norm(expected)


def null_directions(one: Specimen, at: Alignment) -> int:
    """Of the likelihood, whatever the priors say."""
    evidence = observed(one, at, 1.0, np.random.default_rng(0))
    matrix = whole_matrix(NormalEquations.of(one, evidence, at))
    scale = 1.0 / np.sqrt(np.diagonal(matrix))
    singular = np.linalg.svd(matrix * scale * scale[:, None], compute_uv=False)
    count = int((singular < 1e-9 * singular[0]).sum())
    assert singular[-count - 1] > 1e-7 * singular[0]
    return count


def wobbly(rng: np.random.Generator) -> Specimen:
    """Tilts about axes that differ by some degrees: nothing but the rigid freedoms is left; no particle at the edge."""
    one = specimen(60, 21, rng)
    one = replace(one, position_px=one.centre_px + 0.75 * (one.position_px - one.centre_px))
    rotation = Rotation.from_euler("xz", rng.normal(size=(21, 2)) * 6.0, degrees=True).as_matrix() @ one.rotation
    offset = one.centre_px - rotation @ one.centre_px
    cut = np.einsum("fij,pj->pfi", rotation[:, :2], one.position_px) + offset[:, :2]
    return replace(one, rotation=rotation, offset_px=offset, cut_px=cut)


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_series_field_with_magnification_has_exactly_seven_null_directions(kind: DeformationKind) -> None:
    rng = np.random.default_rng(3)
    one = wobbly(rng)
    assert null_directions(one, Alignment.none(one)) == 6
    without = basis(kind, False)
    modes = without.model.pose_free_modes(magnification=False)  # what fits leave out is in
    assert modes.shape[1] == without.modes.shape[1] + 1
    free = replace(one, fields=replace(without, modes=modes))
    assert null_directions(free, Alignment.none(free)) == 7
    # and without it there are the six rigid ones
    fitted = replace(one, fields=without)
    assert null_directions(fitted, Alignment.none(fitted)) == 6


def test_waves_do_not_magnify_exactly() -> None:
    one = wobbly(np.random.default_rng(3))
    free = replace(one, fields=basis("fourier", False))
    assert null_directions(free, Alignment.none(free)) == 6


def test_one_axis_cannot_tell_a_stretch_along_it_and_affine_tilts_no_strain_at_all() -> None:
    """Known limits of the geometry, not of the fit: here the priors decide."""
    one = specimen(60, 21, np.random.default_rng(3))
    stretched = replace(one, fields=basis("affine", False))
    assert null_directions(stretched, Alignment.none(stretched)) == 7
    each = replace(wobbly(np.random.default_rng(3)), fields=basis("affine", True))
    assert null_directions(each, Alignment.none(each)) == 12


def field_error(one: Specimen, found: Alignment, truth: Deformation) -> float:
    """Root mean square difference of two deformations over the image, px, without what cannot be known.

    That is what the pose of a tilt makes, and in all tilts together magnification and stretching along the axis.
    """
    axis = (np.arange(20) + 0.5) / 20
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 2) * SIZE
    points = np.broadcast_to(points, (400, one.n_tilts, 2))
    deformation = found.deformation(one)
    assert deformation is not None
    away = deformation.displacement(points) - truth.displacement(points)
    x, y = (points[:, 0] - np.array(SIZE) / 2).T
    zero, flat = np.zeros_like(x), np.ones_like(x)
    unknown = [(flat, zero), (zero, flat), (-y, x), (x, y), (zero, y)]
    design = np.array([np.stack(part, axis=-1).ravel() for part in unknown]).T
    flat_away = np.moveaxis(away, 1, 0).reshape(one.n_tilts, -1).T
    left = flat_away - design @ np.linalg.lstsq(design, flat_away, rcond=None)[0]
    return float(np.sqrt((left**2).mean() * 2.0))


def noise_floor(particles: int, tilts: int, fields: int, sigma: float) -> float:
    """Error of predicted positions by least squares, per axis."""
    return sigma * float(np.sqrt((3 * particles + 5 * tilts + fields) / (2 * particles * tilts)))


def planted_against(truth: Deformation, per_tilt: bool, sigma: float, seed: int) -> tuple[float, float, float]:
    """What 300 particles say of a deformation that shows in their images.

    Error of the field if positions are known (else the specimen can imitate much of a field that all tilts share), and
    errors of predicted positions, per axis, from fits of everything with and without a deformation.
    """
    rng, tilts = np.random.default_rng(seed), len(truth.coefficients)
    plain = specimen(300, tilts, rng)
    known = replace(plain, given=truth)
    where = planted(known, rng)
    evidence = observed(known, where, sigma, rng)
    one = replace(plain, fields=basis(truth.model.kind, per_tilt, 2.0), position_sigma_px=20.0)
    found = climb(one, evidence, Alignment.none(one)).alignment
    rigid = climb(plain, evidence, Alignment.none(plain)).alignment
    start = replace(Alignment.none(one), displacement_px=where.displacement_px)
    alone = climb(one, evidence, start, Free(positions=False)).alignment
    return field_error(one, alone, truth), rms(one, found, known, where), rms(plain, rigid, known, where)


def test_planted_anisotropic_magnification_is_found() -> None:
    """0.1 %, at 35 degrees to the axis of tilt; positions absorb nearly all of what it does to the images."""
    model = DeformationModel("affine", (3, 3), SIZE)
    c, s = np.cos(np.radians(70.0)), np.sin(np.radians(70.0))
    truth = Deformation(model, np.tile([5e-4 * c, 1e-3 * s, -5e-4 * c], (21, 1)))
    field, error, without = planted_against(truth, False, 1.0, 4)
    assert field < 0.2
    assert error <= 1.1 * noise_floor(300, 21, 2, 1.0)
    assert error < without


def bump(tilts: int, heights_px: F64) -> Deformation:
    """In the middle of the image, along x."""
    model = DeformationModel("spline", (3, 3), SIZE)
    coefficients = np.zeros((tilts, model.n_coefficients))
    coefficients[:, 4 * 4] = heights_px
    return Deformation(model, coefficients)


def test_planted_spline_bump_is_found() -> None:
    truth = bump(31, np.full(31, 3.0))
    field, error, without = planted_against(truth, False, 1.0, 5)
    assert field < 0.2
    assert error <= 1.1 * noise_floor(300, 31, 68, 1.0)
    assert without > 1.1 * error


def test_planted_bumps_of_single_tilts_are_found() -> None:
    """As large as 3 px, with either sign: positions cannot absorb them."""
    truth = bump(9, 3.0 * np.cos(np.arange(9.0)))
    field, error, without = planted_against(truth, True, 0.5, 6)
    assert field < 0.5  # 69 numbers of every tilt from 300 particles
    assert error <= 1.1 * noise_floor(300, 9, 69 * 9, 0.5)
    assert without > 1.6 * error


@every_kind
def test_methods_agree_on_a_deformation(kind: DeformationKind, per_tilt: bool) -> None:
    rng = np.random.default_rng(6)
    one = replace(deformed(specimen(30, 7, rng), kind, per_tilt), position_sigma_px=10.0)
    evidence = observed(one, planted_field(one, rng), 0.5, rng)
    newton = climb(one, evidence, Alignment.none(one))
    quasi = climb_lbfgs(one, evidence, Alignment.none(one), steps=3000)
    assert quasi.value == pytest.approx(newton.value, abs=0.3)


def test_error_bars_with_a_deformation_cover_predicted_positions() -> None:
    rng = np.random.default_rng(7)
    one = replace(deformed(moving(specimen(20, 9, rng), 3000.0, 0.2), "spline", True), position_sigma_px=1.0)
    truths = (planted_field(one, rng, motion=True) for _ in range(4))
    assert 0.8 <= error_ratio(one, truths, rng) <= 1.25


@every_kind
def test_amplitudes_of_a_deformation_are_those_it_was_made_of(kind: DeformationKind, per_tilt: bool) -> None:
    rng = np.random.default_rng(8)
    one = basis(kind, per_tilt)
    amplitudes = rng.normal(size=one.shape(5))
    assert np.abs(one.amplitudes(one.deformation(amplitudes, 5)) - amplitudes).max() <= 1e-6


def test_expected_displacement_is_the_width_of_the_prior() -> None:
    rng = np.random.default_rng(9)
    one = basis("spline", True, 3.0)
    axis = (np.arange(20) + 0.5) / 20
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 2) * SIZE
    moved = one.deformation(rng.normal(size=one.shape(200)), 200).displacement(np.broadcast_to(points, (400, 200, 2)))
    assert np.sqrt((moved**2).sum(axis=2).mean()) == pytest.approx(3.0, rel=0.1)
