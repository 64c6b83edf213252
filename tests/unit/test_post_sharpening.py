"""Weights, B-factor, detector; the effect of masks that are too tight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.half_maps import BOX, PIXEL, half_maps, particle
from tiltwise.errors import DataError
from tiltwise.post.postprocess import fsc_of_particle
from tiltwise.post.sharpening import bfactor_filter, fit_guinier, frequencies, fsc_weights, read_mtf
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.masks import soft_sphere
from tiltwise.spectral.randomised import mask_effect, masked_fsc


def test_weights_end_where_the_halves_cease_to_agree() -> None:
    weights = fsc_weights(np.array([1.0, 1.0, 0.5, 5e-5, 0.3]))
    np.testing.assert_allclose(weights, [1.0, 1.0, np.sqrt(1.0 / 1.5), 0.0, 0.0])


def test_planted_bfactor_is_found_and_taken_off() -> None:
    frequency = frequencies(100, 1.0)
    blur = bfactor_filter(120.0, frequency)
    fit = fit_guinier(3.0 * blur, np.ones(51), frequency, 10.0, 2.0)
    assert fit.bfactor_angstrom2 == pytest.approx(-120.0, rel=1e-9)
    assert fit.intercept == pytest.approx(np.log(3.0))
    assert fit.fitted.sum() == 41  # shells 10 to 50: both ends count
    np.testing.assert_allclose(3.0 * blur * bfactor_filter(fit.bfactor_angstrom2, frequency), 3.0, rtol=1e-9)


def test_no_fit_without_shells() -> None:
    fit = fit_guinier(np.ones(9), np.zeros(9), frequencies(16, 1.0), 10.0, 2.0)
    assert not fit.fitted.any()
    assert fit.bfactor_angstrom2 == 0


def test_detector_is_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "mtf.star"
    rows = "\n".join(f"{x:.2f} {1 - x:.2f}" for x in (0.0, 0.25, 0.5))
    path.write_text(f"data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n{rows}\n\n")
    # Pixels of the map are twice those of the detector: its Nyquist frequency is half of the detector's.
    np.testing.assert_allclose(read_mtf(path, frequencies(4, 2.0), 1.0), [1.0, 0.875, 0.75])
    path.write_text(path.read_text().replace("0.50 0.50", "0.50 0.00"))
    with pytest.raises(DataError, match="MTF"):
        read_mtf(path, frequencies(4, 1.0), 1.0)


def test_particle_alone_has_the_signal_to_noise_of_its_share() -> None:
    whole = np.array([0.9, 0.2])
    alone = fsc_of_particle(whole, 4.0)
    np.testing.assert_allclose(alone / (1 - alone), 4.0 * whole / (1 - whole))


def test_mask_that_is_too_tight_is_seen() -> None:
    first, second = half_maps(0.3)
    wide, tight = soft_sphere(BOX, 22.0, 6.0), particle() > 0.2  # sharp, and follows the density
    # What the maps are worth: their mean against the particle.
    truth = resolution_angstrom(fsc(first + second, particle(), wide), BOX, PIXEL, 0.5)
    effect = mask_effect(masked_fsc(first, second, tight), BOX, PIXEL)
    assert effect.tight
    assert effect.chance > 0.15
    # The correction cannot mend such a mask: it leaks signal, and not noise alone, into all shells.
    assert effect.after_angstrom < 0.7 * truth
    honest = mask_effect(masked_fsc(first, second, wide), BOX, PIXEL)
    assert not honest.tight
    assert honest.chance < 0.05
    assert honest.after_angstrom == pytest.approx(truth, rel=0.1)
