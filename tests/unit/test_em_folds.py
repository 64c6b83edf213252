"""References without a fold, and the motion of folds against each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.em.folds import HalfSums, drift
from tiltwise.em.units import Key, RunningSums
from tiltwise.kernels.select import load_backend
from tiltwise.maps.rigid import rigid_change
from tiltwise.maps.spectra import join_low_resolution
from tiltwise.maps.volumes import Accumulator, padded_shells

BOX = 12
KEYS: list[Key] = [(half, fold) for half in (1, 2) for fold in range(3)]
ONE = np.eye(3)[None]


def running(keys: list[Key]) -> dict[Key, RunningSums]:
    rng = np.random.default_rng(1)
    result = {}
    for key in keys:
        sums = Accumulator.empty(BOX)
        sums.data += rng.normal(size=sums.data.shape) + 1j * rng.normal(size=sums.data.shape)
        sums.weight += rng.random(sums.weight.shape)
        result[key] = RunningSums(sums)
    return result


def test_a_reference_holds_all_folds_but_its_own() -> None:
    backend = load_backend("auto")
    parts = {key: part.accumulator.complete() for key, part in running(KEYS).items()}
    sums = HalfSums.of(running(KEYS), ONE, backend)
    for half in (1, 2):
        expected = sum(parts[half, fold].data for fold in range(3))
        np.testing.assert_allclose(sums.totals[half].data, expected, rtol=1e-12)
        for fold in range(3):
            left = sums.without((half, fold), -1)
            others = [parts[half, other] for other in range(3) if other != fold]
            np.testing.assert_allclose(left.data, others[0].data + others[1].data, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(left.weight, others[0].weight + others[1].weight, rtol=1e-9, atol=1e-12)


def test_shells_that_halves_share_lose_half_of_a_fold() -> None:
    """The mean of both halves without what a fold has given to it, weights as well: never less than nothing."""
    parts = {key: part.accumulator.complete() for key, part in running(KEYS).items()}
    sums = HalfSums.of(running(KEYS), ONE, load_backend("auto"))
    join_low_resolution(sums.totals[1], sums.totals[2], 3)
    low = padded_shells(BOX, 2 * BOX) <= 3
    left = sums.without((1, 2), 3)
    others = sum(part.data for key, part in parts.items() if key != (1, 2))
    np.testing.assert_allclose(left.data[low], 0.5 * others[low], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(left.data[~low], (parts[1, 0].data + parts[1, 1].data)[~low], rtol=1e-9, atol=1e-12)
    assert left.weight.min() >= 0.0


def test_one_fold_is_none() -> None:
    sums = HalfSums.of(running([(1, 0), (2, 0)]), ONE, load_backend("auto"))
    assert not sums.folds
    assert set(sums.totals) == {1, 2}


def blob_map(rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """A few Gaussians, turned and moved (px)."""
    rng = np.random.default_rng(2)
    centres = rng.uniform(-6.0, 6.0, (12, 3)) @ rotation.T + shift
    axis = np.arange(32) - 16
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    grid = np.stack([x, y, z], axis=-1)
    return np.exp(-0.5 * ((grid[..., None, :] - centres) ** 2).sum(axis=-1) / 2.0**2).sum(axis=-1).astype(np.float32)


def test_rigid_motions_are_measured() -> None:
    vector, shift = np.array([0.8, -0.5, 0.3]), np.array([0.1, 0.05, -0.12])
    moved = blob_map(Rotation.from_rotvec(np.radians(vector)).as_matrix(), shift)
    turn, move = rigid_change(moved, blob_map(np.eye(3), np.zeros(3)), 4.0)
    assert np.abs(turn - vector).max() <= 0.05
    assert np.abs(move - 4.0 * shift).max() <= 0.03


def test_drift_of_a_fold_is_that_of_its_own_particles() -> None:
    """One of four folds turned by 2°: the reference without it misses a quarter of the motion in the mean."""
    still = blob_map(np.eye(3), np.zeros(3))
    gone = blob_map(Rotation.from_rotvec(np.radians([0.0, 0.0, 2.0])).as_matrix(), np.zeros(3))
    maps = {1: (3 * still + gone) / 4}
    references = {(1, 0): still} | {(1, fold): (2 * still + gone) / 3 for fold in (1, 2, 3)}
    angle, shift = drift(references, maps, 4.0)
    assert abs(angle - 1.5) <= 0.15, "against the mean of all, of which it is a quarter"
    assert shift <= 0.1


@pytest.mark.parametrize("folds", [2, 5])
def test_still_folds_do_not_drift(folds: int) -> None:
    still = blob_map(np.eye(3), np.zeros(3))
    assert drift({(1, fold): still for fold in range(folds)}, {1: still}, 4.0) == (0.0, 0.0)
