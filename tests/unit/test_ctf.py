"""CTF, aberrations and radiation damage: worked numbers, signs and single terms."""

from __future__ import annotations

import numpy as np
import pytest

from tiltwise.errors import ConfigError
from tiltwise.optics.ctf import ctf, ctf_amplitude, ctf_phase, electron_wavelength_angstrom, odd_phase
from tiltwise.optics.dose import critical_dose, dose_weight
from tiltwise.optics.zernike import even_order, even_phase, odd_order, polynomial

KX, KY = np.array(0.05), np.array(0.02)
SCOPE = {"voltage_kv": 300.0, "spherical_aberration_mm": 2.7, "amplitude_contrast": 0.07}
WORKED = (31746.6429, 31371.6429, 42.5)


def test_worked_example() -> None:
    assert abs(electron_wavelength_angstrom(300) - 0.0196876153) <= 6e-11
    assert abs(float(ctf_phase(KX, KY, *WORKED, **SCOPE)) - -5.7532122) <= 1e-7
    assert abs(float(ctf(KX, KY, *WORKED, **SCOPE)) - -0.5055102) <= 6e-8
    assert abs(float(dose_weight(np.hypot(KX, KY), 18.0)) - 0.7707202) <= 6e-8


def test_wavelength_is_relativistic() -> None:
    # h / sqrt(2 m e V (1 + e V / 2 m c^2)) with CODATA constants; the formula has 6-digit constants
    h, m, e, c = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    for kv in (80.0, 200.0, 300.0):
        volts = kv * 1e3
        exact = h / np.sqrt(2 * m * e * volts * (1 + e * volts / (2 * m * c * c))) * 1e10
        assert abs(electron_wavelength_angstrom(kv) / exact - 1) <= 1e-5


def test_value_at_zero_is_the_amplitude_contrast_and_positive() -> None:
    zero = np.zeros(1)
    value = ctf(zero, zero, 2e4, 2e4, 0.0, scale=0.8, **SCOPE)
    np.testing.assert_allclose(value, 0.8 * 0.07, rtol=1e-12)
    low = ctf(np.array([0.005]), zero[:1], 2e4, 2e4, 0.0, **SCOPE)
    assert low[0] > 0.07, "underfocus is positive at low frequency"


def test_defocus_axis_is_u_along_the_angle() -> None:
    k, angle = 0.06, 35.0
    along = (np.array(k * np.cos(np.radians(angle))), np.array(k * np.sin(np.radians(angle))))
    across = (np.array(-k * np.sin(np.radians(angle))), np.array(k * np.cos(np.radians(angle))))
    x = (np.array(k), np.array(0.0))
    astigmatic = lambda where: float(ctf_phase(*where, 22000.0, 18000.0, angle, **SCOPE))  # noqa: E731
    round_beam = lambda defocus: float(ctf_phase(*x, defocus, defocus, 0.0, **SCOPE))  # noqa: E731
    # phases near 70 radians, float64
    assert abs(astigmatic(along) - round_beam(22000.0)) <= 1e-11
    assert abs(astigmatic(across) - round_beam(18000.0)) <= 1e-11


def test_each_term_of_the_phase() -> None:
    wavelength, k = electron_wavelength_angstrom(300), float(np.hypot(KX, KY))
    bare = {"voltage_kv": 300.0, "spherical_aberration_mm": 0.0, "amplitude_contrast": 0.0}

    def phase(defocus: float = 0.0, **changes: object) -> float:
        return float(ctf_phase(KX, KY, defocus, defocus, 0.0, **{**bare, **changes}))  # type: ignore[arg-type]

    assert phase() == 0
    assert abs(phase(1e4) - -np.pi * wavelength * 1e4 * k**2) <= 1e-12
    assert abs(phase(spherical_aberration_mm=2.7) - np.pi / 2 * 2.7e7 * wavelength**3 * k**4) <= 1e-15
    assert abs(phase(amplitude_contrast=0.1) - -np.arctan(0.1 / np.sqrt(1 - 0.01))) <= 1e-15
    assert abs(phase(phase_shift_deg=30.0) - -np.pi / 6) <= 1e-15
    even = np.array([0.1, 0.0, 0.0, 3.0])
    assert abs(phase(even_zernike=even) - (0.1 + 3.0 * (KX**2 - KY**2))) <= 1e-15


def test_phase_plate_turns_sine_into_cosine() -> None:
    bare = {"voltage_kv": 300.0, "spherical_aberration_mm": 2.7, "amplitude_contrast": 0.0}
    gamma = ctf_phase(KX, KY, *WORKED, **bare)
    np.testing.assert_allclose(ctf(KX, KY, *WORKED, phase_shift_deg=90.0, **bare), np.cos(gamma), rtol=0, atol=1e-14)


