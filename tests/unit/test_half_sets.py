"""Half sets: balanced, deterministic, and what overlaps together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.particles import tilt_series
from tiltwise.errors import DataError
from tiltwise.maps.half_sets import assign_half_sets, balanced, separated
from tiltwise.model import OptimisationSet, Particles

PIXEL = 4.0


def particles_at(
    positions: NDArray[np.float64], series: NDArray[np.intp] | None = None, halves: Any = 0
) -> OptimisationSet:
    """Particles at positions (P, 3) in Å in series "0", "1", ..."""
    count = len(positions)
    series = np.zeros(count, np.intp) if series is None else series
    zeros = np.zeros((count, 3))
    particles = Particles(
        name=tuple(f"{s}/{i}" for i, s in enumerate(series)),
        tomogram=tuple(str(s) for s in series),
        coordinate_px=positions / PIXEL,
        origin_angstrom=zeros,
        angles_deg=zeros,
        subtomogram_angles_deg=zeros,
        half_set=np.broadcast_to(np.asarray(halves, np.int64), count).copy(),
        optics_index=np.zeros(count, np.int64),
        image_files=(),
        ctf_files=(),
        visible=(),
    )
    one = tilt_series(3, PIXEL)
    names = [str(number) for number in range(int(series.max()) + 1)]
    return OptimisationSet(tuple(replace(one, name=n) for n in names), particles, (), {}, False, None, {})


def lattices(seed: int = 1) -> tuple[OptimisationSet, NDArray[np.intp]]:
    """20 patches of 3 x 3 particles 80 Å apart, 1000 Å between the patches; and the patch of each."""
    rng = np.random.default_rng(seed)
    patch = np.arange(20)
    corner = np.stack([patch % 5, patch // 5, 0 * patch], axis=1) * 1000.0
    inner = np.stack(np.meshgrid(np.arange(3), np.arange(3), [0]), axis=-1).reshape(-1, 3) * 80.0
    positions = (corner[:, None] + inner).reshape(-1, 3)
    order = rng.permutation(len(positions))
    return particles_at(positions[order]), np.repeat(patch, 9)[order]


def test_objects_stay_together_and_halves_are_balanced() -> None:
    optset, patch = lattices()
    halves, notes = assign_half_sets(optset, "object", 1, 100.0)
    assert not notes
    for number in range(20):
        assert len(set(halves[patch == number])) == 1
    assert np.bincount(halves)[1:].tolist() == [90, 90]
    assert separated(optset, halves, 200.0) is None
    again, _ = assign_half_sets(optset, "object", 1, 100.0)
    np.testing.assert_array_equal(halves, again)
    other, _ = assign_half_sets(optset, "object", 2, 100.0)
    assert np.any(other != halves)


def test_auto_keeps_else_draws_objects() -> None:
    optset, patch = lattices()
    halves, _ = assign_half_sets(optset, "auto", 1, 100.0)
    assert all(len(set(halves[patch == number])) == 1 for number in range(20))
    own = 1 + np.arange(180) % 2
    kept, _ = assign_half_sets(replace(optset, particles=replace(optset.particles, half_set=own)), "auto", 1, 100.0)
    np.testing.assert_array_equal(kept, own)


def test_one_object_is_drawn_at_random_with_a_word() -> None:
    optset, _ = lattices()
    halves, notes = assign_half_sets(optset, "auto", 1, 2000.0)
    assert np.bincount(halves)[1:].tolist() == [90, 90]
    assert "--split tomogram" in notes[0]
    with pytest.raises(DataError, match="--split-distance"):
        assign_half_sets(optset, "object", 1, 2000.0)


def test_halves_and_series_are_balanced_at_random() -> None:
    rng = np.random.default_rng(4)
    series = np.repeat([0, 1, 2], [31, 40, 10])
    optset = particles_at(rng.uniform(0, 4000, (81, 3)), series)
    halves, _ = assign_half_sets(optset, "random", 5, 0.0)
    assert sorted(np.bincount(halves)[1:]) == [40, 41]
    for number in range(3):
        counts = np.bincount(halves[series == number], minlength=3)[1:]
        assert abs(counts[0] - counts[1]) <= 0.35 * counts.sum() + 2


def test_tomograms_stay_together() -> None:
    series = np.repeat([0, 1, 2, 3], [10, 4, 3, 3])
    optset = particles_at(np.random.default_rng(5).uniform(0, 4000, (20, 3)), series)
    halves, notes = assign_half_sets(optset, "tomogram", 1, 0.0)
    assert not notes
    assert all(len(set(halves[series == number])) == 1 for number in range(4))
    assert np.bincount(halves)[1:].tolist() == [10, 10]
    _, notes = assign_half_sets(particles_at(np.zeros((20, 3)), np.repeat([0, 1], [15, 5])), "tomogram", 1, 0.0)
    assert "unequal" in notes[0]


@pytest.mark.parametrize("seed", range(5))
def test_balance_of_groups_of_many_sizes(seed: int) -> None:
    """Never further apart than the smallest group that could still be moved."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    halves = balanced(groups, np.zeros(len(groups), np.intp), seed)
    counts = np.bincount(halves)[1:]
    assert abs(counts[0] - counts[1]) <= 1 + np.bincount(groups).min()


def test_what_a_kept_split_separates_is_named() -> None:
    """A duplicate, a neighbour and a lonely particle; the same with all of them together."""
    positions = np.array([[0.0, 0, 0], [5, 0, 0], [1000, 0, 0], [1080, 0, 0], [2000, 0, 0], [2000, 500, 0]])
    optset = particles_at(positions, halves=[1, 2, 1, 2, 1, 2])
    text = separated(optset, optset.particles.half_set, 200.0)
    assert text is not None
    assert text.startswith("4 of 6 particles")
    assert "2 of them one so close that it is the same particle" in text
    assert "0/0, 0/1" in text
    assert separated(optset, np.array([1, 1, 2, 2, 1, 2]), 200.0) is None
    # the same place in another series is another particle
    twins = particles_at(positions[:2], np.array([0, 1]))
    assert separated(twins, np.array([1, 2]), 200.0) is None


@pytest.mark.parametrize(("split", "halves"), [("keep", [1, 1, 1]), ("keep", [1, 0, 2]), ("auto", [2, 2, 2])])
def test_halves_that_cannot_be_kept(split: Any, halves: list[int]) -> None:
    optset = particles_at(np.eye(3) * 1000.0, halves=halves)
    with pytest.raises(DataError, match="--split object"):
        assign_half_sets(optset, split, 1, 100.0)


def test_one_particle_has_no_halves() -> None:
    with pytest.raises(DataError, match="two particles are the least"):
        assign_half_sets(particles_at(np.zeros((1, 3))), "random", 1, 1.0)
