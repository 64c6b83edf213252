"""Contrast scales, gains of shells, noise power, and slabs of ice."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.ctf import add_up, planted
from helpers.particles import tilt_series
from tiltwise.ctf.lambert import SlabEvidence, cost, fit_common, fit_slab, scales, tilt_frame
from tiltwise.ctf.shells import calibrate, log_likelihood, noise_power, parts_at, shell_sums
from tiltwise.spectral.disc import FourierDisc

SLAB_TILTS = 31


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_scales_are_unbiased_and_as_exact_as_they_say(alpha: float) -> None:
    """Half of the tilts have another contrast: the standard deviation is 1 / sqrt(H)."""
    scale = np.where(np.arange(80) % 2 == 0, 1.0, alpha)
    problem = planted(np.zeros((80, 3)), particles=40, snr=0.01, scale=scale)
    model = problem.model(defocus=False)
    fit = model.fit(problem.evidence.total()[0], measure_noise=True)
    # one common factor is not known
    found = fit.calibration.scale * scale.mean()
    score = (found - scale) / (fit.scale_sigma * scale.mean())
    assert abs(score[1::2].mean()) < 3 / np.sqrt(40)
    assert 0.75 <= score.std() <= 1.25


def test_gains_take_up_a_reference_with_wrong_amplitudes() -> None:
    """A reference twice too strong in some shells, which tilts use differently: scales stay right."""
    scale = np.linspace(1.2, 0.8, 20)
    problem = planted(np.zeros((20, 3)), particles=200, snr=0.05, scale=scale)
    disc, sums = problem.evidence.disc, problem.evidence.sums
    wrong = np.where(disc.shells < 12, 2.0, 1.0)
    sums[:, :, :3] *= wrong**2
    sums[:, :, 3:7] *= wrong
    # late tilts are damaged: they speak through low shells alone
    problem.evidence.amplitude *= np.exp(-np.linspace(0, 4, 20)[:, None] * (disc.shells / 31) ** 2)
    sums[:, :, 3:5] *= np.exp(-np.linspace(0, 4, 20)[:, None] * (disc.shells / 31) ** 2)[:, None]
    add_up(problem.evidence)
    fit = problem.model(defocus=False).fit(problem.evidence.total()[0], measure_noise=True)
    np.testing.assert_allclose(fit.calibration.scale, scale, atol=0.06)
    assert np.median(fit.calibration.gain[8:12]) == pytest.approx(0.5, abs=0.05)
    assert np.median(fit.calibration.gain[13:20]) == pytest.approx(1.0, abs=0.1)


def test_calibration_without_evidence() -> None:
    linear, quadratic = np.zeros((3, 5)), np.zeros((3, 5))
    assert np.isnan(calibrate(linear, quadratic).scale).all()
    linear[0], quadratic[0] = 40.0, 40.0
    found = calibrate(linear, quadratic)
    assert found.scale[0] == 1.0
    assert np.isnan(found.scale[1:]).all()
    assert np.isfinite(found.product).all()
    np.testing.assert_allclose(log_likelihood(linear, quadratic, found.product), [100.0, 0.0, 0.0], atol=1e-9)


def test_shell_sums_and_noise_power_of_white_and_coloured_noise() -> None:
    disc = FourierDisc.create(32)
    rng = np.random.default_rng(1)
    values = rng.random((2, len(disc)))
    np.testing.assert_allclose(shell_sums(values, disc), [np.bincount(disc.shells, row, 17) for row in values])
    # per tilt, not the mean of the series; coloured
    power = np.array([1.0, 4.0])[:, None] * np.exp(-0.05 * np.arange(17))
    images = 4000
    sums = np.zeros((2, 8, len(disc)))
    sums[:, 7] = rng.gamma(images, 1.0, (2, len(disc))) * power[:, disc.shells]
    counts = np.array([images, images])
    amplitude = np.ones((2, len(disc)))
    found = noise_power(sums, counts, parts_at(sums, amplitude), np.ones((2, 17)), disc, 0.8)
    # smoothed over three shells, and each of them known to 1 / sqrt(images)
    np.testing.assert_allclose(found[:, 1:-1], power[:, 1:-1] / 0.8, rtol=0.03)
    unseen = noise_power(0 * sums, 0 * counts, parts_at(sums, amplitude), np.ones((2, 17)), disc, 1.0)
    assert np.isinf(unseen).all()


def test_noise_power_does_not_hold_the_signal() -> None:
    problem = planted(np.zeros((4, 3)), particles=400, snr=1.0)
    model = problem.model(defocus=False)
    model.fit(problem.evidence.total()[0], measure_noise=True)
    np.testing.assert_allclose(model.noise[:, 2:30], 1.0, atol=0.05)


def views(thickness: float, degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Projections, true scales for a luminance of 1.3, and the normal."""
    projection = tilt_series(SLAB_TILTS, 2.0).projection
    all_views, first, second = tilt_frame(projection)
    parameters = np.array([np.log(1.3), thickness, np.radians(degrees)])
    normal = np.cos(parameters[2]) * first + np.sin(parameters[2]) * second
    return projection, scales(parameters, all_views, first, second)[0], normal


