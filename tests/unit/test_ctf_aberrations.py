"""Even and odd aberrations of optics groups: phase maps, additivity, no cross-talk."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.ctf import BOX, PIXEL_SIZE, Planted, planted
from tiltwise.ctf.aberrations import (
    Aberration,
    GroupEvidence,
    add_series,
    added,
    basis_of,
    fit_aberration,
    observed_phase,
    powers,
    zernike_coefficients,
)
from tiltwise.kernels.select import load_backend
from tiltwise.optics.ctf import electron_wavelength_angstrom
from tiltwise.optics.zernike import even_phase, odd_phase
from tiltwise.spectral.disc import FourierDisc

DISC = FourierDisc.create(BOX, 0.98 * BOX / 2)
KX, KY = (DISC.frequencies / (BOX * PIXEL_SIZE)).T
HIGHEST = float(np.hypot(KX, KY).max())
RHO, PHI = np.hypot(KX, KY) / HIGHEST, np.arctan2(KY, KX)


def groups_of(*problems: Planted) -> dict[int, GroupEvidence]:
    """Evidence of series at their present defocus, each its own optics group."""
    groups: dict[int, GroupEvidence] = {}
    for number, problem in enumerate(problems):
        model = problem.model(scale=False)
        fit = model.fit(problem.evidence.total()[0], measure_noise=True)
        one: dict[int, GroupEvidence] = {}
        add_series(one, model, fit, moved=True)
        groups[number] = one[0]
    return groups


def fitted(group: GroupEvidence, order: int, *, even: bool) -> Aberration:
    return fit_aberration(group, order, even=even, families=2, backend=load_backend("auto"), threads=1)


def rms(phase: NDArray[np.float64]) -> float:
    """Over the band in use."""
    used = np.hypot(KX, KY) >= 1 / 30.0
    return float(np.sqrt(np.mean(phase[used] ** 2)))


@pytest.mark.parametrize("even", [True, False])
def test_powers_are_sums_of_zernike_polynomials(even: bool) -> None:
    terms = powers(6 if even else 5, even=even)
    values = np.random.default_rng(0).normal(size=len(terms))
    coefficients = zernike_coefficients(terms, values, HIGHEST, even=even)
    phase = (even_phase if even else odd_phase)(KX, KY, coefficients)
    np.testing.assert_allclose(phase, values @ basis_of(terms, KX, KY, HIGHEST), atol=1e-8)


def test_coma_and_trefoil_are_found_and_even_terms_stay_zero() -> None:
    """0.5 rad each at the highest frequency."""
    odd = 0.5 * RHO**3 * np.cos(PHI) + 0.5 * RHO**3 * np.sin(3 * PHI)
    (group,) = groups_of(planted(np.zeros((4, 3)), particles=100, snr=0.1, odd=odd, blocks=10)).values()
    found = fitted(group, 3, even=False)
    true = {(1, 3): 0.5, (-3, 3): 0.5}
    score = (found.values - [true.get(term, 0.0) for term in found.terms]) / found.sigma
    assert (np.abs(score) < 4).all()
    assert found.verdict.verdict == "improved"
    assert rms(found.phase(KX, KY) - odd) < 0.05
    assert rms(odd_phase(KX, KY, found.coefficients) - odd) < 0.05
    blind = fitted(group, 4, even=True)
    assert (np.abs(blind.values / blind.sigma) < 4).all()
    assert not blind.verdict.improved
    # what every pixel asks for is that phase, with noise
    assert np.corrcoef(observed_phase(group, even=False), odd)[0, 1] > 0.3


def test_spherical_aberration_is_found_as_a_phase_map() -> None:
    """A change of Cs: the defoci take what looks like them, the even terms take the rest."""
    even = 1.0 * RHO**4
    problem = planted(np.zeros((4, 3)), particles=150, snr=0.1, even=even, blocks=10)
    model = problem.model(scale=False)
    fit = model.fit(problem.evidence.total()[0], measure_noise=True)
    groups: dict[int, GroupEvidence] = {}
    add_series(groups, model, fit, moved=True)
    found = fitted(groups[0], 4, even=True)
    defocus = (fit.tilts.change @ model.basis[:3]).mean(axis=0)
    assert rms(found.phase(KX, KY) + defocus - even) < 0.05
    assert rms(defocus - even) > 0.08
    assert found.verdict.verdict == "improved"


@pytest.mark.parametrize("order", [0, 4])
def test_a_change_of_cs_goes_to_cs_and_the_defocus(order: int) -> None:
    """1.5 mm more than stated, and never a Zernike coefficient of k^4 beside it."""
    wavelength, missing = electron_wavelength_angstrom(300.0), 1.5
    even = np.pi / 2 * 1e7 * missing * wavelength**3 * (RHO * HIGHEST) ** 4
    problem = planted(np.zeros((4, 3)), particles=150, snr=0.1, even=even, blocks=10)
    model = problem.model(scale=False)
    fit = model.fit(problem.evidence.total()[0], measure_noise=True)
    groups: dict[int, GroupEvidence] = {}
    add_series(groups, model, fit, moved=True)
    found = fit_aberration(
        groups[0], order, even=True, families=2, backend=load_backend("auto"), threads=1, wavelength=wavelength
    )
    change = found.spherical
    assert change is not None
    assert abs(change.millimetres - missing) < 4 * change.sigma_millimetres
    assert change.sigma_millimetres < 0.2
    assert found.verdict.improved
    # the defoci that the tilts took for it are given back
    taken = fit.tilts.change[:, 0].mean()
    assert abs(taken) > 50.0
    assert abs(taken + change.defocus_angstrom) < 0.35 * abs(taken)
    assert not any(found.coefficients[i] != 0 for i in (0, 2, 6)[: len(found.coefficients)])
    assert (len(found.coefficients) > 0) == (order > 0)


def test_groups_with_opposite_coma_do_not_mix() -> None:
    coma = 0.5 * RHO**3 * np.cos(PHI)
    groups = groups_of(
        planted(np.zeros((3, 3)), particles=80, snr=0.1, odd=coma, seed=1),
        planted(np.zeros((3, 3)), particles=80, snr=0.1, odd=-coma, seed=2),
    )
    for sign, group in zip((1.0, -1.0), groups.values(), strict=True):
        found = fitted(group, 3, even=False)
        expected = np.array([sign * 0.5 if term == (1, 3) else 0.0 for term in found.terms])
        assert (np.abs(found.values - expected) < 4 * found.sigma).all()


def test_nothing_is_found_where_nothing_is() -> None:
    (group,) = groups_of(planted(np.zeros((3, 3)), particles=60, snr=0.05, blocks=10, seed=3)).values()
    for even, order in ((True, 4), (False, 3)):
        found = fitted(group, order, even=even)
        assert (np.abs(found.values) < 4 * found.sigma).all()
        assert not found.verdict.improved


def test_stored_terms_are_added_to_and_not_lost() -> None:
    np.testing.assert_array_equal(added(np.array([1.0, 2.0, 3.0]), np.array([0.5])), [1.5, 2.0, 3.0])
    np.testing.assert_array_equal(added(np.zeros(0), np.array([0.5, 1.0])), [0.5, 1.0])
