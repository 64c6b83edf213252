"""Criteria of `tiltwise select` one by one: lattices, copies, columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.false_particles import Planted, planted, set_of, sheet, tube
from tiltwise.errors import ConfigError, DataError
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.io.star import StarBlock
from tiltwise.model.poses import poses_of
from tiltwise.selection import columns
from tiltwise.selection.belief import Model, believed
from tiltwise.selection.duplicates import best_of_close
from tiltwise.selection.lattice import Lattice, conforming, sightings
from tiltwise.selection.neighbours import close_pairs, nearest_pairs
from tiltwise.selection.options import SelectOptions
from tiltwise.selection.places import Place
from tiltwise.sim.specimen import random_rotations

C1 = np.eye(3)[None]
FALSE = {"anywhere": 80, "turned": 30, "between": 30, "error_angstrom": 3.0, "error_deg": 4.0}


def cleaned(made: Planted, **changes: Any) -> Lattice:
    optset = load_optimisation_set(made.optimisation_set, need_images=False)
    return conforming(optset, np.arange(len(optset.particles)), **({"symmetry": C1} | changes))


def precision_and_recall(made: Planted, lattice: Lattice) -> tuple[float, float]:
    true = made.true | (made.kind == "copy")
    return float(true[lattice.kept].mean()), float(lattice.kept[true].mean())


@pytest.mark.parametrize("form", ["sheet", "tube"])
def test_false_particles_are_found_on_flat_and_bent_lattices(form: str, tmp_path: Path) -> None:
    optset = set_of(*(sheet(15, 80.0, 20.0) if form == "sheet" else tube(14, 14, 75.0, 170.0)))
    made = planted(optset, tmp_path, copies=10, **FALSE)
    lattice = cleaned(made)
    precision, recall = precision_and_recall(made, lattice)
    assert precision >= 0.97
    assert recall >= 0.95
    assert len(lattice.places) == 6
    assert lattice.spacing_angstrom == pytest.approx(80.0 if form == "sheet" else 75.5, abs=2.0)
    # copies count once: no particle has more places than there are
    assert lattice.taken.max() <= 6


def test_most_particles_may_be_false(tmp_path: Path) -> None:
    made = planted(set_of(*sheet(15, 80.0)), tmp_path, **(FALSE | {"anywhere": 800}))
    precision, recall = precision_and_recall(made, cleaned(made))
    assert precision >= 0.97
    assert recall >= 0.95


def test_places_that_false_particles_hide_are_found(tmp_path: Path) -> None:
    """A bent lattice, four of five particles false, and errors so large that neighbours are hard to tell from them."""
    poses = tube(14, 14, 80.0, 170.0)
    made = planted(set_of(*poses), tmp_path, anywhere=540, turned=24, between=24, error_angstrom=6.0, error_deg=6.0)
    lattice = cleaned(made)
    precision, recall = precision_and_recall(made, lattice)
    assert precision >= 0.95
    assert recall >= 0.88
    assert len(lattice.places) == 6
    # errors of both particles, and what the turn of the first does to the place
    assert lattice.model.sigma_angstrom == pytest.approx(9.0, rel=0.2)
    assert lattice.model.sigma_deg == pytest.approx(6.0 * np.sqrt(2.0 / 3.0), rel=0.2)
    # probabilities say how many are true
    assert lattice.probability.sum() == pytest.approx(made.true.sum(), rel=0.1)


def test_particles_anywhere_believe_nobody() -> None:
    """Places that are none, among particles so dense that half of them see another in one."""
    rng = np.random.default_rng(7)
    optset = set_of(rng.uniform(500.0, 900.0, (900, 3)), random_rotations(900, rng))
    places = [Place(80.0 * sign * np.eye(3)[axis], np.eye(3)) for axis in range(3) for sign in (1.0, -1.0)]
    pairs = close_pairs(optset, np.arange(900), 40.0, 120.0)
    seen = sightings(pairs, places, C1, 32.0, 60.0)
    assert len(np.unique(seen.first)) > 300
    there = seen.back >= 0
    assert there.any()
    np.testing.assert_array_equal(seen.back[seen.back[there]], np.flatnonzero(there))
    np.testing.assert_array_equal(seen.second[seen.back[there]], seen.first[there])
    beliefs = believed(seen, np.full(900, 900 / 400.0**3), 6, Model(10.0, 6.0), (1.0, 1.0))
    assert (beliefs.particles >= 0.5).mean() < 0.01


def test_mates_of_symmetric_particles_are_the_same(tmp_path: Path) -> None:
    """Every particle at a mate of its own: without the point group neighbours are turned by multiples of 60 degrees."""
    position, rotation = sheet(13, 80.0, 20.0)
    group = symmetry_matrices("C6")
    rotation = rotation @ group[np.random.default_rng(2).integers(6, size=len(rotation))]
    made = planted(set_of(position, rotation), tmp_path, **FALSE)
    lattice = cleaned(made, symmetry=group)
    precision, recall = precision_and_recall(made, lattice)
    assert precision >= 0.97
    assert recall >= 0.9  # a third of the places is empty: some have one neighbour
    assert len(lattice.places) == 6
    # without the group every neighbour may be turned six ways
    assert len(cleaned(made).places) > 6


@pytest.mark.parametrize("kind", ["random", "one orientation", "one orientation in a plane"])
def test_no_lattice_is_found_where_there_is_none(kind: str) -> None:
    rng = np.random.default_rng(5)
    position = rng.uniform(0.0, 1800.0, (400, 3)) * [1.0, 1.0, 0.4]
    if kind.endswith("plane"):
        position[:, 2] = 400.0
    rotation = random_rotations(400, rng) if kind == "random" else np.broadcast_to(np.eye(3), (400, 3, 3))
    with pytest.raises(DataError, match="on no lattice"):
        conforming(set_of(position, rotation), np.arange(400), C1)


def test_a_chain_and_two_particles() -> None:
    """A filament has two places, of which its ends have one; two particles are no lattice."""
    position = np.array([1000.0, 200.0, 500.0]) + np.arange(24)[:, None] * [0.0, 60.0, 0.0]
    optset = set_of(position, np.broadcast_to(np.eye(3), (24, 3, 3)))
    lattice = conforming(optset, np.arange(24), C1)
    assert len(lattice.places) == 2
    assert lattice.least == 1
    assert lattice.kept.all()
    assert not conforming(optset, np.arange(24), C1, least=2).kept.any()  # ends go, then the new ends, one by one
    with pytest.raises(DataError, match="on no lattice"):
        conforming(optset, np.arange(2), C1)


@pytest.mark.parametrize("copies", [2, 14])
def test_copies_in_one_place_are_no_neighbours(copies: int) -> None:
    """Exact ones: more of them than there are nearest neighbours that are looked at first."""
    position, rotation = sheet(9, 80.0, 20.0)
    optset = set_of(np.tile(position, (copies, 1)), np.tile(rotation, (copies, 1, 1)))
    lattice = conforming(optset, np.arange(len(optset.particles)), C1)
    assert lattice.spacing_angstrom == pytest.approx(80.0, rel=0.01)
    assert len(lattice.places) == 6
    assert lattice.kept.all()


def test_neighbours_against_all_pairs() -> None:
    rng = np.random.default_rng(1)
    optset = set_of(rng.uniform(500.0, 1000.0, (40, 3)), random_rotations(40, rng))
    rotation, position = poses_of(optset)
    rows = np.arange(0, 40, 2)
    pairs = close_pairs(optset, rows, 50.0, 200.0)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    apart = np.linalg.norm(position[:, None] - position, axis=-1)
    assert found == {(i, j) for i in rows for j in rows if i != j and 50.0 <= apart[i, j] <= 200.0}
    back = np.einsum("nij,nj->ni", rotation[pairs.first], pairs.shift) + position[pairs.first]
    np.testing.assert_allclose(back, position[pairs.second], atol=1e-8)
    assert angular_distance_deg(rotation[pairs.first] @ pairs.turn, rotation[pairs.second]).max() < 1e-5
    near = nearest_pairs(optset, rows, 3)
    assert np.bincount(near.first, minlength=40)[rows].tolist() == [3] * 20
    for i in rows:
        others = np.sort(apart[i, rows])[1:4]
        np.testing.assert_allclose(np.sort(near.distance[near.first == i]), others, atol=1e-8)


def test_of_copies_the_best_is_kept() -> None:
    rng = np.random.default_rng(3)
    optset = set_of(rng.uniform(500.0, 700.0, (120, 3)), random_rotations(120, rng))
    rows, score = np.arange(10, 120), rng.random(120)
    pairs = close_pairs(optset, rows, 0.0, 40.0)
    found = best_of_close(pairs, rows, score, np.arange(120))
    assert not found.kept[:10].any()
    assert not (found.kept[pairs.first] & found.kept[pairs.second]).any()
    gone = np.flatnonzero(~found.kept & (np.arange(120) >= 10))
    assert len(gone) > 20
    close = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    for row in gone:
        other = int(found.instead[row])
        assert found.kept[other]
        assert (row, other) in close
        assert score[other] >= score[row]
    # mates of one particle are no copies of each other
    whole = best_of_close(pairs, rows, score, np.zeros(120, np.intp))
    assert whole.kept[10:].all()


def table(**values: list[Any]) -> StarBlock:
    block = StarBlock("particles", "loop", {})
    for label, column in values.items():
        block.columns[label] = [str(value) for value in column]
    return block


def test_columns() -> None:
    block = table(rlnClassNumber=[1, 2, 3, 1, 2], rlnLogLikeliContribution=[5.0, 4, 3, 2, 1])
    assert columns.of_classes(block, "1, 3").tolist() == [True, False, True, True, False]
    assert columns.at_least(block, columns.LOG_LIKELIHOOD, 3, "--x").tolist() == [True, True, True, False, False]
    assert columns.where(block, "rlnClassNumber == 2 or row == 1").tolist() == [True, True, False, False, True]
    names = ["TS_01", "TS_02", "TS_10", "lam_1", "TS_01"]
    assert columns.of_tomograms(names, "TS_0*,lam_?", "--tomo").tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda block: columns.of_classes(block, "1,7,9"), r"classes have no particles[\s\S]*1 \(3 part[\s\S]*7, 9"),
        (lambda block: columns.of_classes(block, "one"), "numbers with commas"),
        (lambda block: columns.of_classes(block, " , "), "numbers with commas"),
        (lambda block: columns.at_least(block, "rlnNo", 1.0, "--flag"), r"missing: _rlnNo[\s\S]*leave --flag out"),
        (lambda block: columns.of_tomograms(["TS_1"], "TS_2*", "--tomo"), r"no tomogram[\s\S]*TS_1[\s\S]*TS_2\*"),
        (lambda block: columns.of_tomograms(["TS_1"], "TS_1,", "--tomo"), "found: nothing"),
    ],
)
def test_columns_that_are_not_there(call: Any, words: str) -> None:
    with pytest.raises((ConfigError, DataError), match=words):
        call(table(rlnClassNumber=[1, 1, 1]))


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, "nothing to select by"),
        ({"min_tilts": 3, "lattice_angle": 5.0}, "there is no --lattice"),
        ({"min_tilts": 3, "symmetry": "C6"}, "there is no --lattice"),
        ({"lattice": True, "score": "rlnX"}, "there is no --min-distance"),
    ],
)
def test_options_without_effect(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        SelectOptions(input=tmp_path / "a.star", output=tmp_path / "o", **values)
