"""Parts of a classification against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.classes.differences import signal_share
from tiltwise.classes.given import reference_paths
from tiltwise.classes.mixture import cluster, posterior, proportions
from tiltwise.classes.residuals import explained, portions_of
from tiltwise.errors import ConfigError
from tiltwise.spectral.masks import soft_sphere


def test_posteriors_are_those_of_bayes() -> None:
    log = np.array([[0.0, np.log(3.0)], [1e6, 1e6 - 2.0], [-np.inf, 0.0]])
    weight, evidence = posterior(log, np.array([0.75, 0.25]))
    np.testing.assert_allclose(weight[0], [0.5, 0.5])
    np.testing.assert_allclose(weight[1, 0], 0.75 / (0.75 + 0.25 * np.exp(-2.0)))
    np.testing.assert_allclose(weight[2], [0.0, 1.0])
    np.testing.assert_allclose(evidence[0], np.log(1.5))


def test_a_class_without_share_stays_empty() -> None:
    share = proportions(np.zeros((10, 3)), np.array([0.5, 0.5, 0.0]))
    assert share[2] == 0.0
    weight, _ = posterior(np.zeros((10, 3)), share)
    assert not weight[:, 2].any()


def test_proportions_are_found_in_sure_posteriors() -> None:
    """Seven of ten are of the first class; one particle is added to both together."""
    log = np.where(np.arange(10)[:, None] < 7, [[50.0, 0.0]], [[0.0, 50.0]])
    np.testing.assert_allclose(proportions(log, np.array([0.5, 0.5])), [7.5 / 11, 3.5 / 11])


def test_clusters_are_found() -> None:
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1, 2], 60)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    weight = cluster(centres[label] + rng.standard_normal((180, 2)), 3, rng)
    found = weight.argmax(axis=1)
    assert all(np.bincount(found[label == k]).max() >= 58 for k in range(3))
    assert len(np.unique([np.bincount(found[label == k]).argmax() for k in range(3)])) == 3


@pytest.mark.parametrize("ratio", [0.0, 0.5, 3.0])
def test_share_of_signal_is_that_of_the_mean_of_two_halves(ratio: float) -> None:
    """Power of signal over that of the noise of a half: the mean of both has half the noise."""
    rng = np.random.default_rng(2)
    signal, *noise = rng.standard_normal((3, 48, 48, 48))
    halves = [(np.sqrt(ratio) * signal + part).astype(np.float32) for part in noise]
    share = signal_share(halves[0], halves[1], soft_sphere(48, 18.0, 4.0).astype(np.float32))
    expected = ratio / (ratio + 0.5)
    assert np.abs(share[6:] - expected).max() <= 0.12
    assert abs(share[10:].mean() - expected) <= 0.03


def test_residuals_explain_what_whole_maps_do() -> None:
    """L(V + D) - L(V) from the residual of V; two particles of two and three images."""
    rng = np.random.default_rng(3)
    shape, starts = (5, 40), np.array([0, 2])

    def noise() -> NDArray[np.complex64]:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    average, difference, data = noise(), noise(), noise()
    power = rng.uniform(0.1, 2.0, shape).astype(np.float32)

    def log_likelihood(model: NDArray[np.complex64]) -> NDArray[np.float64]:
        terms = 2.0 * (model.conj() * data).real - power * np.abs(model) ** 2
        return np.add.reduceat(terms.sum(axis=1, dtype=np.float64), starts)

    cross, quadratic = explained(difference, data - power * average, power, starts)
    np.testing.assert_allclose(
        2.0 * cross - quadratic, log_likelihood(average + difference) - log_likelihood(average), rtol=1e-4, atol=1e-3
    )


def test_portions_hold_all_particles_of_one_fold_and_series() -> None:
    folds, series = np.array([0, 1, 0, 1] * 40), np.array([0, 0, 1, 1] * 40)
    portions = portions_of(folds, series)
    assert sorted(np.concatenate([p.members for p in portions]).tolist()) == list(range(160))
    assert all((folds[p.members] == p.fold).all() and (series[p.members] == p.series).all() for p in portions)
    assert [p.fold for p in portions] == sorted(p.fold for p in portions)


def test_references_are_named_with_commas() -> None:
    assert [path.name for path in reference_paths("a.mrc, b.mrc", 2)] == ["a.mrc", "b.mrc"]
    with pytest.raises(ConfigError, match="differ in number"):
        reference_paths("a.mrc,b.mrc", 3)