@pytest.mark.parametrize("thickness", [0.2, 0.45, 0.8])
@pytest.mark.parametrize("degrees", [-15.0, 0.0, 12.0])
@pytest.mark.parametrize("dose", [1.0, 3.0])
def test_slab_without_noise(thickness: float, degrees: float, dose: float) -> None:
    """Luminance, thickness and normal; the dose per tilt changes how much is known, and not what is found."""
    projection, true, normal = views(thickness, degrees)
    h = dose * np.linspace(1000, 200, SLAB_TILTS)
    slab = fit_slab(h * true, h, projection)
    assert slab is not None
    np.testing.assert_allclose(slab.scale, true, rtol=1e-6)
    assert slab.luminance == pytest.approx(1.3, rel=1e-5)
    assert slab.thickness == pytest.approx(thickness, abs=1e-5)
    assert np.degrees(np.arccos(min(1.0, abs(slab.normal @ normal)))) < 0.01


@pytest.mark.parametrize("doses", [(1.0,), (3.0,), (1.0, 3.0)])
def test_common_luminance_thickness_and_normals_without_noise(doses: tuple[float, ...]) -> None:
    """Eight series with their own slabs; luminance in proportion to the dose, 1 or 3 e/Å^2 per tilt, or either."""
    rng = np.random.default_rng(0)
    parts, truth = [], []
    for number in range(8):
        thickness, degrees = -np.log(rng.uniform(0.45, 0.8)), rng.uniform(-15, 15)
        projection, true, normal = views(thickness, degrees)
        dose = doses[number % len(doses)]
        h = dose * rng.uniform(300, 1000, SLAB_TILTS)
        h[number] = 0.0  # a tilt without evidence
        parts.append(SlabEvidence(h * dose * true, h, projection, dose))
        truth.append((dose * true, thickness, normal))
    for slab, (true, thickness, normal) in zip(fit_common(parts), truth, strict=True):
        assert slab is not None
        np.testing.assert_allclose(slab.scale, true, rtol=1e-6)
        assert slab.luminance == pytest.approx(1.3, rel=1e-6)
        assert slab.thickness == pytest.approx(thickness, abs=1e-5)
        assert np.degrees(np.arccos(min(1.0, abs(slab.normal @ normal)))) < 0.01


