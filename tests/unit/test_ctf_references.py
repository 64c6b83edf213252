"""Which images a reference of CTF refinement leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.particles import tilt_series
from tiltwise.ctf.references import level_amplitudes
from tiltwise.extract.images import ParticleImages
from tiltwise.maps.fit_poses import Partition
from tiltwise.model import OptimisationSet
from tiltwise.model.tilt_series import TiltSeries


def set_of(*series: TiltSeries) -> OptimisationSet:
    return OptimisationSet(series, None, (), {}, False, None, {})  # type: ignore[arg-type]


def images(tilts: list[int]) -> ParticleImages:
    """Numbers that tell the tilt."""
    rows = np.array(tilts, float)[:, None]
    data = (rows + np.zeros(4)).astype(np.complex64)
    return ParticleImages(np.array(tilts), data, data, data.real, rows)


def test_neighbouring_tilts_are_in_different_parts() -> None:
    first = replace(tilt_series(9, 2.0), nominal_tilt_deg=np.array([0.0, 3, -3, 6, -6, 9, -9, 12, -12]))
    partition = Partition.create(set_of(first, first), np.zeros(4, np.int64), 4, "tilt")
    assert partition.count == 4
    assert partition.tilt_parts is not None
    for part in partition.tilt_parts:
        assert (np.diff(part[np.argsort(first.nominal_tilt_deg)]) != 0).all()
        assert set(part) == {0, 1, 2, 3}
    # the folds of particles do not matter
    for fold in (0, 3):
        split = partition.split(fold, 0, np.arange(9))
        assert np.sum([chosen for _, chosen in split], axis=0).tolist() == [1] * 9


def test_whole_series_and_folds_of_particles() -> None:
    one = tilt_series(5, 2.0)
    partition = Partition.create(set_of(one, one, one), np.zeros(4, np.int64), 2, "series")
    assert [partition.split(3, number, np.arange(5))[0][0] for number in range(3)] == [0, 1, 0]
    partition = Partition.create(set_of(one), np.array([0, 2, 1]), 5, "particle")
    assert partition.count == 3
    ((part, chosen),) = partition.split(2, 0, np.arange(5))
    assert part == 2
    assert chosen.all()


def test_a_single_tilt_falls_back_to_particles() -> None:
    partition = Partition.create(set_of(tilt_series(1, 2.0)), np.array([0, 1]), 5, "tilt")
    assert partition.tilt_parts is None
    assert partition.count == 2


def test_images_are_divided_without_loss() -> None:
    """Every tilt of a series is in one part, by which its images are predicted."""
    sets = set_of(tilt_series(6, 2.0), tilt_series(5, 2.0))
    partition = Partition.create(sets, np.zeros(4, np.int64), 3, "tilt")
    for number, count in enumerate((6, 5)):
        of_parts = [partition.tilts(part, number, count) for part in range(3)]
        assert (np.sum(of_parts, axis=0) == 1).all()
        for part, chosen in partition.split(0, number, np.arange(count)):
            np.testing.assert_array_equal(chosen, of_parts[part])


def test_references_of_unequal_amplitude_are_levelled() -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(6, 6, 4)) + 1j * rng.normal(size=(6, 6, 4))
    strength = {(1, 0): 1.0, (1, 1): 0.8, (2, 0): 0.9, (2, 1): 1.1}
    volumes = {
        key: (factor * signal + 0.01 * rng.normal(size=signal.shape)).astype(np.complex64)
        for key, factor in strength.items()
    }
    level_amplitudes(volumes, 2)
    found = {key: float(np.vdot(signal, volume).real / np.vdot(signal, signal).real) for key, volume in volumes.items()}
    assert found[1, 0] == pytest.approx(0.9, abs=0.01)
    assert found[1, 1] == pytest.approx(0.9, abs=0.01)
    assert found[2, 0] == pytest.approx(found[2, 1], rel=0.01)
