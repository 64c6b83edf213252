"""CTF against values computed by cisTEM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiltwise.optics.ctf import ctf


@pytest.mark.parametrize("case", range(9))
def test_ctf_is_minus_that_of_cistem(shared_data: Path, case: int) -> None:
    archive = np.load(shared_data / "data/cistem_oracle/cistem_ctf.npz")
    u, v, azimuth, voltage, cs, contrast, pixel = archive["parameters"][case]
    expected = archive["ctf"][case].astype(np.float64)
    kx, ky = np.meshgrid(np.fft.rfftfreq(128, pixel), np.fft.fftfreq(128, pixel))
    # The file was made with azimuths counted from +y towards +x; ours run from +x towards +y.
    found = ctf(
        kx, ky, u, v, 90.0 - azimuth, voltage_kv=voltage, spherical_aberration_mm=cs, amplitude_contrast=contrast
    )
    square = kx * kx + ky * ky
    # The programs differ by 5e-5 in the wavelength and its cube: that share of the two phase terms, plus
    # the float32 of the file.
    terms = np.pi * 0.0251 * u * square + 0.5 * np.pi * 1e7 * cs * 0.0251**3 * square**2
    excess = np.abs(found + expected) - (5e-5 * terms + 1e-6)
    assert excess.max() <= 0, f"{np.abs(found + expected).max():.2e}"
    assert expected.std() > 0.3
