"""Sets expanded by their symmetry: the same map in C1, mates in one half and fold, no global searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.lattice import simulated_array
from tiltwise.cli.main import main
from tiltwise.geometry.pose_errors import pose_errors
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set
from tiltwise.io.star import read_star, write_star
from tiltwise.io.trajectories import write_trajectories
from tiltwise.maps.cross_fit import assign_folds
from tiltwise.maps.half_sets import assign_half_sets
from tiltwise.model.poses import poses_of
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.fsc import fsc


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """30 particles with C4 symmetry on a lattice, with priors of RELION and motion."""
    folder = tmp_path_factory.mktemp("c4")
    data = simulated_array(folder / "data", symmetry="C4", particles=30, snr=1.0, error_shift=0.0, error_position=0.0)
    path = data.folder / "particles.star"
    document = read_star(path)
    block = document["particles"]
    block.set_floats("rlnAngleTiltPrior", block.floats("rlnAngleTilt"))
    block.set_text("someColumn", [f"value {i}" for i in range(len(block))])
    write_star(path, document)
    names = block.text("rlnTomoParticleName")
    write_trajectories(data.folder / "motion.star", {name: np.full((13, 3), i) for i, name in enumerate(names)})
    files = {key: data.folder / f"{key}.star" for key in ("particles", "tomograms")}
    write_optimisation_set(data.optimisation_set, trajectories=data.folder / "motion.star", **files)
    return data


@pytest.fixture(scope="module")
def expanded(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expanded") / "job"
    assert call("expand", "--i", data.optimisation_set, "--sym", "C4", "--o", out, "-q") == 0
    return out / "optimisation_set.star"


def test_every_particle_once_for_each_mate(data: SimulatedData, expanded: Path) -> None:
    before, after = load_optimisation_set(data.optimisation_set), load_optimisation_set(expanded)
    old, new = (read_star(path.with_name("particles.star"))["particles"] for path in (data.optimisation_set, expanded))
    assert len(new) == 120
    assert new.text("rlnTomoParticleName")[:5] == ["TS_01/1", "TS_01/1_m2", "TS_01/1_m3", "TS_01/1_m4", "TS_01/2"]
    assert new.integers("tiltwiseSymmetryMate")[:5].tolist() == [1, 2, 3, 4, 1]
    for mate in range(4):
        rows = np.arange(mate, 120, 4)
        part, same = new.take(rows), set(old.columns) - {"rlnTomoParticleName"}
        if mate:
            same -= {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnAngleTiltPrior"}
        assert {label: part.columns[label] for label in same} == {label: old.columns[label] for label in same}
        rotation, position = poses_of(after)
        true_rotation, true_position = poses_of(before)
        np.testing.assert_allclose(position[rows], true_position, atol=1e-9)
        wanted = true_rotation @ symmetry_matrices("C4")[mate]
        np.testing.assert_allclose(rotation[rows], wanted, atol=1e-6)
        np.testing.assert_allclose(part.floats("rlnAngleTiltPrior"), part.floats("rlnAngleTilt"), atol=1e-4)
    assert list(after.trajectories) == list(after.particles.name)
    np.testing.assert_array_equal(after.trajectories["TS_01/2_m3"], before.trajectories["TS_01/2"])
    assert after.particles.source[5] == "TS_01/2"
    same = pose_errors(*poses_of(after), *poses_of(after), symmetry=symmetry_matrices("C4"))
    assert same.angle_deg.max() < 1e-5


def test_mates_stay_in_one_half_and_fold(expanded: Path) -> None:
    """Also where the lattice is one object that is cut, and where halves are drawn at random."""
    optset = load_optimisation_set(expanded)
    source = optset.particles.source_index
    for split in ("random", "object"):
        halves, _ = assign_half_sets(optset, split, 1, 40.0)
        assert (halves == halves[source]).all()
        assert (halves == 1).sum() == 60
    halves = optset.particles.half_set
    folds = assign_folds(optset, halves, 3, 100.0, 1)
    assert (folds == folds[source]).all()
    for half in (1, 2):
        assert np.bincount(folds[halves == half]).tolist() == [20, 20, 20]


def test_the_map_in_c1_is_the_symmetric_one(data: SimulatedData, expanded: Path, tmp_path: Path) -> None:
    words = ["--b", 32, "--particle-diameter", 90, "--j", 1, "-q"]
    assert call("reconstruct", "--i", data.optimisation_set, "--sym", "C4", "--o", tmp_path / "a", *words) == 0
    assert call("reconstruct", "--i", expanded, "--o", tmp_path / "b", *words) == 0
    first, second = (read_map(next((tmp_path / name).glob("m*.mrc")))[0] for name in "ab")
    # sums of the first are interpolated once more, where the group turns them: less is left near Nyquist
    assert fsc(first, second)[1:13].min() > 0.98


def test_mates_are_no_copies(expanded: Path, tmp_path: Path) -> None:
    out = tmp_path / "near"
    assert call("select", "--i", expanded, "--min-distance", 20, "--o", out, "-q") == 0
    assert len(load_optimisation_set(out / "optimisation_set.star").particles) == 120
    assert call("select", "--i", expanded, "--min-distance", 85, "--o", out, "--redo", "-q") == 0
    left = load_optimisation_set(out / "optimisation_set.star").particles
    assert 0 < len(left) < 120
    assert len(left) == 4 * len(set(left.source))  # with a particle go all its mates
    assert call("select", "--i", expanded, "--where", "tiltwiseSymmetryMate == 1", "--o", out, "--redo", "-q") == 0
    left = load_optimisation_set(out / "optimisation_set.star").particles
    assert len(left) == 30
    assert not left.has_mates


@pytest.mark.parametrize(
    "words, code, text",
    [
        (["expand", "--sym", "C4"], 3, "expanded already"),
        (["expand", "--sym", "C1"], 2, "no symmetry mates"),
        (["refine", "--b", "32", "--ref", "REF"], 2, "searched everywhere"),
        (["refine", "--b", "32", "--relax-sym", "C4"], 2, "holds all mates already"),
        (["classify", "--b", "32", "--align", "global"], 2, "searched everywhere"),
        (["classify", "--b", "32", "--sym", "C4", "--k", "64"], 2, "on an expanded set the symmetry is C1"),
        (["select", "--lattice", "--sym", "C4"], 3, "no neighbours on a lattice"),
    ],
)
def test_what_cannot_be(
    words: list[str],
    code: int,
    text: str,
    data: SimulatedData,
    expanded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(data.reference) if word == "REF" else word for word in words]
    assert call(*words, "--i", expanded, "--o", tmp_path / "job", "-q") == code
    shown = capsys.readouterr().err
    assert text in shown
    assert "fix:" in shown or code == 2
