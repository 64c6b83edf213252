"""Resolution against the number of particles: the law that is planted is found, with an error that is right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

from tiltwise.em.bfactor import SIZES, crossing, random_parts, resolution_of, subsets
from tiltwise.em.bfactor_fit import Point, correlation, fit_points, forecast, next_resolutions
from tiltwise.em.options import BFactorPlotOptions
from tiltwise.errors import ConfigError
from tiltwise.maps.volumes import Accumulator, PackedSums, padded_shells, reference_volume
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.fsc import resolution_angstrom
from tiltwise.spectral.masks import soft_sphere

PARTS, IN_PART = 16, 20
B = 300.0


def law(particles: float, bfactor: float, constant: float) -> float:
    """1/d² that so many particles reach."""
    return float(brentq(lambda x: constant + 0.5 * np.log(x) + 0.5 * bfactor * x - np.log(particles), 1e-9, 1.0))


def points(rng: np.random.Generator, bfactor: float = B, noise: float = 4e-4, draws: int = 6) -> list[Point]:
    """Subsets of 12 Å at 20 particles; the noise of an FSC is a sum over pairs of parts, one of each half."""
    constant = float(np.log(IN_PART) - 0.5 * np.log(12.0**-2) - 0.5 * bfactor * 12.0**-2)
    pairs = rng.normal(size=(PARTS, PARTS))
    made = []
    for one, two in subsets(PARTS, draws, rng):
        own = pairs[np.ix_(sorted(one), sorted(two))].sum() / len(one)
        x = law(IN_PART * len(one), bfactor, constant)
        made.append(Point(IN_PART * len(one), (one, two), (x + noise * np.sqrt(0.01 / x) * own) ** -0.5))
    return made


def test_the_planted_law_is_found_with_a_true_error() -> None:
    """Over 100 sets: no bias, errors as large as stated, coverage of 95 %, misfit of 1."""
    rng = np.random.default_rng(0)
    fits = [fit_points(points(rng)) for _ in range(100)]
    z = np.array([(fit.bfactor_angstrom2 - B) / fit.bfactor_sigma for fit in fits])
    assert abs(z.mean()) < 0.45  # bias of a third of the error at most, and chance
    assert 0.8 < z.std() < 1.35
    assert np.mean(np.abs(z) < 1.96) > 0.86
    assert np.mean([fit.sigma for fit in fits]) == pytest.approx(4e-4 * 0.1, rel=0.1)
    assert np.mean([fit.misfit for fit in fits]) == pytest.approx(1.0, abs=0.1)
    # without ln(1/d), which RELION's plot leaves out, the slope is that of B + d²
    assert np.mean([fit.plain_angstrom2 for fit in fits]) == pytest.approx(B + 9.0**2, abs=15)


def test_a_forecast_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    constant = float(np.log(IN_PART) - 0.5 * np.log(12.0**-2) - 0.5 * B * 12.0**-2)
    truth = np.exp(constant + 0.5 * np.log(5.5**-2) + 0.5 * B * 5.5**-2)
    told = [forecast(fit_points(points(rng)), IN_PART * PARTS, [5.5], 4.0)[0] for _ in range(60)]
    assert np.mean([one.low < truth < one.high for one in told]) > 0.85
    assert np.mean([np.log(one.particles / truth) for one in told]) == pytest.approx(0.0, abs=0.1)


def test_what_cannot_be_told_is_refused() -> None:
    fit = fit_points(points(np.random.default_rng(2)))
    near, beyond, far = forecast(fit, 320, [6.0, 3.0, 3.2], 3.1)
    assert near.refused == ""
    assert "Nyquist" in beyond.refused
    assert "too far" in far.refused
    chosen = next_resolutions(fit, 320, 4.0)
    assert chosen
    assert all(4.0 <= value < fit.resolution(320) for value in chosen)
    assert next_resolutions(fit, 320, 8.0) == []


def test_sizes_at_nyquist_are_not_fitted() -> None:
    """All subsets of a size count or none: those that by chance stay below Nyquist look worse than the size is."""
    made = points(np.random.default_rng(3))
    whole = fit_points(made)
    capped = [
        replace(point, resolution_angstrom=7.6, limited="at Nyquist") if point.resolution_angstrom < 7.6 else point
        for point in made
    ]
    fit = fit_points(capped)
    assert not fit.refused
    assert abs(fit.bfactor_angstrom2 - whole.bfactor_angstrom2) < 3 * fit.bfactor_sigma
    assert fit.bfactor_sigma > whole.bfactor_sigma


def refusal(made: list[Point]) -> str:
    fit = fit_points(made)
    assert fit.refused
    assert np.isnan(fit.bfactor_angstrom2)
    return fit.refused


def test_points_without_a_law_are_refused() -> None:
    rng = np.random.default_rng(4)
    made = points(rng)
    few = [replace(point, limited="the FSC never falls below 0.143") if point.size > 2 else point for point in made]
    assert "2 sizes" in refusal(few)
    assert "never falls" in refusal(few)
    flat = [replace(point, resolution_angstrom=9.0 + 0.3 * rng.normal()) for point in made]
    assert "does not improve" in refusal(flat) or "standard deviation" in refusal(flat)
    equal = [replace(point, resolution_angstrom=9.0) for point in made]
    assert "do not differ" in refusal(equal)


def test_mates_are_in_one_part() -> None:
    """They are the same images: subsets that divide them would have noise in common."""
    source = np.repeat([7, 3, 11, 20, 1, 5], [4, 4, 2, 4, 3, 1])
    parts = random_parts(source, 3, np.random.default_rng(1))
    assert [len(set(parts[source == own])) for own in np.unique(source)] == [1] * 6
    assert np.bincount([parts[source == own][0] for own in np.unique(source)]).tolist() == [2, 2, 2]
    alone = random_parts(np.arange(60), 4, np.random.default_rng(1))
    assert np.bincount(alone).tolist() == [15] * 4
    assert (np.diff(alone) != 0).sum() > 10


def test_subsets_share_parts_no_more_than_they_must() -> None:
    drawn = list(subsets(PARTS, 6, np.random.default_rng(5)))
    sizes = [len(one) for one, _ in drawn]
    assert sizes == sorted(sizes)
    assert set(sizes) == {size for size in SIZES if size <= PARTS}
    assert drawn[-1] == (frozenset(range(PARTS)), frozenset(range(PARTS)))
    for size, count in ((1, 6), (2, 6), (4, 4)):
        own = [one for one, _ in drawn if len(one) == size][:count]
        assert len(frozenset().union(*own)) == size * count
    whole, first = (Point(1, drawn[i], 9.0) for i in (-1, 0))
    assert correlation(whole, whole) == 1.0
    assert correlation(first, whole) == pytest.approx(1 / PARTS**2 * 1 * PARTS)


@dataclass(frozen=True)
class Sums:
    """Sums over particles of a structure whose power falls as exp(-B k² / 2)."""

    box: int = 40
    pixel: float = 3.0
    seed: int = 0

    def structure(self) -> NDArray[np.float32]:
        rng = np.random.default_rng(self.seed)
        k = np.fft.fftfreq(self.box, self.pixel)
        k2 = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
        noise = np.fft.fftn(rng.normal(size=(self.box,) * 3))
        return np.asarray(np.fft.ifftn(noise * np.exp(-B * k2 / 4)).real * soft_sphere(self.box, 15, 4), np.float32)

    def halves(self, parts: int, snr: float) -> tuple[list[PackedSums], list[PackedSums]]:
        """Slices through the origin fill voxels in proportion to 1/k; `snr` is that of a part at k = 0.1 1/Å."""
        volume = reference_volume(self.structure())
        padded = volume.shape[0]
        rng = np.random.default_rng(self.seed + 1)
        shell = np.maximum(padded_shells(self.box, padded), 0.5)
        weight = (0.1 * self.box * self.pixel) / shell
        here = np.abs(shell - 0.1 * self.box * self.pixel) < 1
        scale = np.sqrt(snr / np.mean(np.abs(volume[here]) ** 2))
        made: tuple[list[PackedSums], list[PackedSums]] = ([], [])
        for half in made:
            for _ in range(parts):
                noise = rfft3(rng.normal(size=(padded,) * 3))
                data = weight * scale * volume + np.sqrt(weight) * noise
                half.append(PackedSums.of(Accumulator(self.box, data, weight.copy()), 1.0))
        return made


def test_the_bfactor_of_a_structure_is_found() -> None:
    """From sums over parts to half maps, FSC and line: B within its error, on average within a tenth."""
    found = []
    for seed in range(3):
        sums = Sums(box=32, seed=10 * seed)
        halves = sums.halves(PARTS, 0.004)
        mask = soft_sphere(sums.box, 14, 4).astype(np.float32)
        made = []
        for parts in subsets(PARTS, 4, np.random.default_rng(seed)):
            _, pixels = resolution_of(halves, parts, mask)
            made.append(Point(IN_PART * len(parts[0]), parts, pixels * sums.pixel))
        fit = fit_points(made)
        assert not fit.refused
        assert abs(fit.bfactor_angstrom2 - B) < 3.0 * fit.bfactor_sigma
        found.append(fit.bfactor_angstrom2)
    assert np.mean(found) == pytest.approx(B, rel=0.1)


def test_noise_does_not_move_the_crossing() -> None:
    """Where a noisy curve first falls below 0.143 is early; the fitted course is not."""
    rng = np.random.default_rng(6)
    shell = np.arange(49.0)
    ratio = np.exp(-0.004 * (shell**2 - 24.0**2)) * (24.0 / np.maximum(shell, 1)) * 0.143 / 0.857
    truth = ratio / (1 + ratio)
    noise = 2.0 * (1 - truth**2) / np.maximum(shell, 1.0)
    curves = [truth + noise * rng.normal(size=49) for _ in range(100)]
    fitted = [crossing(curve) for curve in curves]
    first = [1.0 / resolution_angstrom(curve, 1, 1.0) for curve in curves]
    assert np.mean(fitted) == pytest.approx(24.0, abs=0.4)
    assert np.mean(first) < 23.3
    assert np.std(fitted) < np.std(first)
    assert crossing(np.ones(49)) == 48.0


@pytest.mark.parametrize("value", ["6,x", "0", "-3", "nan", "inf"])
def test_resolutions_that_cannot_be_read(value: str) -> None:
    options: dict[str, Any] = {"input": "set.star", "box": 32, "output": "out"}
    with pytest.raises(ConfigError, match="forecast"):
        BFactorPlotOptions(forecast=value, **options)
    assert BFactorPlotOptions(forecast="6, 5.5", **options).wanted_angstrom == (6.0, 5.5)