def test_a_common_luminance_helps_and_its_error_bars_cover() -> None:
    rng = np.random.default_rng(5)
    h = np.linspace(600, 150, SLAB_TILTS)
    slabs = [views(thickness, degrees) for thickness, degrees in ((0.3, 5.0), (0.5, -8.0), (0.7, 0.0))]
    inside: list[bool] = []
    errors: dict[str, list[float]] = {"common": [], "alone": []}
    for _ in range(40):
        parts = []
        for projection, true, _ in slabs:
            scale = true + rng.normal(size=SLAB_TILTS) / np.sqrt(h)
            parts.append(SlabEvidence(h * scale, h, projection, 1.0))
        common = fit_common(parts)
        alone = [fit_slab(part.g, part.h, part.projection) for part in parts]
        for kind, found in (("common", common), ("alone", alone)):
            errors[kind] += [one.thickness - t for one, t in zip(found, (0.3, 0.5, 0.7), strict=True) if one]
        sigma = [one.sigma[1] for one in common if one]
        inside += [abs(e) <= s for e, s in zip(errors["common"][-3:], sigma, strict=True)]
    assert np.std(errors["common"]) < np.std(errors["alone"])
    assert 0.55 <= np.mean(inside) <= 0.8
    assert fit_common([SlabEvidence(h[:3], h[:3], slabs[0][0][:3], 1.0)]) == [None]


def test_gradient_of_the_slab_against_differences() -> None:
    projection, true, _ = views(0.4, 5.0)
    frame = tilt_frame(projection)
    rng = np.random.default_rng(0)
    h = rng.uniform(10, 1000, SLAB_TILTS)
    g = h * true * rng.uniform(0.8, 1.2, SLAB_TILTS)
    # also normals that look away from some views, thin slabs and thick ones
    for parameters in ([0.1, 0.3, 0.2], [-1.0, 1e-6, -0.5], [0.5, 2.0, 2.6], [0.0, 0.7, 3.1]):
        x = np.array(parameters)
        steps = 1e-6 * np.eye(3)
        differences = [(cost(x + s, g, h, *frame)[0] - cost(x - s, g, h, *frame)[0]) / 2e-6 for s in steps]
        gradient = cost(x, g, h, *frame)[1]
        assert np.linalg.norm(gradient - differences) <= 1e-6 * max(np.linalg.norm(gradient), 1.0)


def test_likelihood_beats_the_printed_weights() -> None:
    """Eq. 22 as printed weights a tilt with H squared: the likelihood has the smaller variance."""
    projection, true, _ = views(0.4, 5.0)
    h = np.linspace(2000, 20, SLAB_TILTS)
    rng = np.random.default_rng(1)
    found: dict[str, list[float]] = {"likelihood": [], "printed": []}
    for _ in range(60):
        scale = true + rng.normal(size=SLAB_TILTS) / np.sqrt(h)
        for name, weight in (("likelihood", h), ("printed", h**2)):
            slab = fit_slab(weight * scale, weight, projection)
            assert slab is not None
            found[name].append(slab.thickness)
    assert np.var(found["likelihood"]) < np.var(found["printed"])


def test_slabs_are_never_negative_and_need_evidence() -> None:
    projection, true, _ = views(0.4, 0.0)
    h = np.full(SLAB_TILTS, 500.0)
    brighter = fit_slab(h / true, h, projection)  # contrast that grows with the path
    assert brighter is not None
    assert brighter.thickness == 0.0
    h[3:] = 0.0
    assert fit_slab(h * true, h, projection) is None
    h[:4] = 500.0
    few = fit_slab(np.where(h > 0, h * true, np.nan), h, projection)
    assert few is not None
    assert np.isfinite(few.scale).all()


def test_error_bars_of_slabs_cover() -> None:
    projection, true, _ = views(0.4, 5.0)
    h = np.linspace(3000, 800, SLAB_TILTS)
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(150):
        scale = true + rng.normal(size=SLAB_TILTS) / np.sqrt(h)
        slab = fit_slab(h * scale, h, projection)
        assert slab is not None
        inside.append(abs(slab.thickness - 0.4) <= slab.sigma[1])
    assert 0.58 <= np.mean(inside) <= 0.78
