"""Held-out verdicts: real improvements are accepted, noise and weak data are not."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.ctf import changes, planted
from helpers.particles import tilt_series
from tiltwise.ctf.contrast import ContrastEvidence, fit_factors, of_series
from tiltwise.ctf.held_out import compare, inflation
from tiltwise.ctf.lambert import scales, tilt_frame
from tiltwise.ctf.verdict import judge


def test_real_errors_are_found_by_the_other_half() -> None:
    change = changes(7, 400.0)
    problem = planted(change, particles=60, scale=np.linspace(1.2, 0.8, 7), snr=0.05, blocks=10)
    model = problem.model(sigma_defocus=None, sigma_astigmatism=None)
    model.fit(problem.evidence.total()[0], measure_noise=True)
    found = compare(model, 2)
    assert found.defocus is not None
    assert found.scale is not None
    assert found.defocus.verdict == "improved"
    assert found.scale.verdict == "improved"
    assert (found.per_tilt > 0).sum() >= 6
    assert found.inflation < 2.0


@pytest.mark.parametrize("particles", [10, 60])
def test_correct_ctfs_stay(particles: int) -> None:
    """Nothing to gain: at a signal that would show an error, and at one that would not."""
    for seed, snr in ((1, 0.05), (2, 0.001)):
        problem = planted(np.zeros((7, 3)), particles=particles, snr=snr, blocks=10, seed=seed)
        model = problem.model(sigma_defocus=None, sigma_astigmatism=None)
        model.fit(problem.evidence.total()[0], measure_noise=True)
        found = compare(model, 2)
        for verdict in (found.defocus, found.scale):
            assert verdict is not None
            assert not verdict.improved


def test_noise_is_accepted_at_most_at_the_nominal_rate() -> None:
    """Images without particles: 5 % of series may accept something."""
    accepted, count = 0, 24
    for seed in range(count):
        problem = planted(np.zeros((3, 3)), particles=20, blocks=10, seed=seed, signal=False)
        model = problem.model(sigma_defocus=None, sigma_astigmatism=None)
        model.fit(problem.evidence.total()[0], measure_noise=True)
        found = compare(model, 2)
        accepted += any(verdict is not None and verdict.improved for verdict in (found.defocus, found.scale))
    # 5 or more of 24 have a probability of 0.006 at a rate of 5 %
    assert accepted <= 4


def test_words() -> None:
    rng = np.random.default_rng(0)
    assert judge(50 + rng.normal(size=10), 100.0, 2).verdict == "improved"
    assert judge(-50 + rng.normal(size=10), 100.0, 2).verdict == "worse"
    assert judge(rng.normal(size=10), 100.0, 2).verdict == "unchanged"
    # a gain that chance would give such a change
    assert judge(np.full(10, 2.0), 200.0, 2).verdict == "unchanged"
    assert judge(np.full(10, np.nan), 10.0, 1).verdict == "unchanged"
    # more families ask for more
    assert judge(np.full(10, 5.0), 50.0, 4).limit > judge(np.full(10, 5.0), 50.0, 1).limit


def test_one_half_alone_decides_nothing() -> None:
    problem = planted(changes(3, 300.0), particles=20, blocks=1)
    found = compare(problem.model(), 2)
    assert found.defocus is not None
    assert found.defocus.verdict == "unchanged"
    fit = problem.model().fit(problem.evidence.total()[0])
    assert inflation(fit, fit) == 1.0


def test_ctfs_that_were_just_refined_are_unchanged() -> None:
    """Present CTFs were fitted to both halves: the fit to one half loses, and that does not mean worse."""
    change = changes(5, 300.0)
    problem = planted(change, particles=60, snr=0.05, blocks=10)
    model = problem.model()
    fit = model.fit(problem.evidence.total()[0], measure_noise=True)
    again = planted(change - fit.tilts.change, particles=60, snr=0.05, blocks=10)
    again_model = again.model()
    again_model.fit(again.evidence.total()[0], measure_noise=True)
    found = compare(again_model, 2)
    assert found.defocus is not None
    assert found.defocus.verdict == "unchanged"


def test_the_verdict_on_a_slab_is_about_its_own_scales() -> None:
    """Three numbers for all tilts say more than one for each; scales that no slab has are none of its gain."""
    _, first, second = tilt_frame(tilt_series(np.linspace(-60.0, 60.0, 21), 2.0).projection)
    views_of = tilt_frame(tilt_series(np.linspace(-60.0, 60.0, 21), 2.0).projection)[0]
    slab = scales(np.array([0.2, 0.3, 0.0]), views_of, first, second)[0]
    uneven = np.where(np.arange(21) % 2 == 0, 1.2, 0.8)
    gains = {}
    for name, scale in (("slab", slab / slab.mean()), ("uneven", uneven)):
        problem = planted(np.zeros((21, 3)), particles=40, snr=0.02, scale=scale, blocks=10)
        for lambert in (False, True):
            model = problem.model(defocus=False, lambert=lambert)
            model.fit(problem.evidence.total()[0], measure_noise=True)
            verdict = compare(model, 1).scale
            assert verdict is not None
            gains[name, lambert] = verdict
    assert gains["slab", True].improved
    assert gains["slab", True].gain > gains["slab", False].gain
    assert gains["uneven", False].improved
    assert not gains["uneven", True].improved


@pytest.mark.parametrize(("contrast", "improved"), [(1.4, True), (1.0, False)])
def test_contrast_of_series_is_judged_by_the_other_half(contrast: float, improved: bool) -> None:
    """One of three series has another contrast, or none has: which the scales of its own tilts cannot tell."""
    series = []
    for number, factor in enumerate((contrast, 1.0, 1.0)):
        problem = planted(np.zeros((5, 3)), particles=60, snr=0.03, scale=factor, blocks=10, seed=number)
        model = problem.model(defocus=False)
        fit = model.fit(problem.evidence.total()[0], measure_noise=True)
        found = compare(model, 3)
        whole = of_series(fit.linear, fit.quadratic, fit.calibration.scale)
        series.append(ContrastEvidence(whole, found.halves, found.held_out))
    factors = fit_factors(series, 3)
    assert factors.factor.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(factors.factor / factors.factor[1], [contrast, 1.0, 1.0], atol=0.1)
    assert any(verdict.improved for verdict in factors.verdicts) == improved
    # a series without particles in both half sets says nothing, and silences no other
    known = fit_factors([*series, ContrastEvidence(series[2].total, {}, {})], 3).verdicts
    assert any(verdict.improved for verdict in known[:3]) == improved
    assert not known[3].improved