def test_envelope() -> None:
    k = np.array([0.0, 0.1, 0.2])
    np.testing.assert_allclose(ctf_amplitude(k, 0.9, 120.0), 0.9 * np.exp(-30.0 * k * k), rtol=1e-14)
    ratio = ctf(KX, KY, *WORKED, scale=2.0, bfactor_angstrom2=50.0, **SCOPE) / ctf(KX, KY, *WORKED, **SCOPE)
    np.testing.assert_allclose(ratio, 2.0 * np.exp(-12.5 * 0.0029), rtol=1e-13)


def test_parameters_broadcast_over_images() -> None:
    kx, ky = np.meshgrid(np.fft.rfftfreq(8, 2.0), np.fft.fftfreq(8, 2.0))
    u = np.array([1e4, 2e4, 3e4])[:, None, None]
    many = ctf(kx, ky, u, u - 500, np.array([0.0, 30.0, 60.0])[:, None, None], **SCOPE)
    assert many.shape == (3, 8, 5)
    np.testing.assert_allclose(many[1], ctf(kx, ky, 2e4, 19500.0, 30.0, **SCOPE), rtol=0, atol=1e-13)


@pytest.mark.parametrize("field", [{"voltage_kv": 0.0}, {"amplitude_contrast": 1.5}])
def test_impossible_microscopes_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ctf(KX, KY, 1e4, 1e4, 0.0, **{**SCOPE, **field})


def test_zernike_orders_follow_relion() -> None:
    assert [even_order(i) for i in range(9)] == [
        (0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4),
    ]  # fmt: skip
    assert [odd_order(i) for i in range(6)] == [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3)]


@pytest.mark.parametrize(
    ("m", "n", "formula"),
    [
        (0, 0, lambda x, y: 1 + 0 * x),
        (1, 1, lambda x, y: x),
        (-1, 1, lambda x, y: y),
        (-2, 2, lambda x, y: 2 * x * y),
        (0, 2, lambda x, y: 2 * (x * x + y * y) - 1),
        (2, 2, lambda x, y: x * x - y * y),
        (1, 3, lambda x, y: (3 * (x * x + y * y) - 2) * x),
        (-3, 3, lambda x, y: 3 * x * x * y - y**3),
        (0, 4, lambda x, y: 6 * (x * x + y * y) ** 2 - 6 * (x * x + y * y) + 1),
        (4, 4, lambda x, y: x**4 - 6 * x * x * y * y + y**4),
    ],
)
def test_zernike_polynomials_in_cartesian_form(m: int, n: int, formula) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(4)
    x, y = rng.uniform(-0.5, 0.5, (2, 100))
    np.testing.assert_allclose(polynomial(m, n, x, y), formula(x, y), rtol=0, atol=1e-14)


def test_parity_of_aberrations() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.uniform(-0.3, 0.3, (2, 50))
    even, odd = rng.normal(size=9), rng.normal(size=6)
    np.testing.assert_allclose(even_phase(-x, -y, even), even_phase(x, y, even), rtol=0, atol=1e-13)
    np.testing.assert_allclose(odd_phase(-x, -y, odd), -odd_phase(x, y, odd), rtol=0, atol=1e-13)
    assert np.abs(odd_phase(x, y, odd)).max() > 0.1


def test_odd_aberrations_of_order_one_are_a_shift() -> None:
    """Multiplying by exp(-i rho) with rho = 2 pi k.s is the phase ramp of an image displaced by s Å."""
    kx, ky = np.meshgrid(np.fft.rfftfreq(16, 1.5), np.fft.fftfreq(16, 1.5))
    rho = odd_phase(kx, ky, 2 * np.pi * np.array([3.0, 1.5]))  # y, x
    image = np.zeros((16, 16))
    image[0, 0] = 1.0
    moved = np.fft.irfft2(np.fft.rfft2(image) * np.exp(-1j * rho), s=(16, 16))
    assert np.unravel_index(moved.argmax(), moved.shape) == (2, 1)


def test_damage_curve() -> None:
    assert dose_weight(0.0, 100.0) == 1.0
    assert abs(float(critical_dose(0.2)) - (0.245 * 0.2**-1.665 + 2.81)) <= 1e-14
    k = np.linspace(0, 0.4, 50)
    weights = dose_weight(k, np.array([0.0, 10.0, 60.0])[:, None])
    assert weights.shape == (3, 50)
    assert np.all(weights[0] == 1)
    assert np.all(np.diff(weights[1:], axis=1) < 0), "damage grows with frequency"
    assert np.all(np.diff(weights[:, 1:], axis=0) < 0), "and with dose"
    np.testing.assert_allclose(dose_weight(k, 10.0, 4.0), np.exp(-10.0 * k * k), rtol=1e-14)
