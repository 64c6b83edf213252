"""Defocus and astigmatism from condensed evidence: planted errors, Cramér-Rao bounds, priors."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.ctf import DEFOCUS, add_up, changes, planted
from tiltwise.ctf.astigmatism import defocus_terms, with_defocus
from tiltwise.ctf.fit import defocus_grid, local_maxima
from tiltwise.ctf.held_out import compare
from tiltwise.ctf.prior import drawn, learned_width, scatter

WAVELENGTH = 0.0196875


@pytest.mark.parametrize("error", [2000.0, -2000.0, 2900.0])
def test_planted_defocus_comes_back(error: float) -> None:
    """Also near the end of the search, where the CTFs of neighbouring minima nearly agree."""
    change = np.array([[error, 0.0, 0.0], [-0.3 * error, 0.0, 0.0]])
    problem = planted(change, particles=150)
    fit = problem.model().fit(problem.evidence.total()[0], measure_noise=True).tilts
    assert fit.known.all()
    difference = np.abs(fit.change - change)
    assert (difference <= np.maximum(4 * fit.sigma, 5.0)).all()
    assert (fit.sigma[:, 0] < 30).all()


def test_components_in_the_printed_order_find_wrong_minima() -> None:
    """A negative test of the harness: Eq. 25 as printed has (cos, sin) for (sin, cos)."""
    problem = planted(np.array([[2000.0, 0.0, 0.0]]), particles=150)
    sums = problem.evidence.sums
    sums[:, :, [0, 2]] = sums[:, :, [2, 0]]
    sums[:, :, [3, 4]] = sums[:, :, [4, 3]]
    add_up(problem.evidence)
    fit = problem.model().fit(problem.evidence.total()[0], measure_noise=True).tilts
    assert abs(fit.change[0, 0] - 2000.0) > 500.0


def test_astigmatism_in_relions_terms() -> None:
    """400 Å at 37 degrees: U is the larger defocus, at the angle from x towards y."""
    angle = np.radians(2 * 37.0)
    change = np.array([[0.0, 200.0 * np.cos(angle), 200.0 * np.sin(angle)]])
    problem = planted(change, particles=200)
    fit = problem.model().fit(problem.evidence.total()[0], measure_noise=True).tilts
    new = with_defocus(problem.series, defocus_terms(problem.series) + fit.change, fit.known)
    sigma = float(fit.sigma[0].max())
    assert abs(new.defocus_u_angstrom[0] - (DEFOCUS + 200)) <= 4 * np.sqrt(2) * sigma
    assert abs(new.defocus_v_angstrom[0] - (DEFOCUS - 200)) <= 4 * np.sqrt(2) * sigma
    assert abs(np.radians(new.defocus_angle_deg[0] - 37.0)) <= 4 * sigma / 400.0


def test_terms_and_columns_are_the_same_matrix() -> None:
    problem = planted(np.zeros((5, 3)), particles=2)
    terms = np.random.default_rng(3).normal(size=(5, 3)) * 500 + [20000, 0, 0]
    new = with_defocus(problem.series, terms, np.array([True, True, False, True, True]))
    np.testing.assert_allclose(np.delete(defocus_terms(new), 2, 0), np.delete(terms, 2, 0), atol=1e-9)
    assert new.defocus_u_angstrom[2] == problem.series.defocus_u_angstrom[2]
    assert (new.defocus_u_angstrom >= new.defocus_v_angstrom).all()


@pytest.mark.parametrize(("particles", "depth"), [(1, 0.0), (10, 0.0)])
def test_few_particles_of_one_depth(particles: int, depth: float) -> None:
    """The matrix of every pixel is singular: nothing is divided by its determinant, no pixel is dropped."""
    change = changes(40, 300.0)
    problem = planted(change, particles=particles, depth=depth, snr=1.0, blocks=1)
    matrices = problem.evidence.sums[0, :, :3]
    assert np.abs(matrices[:, 0] * matrices[:, 2] - matrices[:, 1] ** 2).max() <= 1e-6 * matrices.max() ** 2 or (
        particles > 1
    )
    fit = problem.model().fit(problem.evidence.total()[0], measure_noise=True).tilts
    score = ((fit.change - change) / fit.sigma)[fit.known]
    assert fit.known.mean() > 0.9
    assert abs(score[:, 0].mean()) < 4 / np.sqrt(len(score)) * max(1.0, score[:, 0].std())


def test_errors_reach_the_cramer_rao_bound_and_intervals_cover() -> None:
    """With the true slices: rms at most 1.3 times the bound; the intervals hold what they promise."""
    change = changes(120, 400.0, astigmatism=150.0)
    problem = planted(change, particles=40, snr=0.03)
    model = problem.model()
    fit = model.fit(problem.evidence.total()[0], measure_noise=True)
    assert fit.tilts.known.all()
    difference = fit.tilts.change - change
    # Fisher information of every parameter from the noise-free model
    r00, r01, r11 = np.moveaxis(problem.evidence.sums[:, :, :3].sum(axis=0), 1, 0)
    c, s = model.wave(change)
    steepness = (r00 * s * s - 2 * r01 * s * c + r11 * c * c) * problem.evidence.amplitude**2 * model.for_phases
    bound = 1.0 / np.sqrt(2.0 * np.einsum("fk,pk->fp", steepness, model.basis[:3] ** 2))
    ratio = np.sqrt(np.mean((difference / bound) ** 2, axis=0))
    assert (ratio <= 1.3).all(), ratio
    score = np.abs(difference / fit.tilts.sigma)
    assert 0.60 <= np.mean(score <= 1.0) <= 0.76
    assert 0.91 <= np.mean(score <= 1.96) <= 0.98


def test_phase_shifts_are_found_with_their_defoci() -> None:
    """A phase plate that the metadata do not know, which charges from tilt to tilt."""
    rng = np.random.default_rng(4)
    change, shift = changes(12, 400.0), 70.0 + 8.0 * rng.normal(size=12)
    problem = planted(change, particles=100, snr=0.05, even=-np.radians(shift)[:, None], blocks=10)
    model = problem.model(phase_shift=True)
    fit = model.fit(problem.evidence.total()[0], measure_noise=True)
    assert fit.tilts.known.all()
    score = (fit.tilts.change - np.column_stack([change, shift])) / fit.tilts.sigma
    assert (np.abs(score) < 4).all()
    assert np.sqrt(np.mean(score**2)) < 1.3
    assert (fit.tilts.sigma[:, 3] < 10).all()
    found = compare(model, 2)
    assert found.phase_shift is not None
    assert found.phase_shift.improved
    assert found.defocus is not None
    assert found.defocus.improved
    # what is learned of the scatter draws tilts together
    learned = problem.model(phase_shift=True, sigma_phase_shift=None).fit(problem.evidence.total()[0])
    assert 2.0 < learned.widths[2] < 20.0


def test_phase_shifts_that_are_not_there_are_not_found() -> None:
    for seed in range(4):
        problem = planted(changes(5, 300.0, seed), particles=60, snr=0.05, blocks=10, seed=seed)
        model = problem.model(phase_shift=True)
        fit = model.fit(problem.evidence.total()[0], measure_noise=True).tilts
        assert (np.abs(fit.change[:, 3]) < 4 * fit.sigma[:, 3]).all()
        found = compare(model, 2)
        assert found.phase_shift is not None
        assert not found.phase_shift.improved
        assert found.defocus is not None
        assert found.defocus.improved


def test_grid_holds_ends_and_zero_and_resolves_the_ctf() -> None:
    grid = defocus_grid(WAVELENGTH, 1 / 5.0, -3000.0, 2500.0)
    assert grid[0] == -3000.0
    assert grid[-1] == 2500.0
    assert 0.0 in grid
    # a quarter of a period of the CTF at the highest frequency, or finer
    assert np.diff(grid).max() <= 0.25 * 2.0 / (WAVELENGTH / 25.0)


def test_maxima_of_a_grid() -> None:
    assert local_maxima(np.array([3.0, 1.0, 2.0, 5.0, 4.0, 4.5]), 2).tolist() == [3, 5]
    assert local_maxima(np.array([1.0]), 3).tolist() == [0]


def test_prior_alone_gives_its_mean_and_data_shrink_as_they_should() -> None:
    change = np.array([[150.0, 0.0, 0.0], [-150.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    problem = planted(change, particles=60)
    sums = problem.evidence.total()[0]
    free = problem.model().fit(sums, measure_noise=True).tilts
    width = 40.0
    tied = problem.model(sigma_defocus=width).fit(sums, measure_noise=True).tilts
    centre = scatter(free.change[:, 0], free.sigma[:, 0] ** 2, width).centre
    share = width**2 / (width**2 + free.sigma[:, 0] ** 2)
    # the surface is not quite a parabola over tens of Å
    np.testing.assert_allclose(tied.change[:, 0], centre + share * (free.change[:, 0] - centre), atol=0.1 * width)
    # without evidence about it, a tilt stays: it is marked, and never NaN
    sums[1] = 0.0
    blind = problem.model(sigma_defocus=width).fit(sums).tilts
    assert blind.known.tolist() == [True, False, True]
    assert (blind.change[1] == 0).all()
    assert np.isfinite(blind.change).all()


def test_learned_scatter_helps_tilts_that_say_little() -> None:
    """A common error and a scatter of 100 Å; the last tilts have little signal."""
    rng = np.random.default_rng(8)
    change = np.zeros((24, 3))
    change[:, 0] = -1500.0 + 100.0 * rng.normal(size=24)
    scale = np.where(np.arange(24) < 12, 1.0, 0.15)
    problem = planted(change, particles=60, scale=scale)
    sums = problem.evidence.total()[0]
    errors = {}
    for name, width in (("free", float("inf")), ("learned", None)):
        fit = problem.model(sigma_defocus=width).fit(sums, measure_noise=True)
        errors[name] = fit.tilts.change[:, 0] - change[:, 0]
    assert 50.0 <= fit.widths[0] <= 200.0  # half of the tilts tell

    def rms(part: slice, name: str) -> float:
        return float(np.sqrt(np.mean(errors[name][part] ** 2)))

    assert rms(slice(12, None), "learned") < 0.8 * rms(slice(12, None), "free")
    assert rms(slice(0, 12), "learned") <= 1.1 * rms(slice(0, 12), "free")


def test_learned_width_of_known_scatter() -> None:
    rng = np.random.default_rng(2)
    variances = rng.uniform(10, 50, 400) ** 2
    values = 700.0 + rng.normal(size=400) * np.sqrt(variances + 80.0**2)
    assert abs(learned_width([(values, variances)]).width - 80.0) < 12.0
    assert learned_width([(values[:1], variances[:1])]).width == float("inf")
    same = 700.0 + rng.normal(size=400) * np.sqrt(variances)
    assert learned_width([(same, variances)]).width < 15.0
    # tilts that locked to wrong minima do not widen it
    values[:20] += 2500.0
    assert abs(learned_width([(values, variances)]).width - 80.0) < 12.0


def test_error_bars_cover_where_the_scatter_is_hardly_known() -> None:
    """Nine tilts, each known to no more than they scatter: the most likely width is often zero, the truth is not."""
    rng = np.random.default_rng(6)
    scores = []
    for _ in range(100):
        variances = rng.uniform(100, 170, 9) ** 2
        true = 150.0 * rng.normal(size=9)
        values = true + rng.normal(size=9) * np.sqrt(variances)
        learned = learned_width([(values, variances)])
        found, errors = drawn(values, variances, learned.width, scatter(values, variances, learned.width))
        errors = errors + learned.variance(0, values, variances)
        scores.append((found - true) / np.sqrt(errors))
    assert 0.62 <= np.mean(np.abs(scores) <= 1.0) <= 0.76
    assert 0.91 <= np.mean(np.abs(scores) <= 1.96) <= 0.98
