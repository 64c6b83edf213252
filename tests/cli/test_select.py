"""`tiltwise select` on files from end to end, and its answers to bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.false_particles import Planted, planted
from helpers.lattice import SPACING, simulated_array
from tiltwise.cli.main import main
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set
from tiltwise.io.star import read_star, write_star
from tiltwise.io.trajectories import write_trajectories


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A simulated lattice of particles that rock by 3 degrees, with false particles and errors of refined poses."""
    folder = tmp_path_factory.mktemp("array")
    data = simulated_array(folder / "data", orientations="aligned", rocking=3.0, tilt_step=30.0)
    optset = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    made = planted(
        optset,
        folder / "in",
        anywhere=40,
        turned=12,
        between=10,
        copies=12,
        error_angstrom=2.0,
        error_deg=3.0,
        spacing=SPACING,
        tomograms=data.truth.parent / "tomograms.star",
    )
    path = folder / "in" / "motion.star"
    names = load_optimisation_set(made.optimisation_set).particles.name
    write_trajectories(path, {name: np.full((5, 3), float(i)) for i, name in enumerate(names)})
    files = {key: made.optimisation_set.with_name(f"{key}.star") for key in ("particles",)}
    write_optimisation_set(
        made.optimisation_set, tomograms=data.truth.parent / "tomograms.star", trajectories=path, **files
    )
    return made


def test_a_lattice_is_cleaned(made: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "job"
    words = ["--lattice", "--min-distance", 20, "--min-tilts", 3, "--where", "rlnMaxValueProbDistribution > 0.1"]
    assert call("select", "--i", made.optimisation_set, "--o", out, *words) == 0
    shown = capsys.readouterr()
    assert "copies were in the other half set" in shown.out
    result = load_optimisation_set(out / "optimisation_set.star")
    before = load_optimisation_set(made.optimisation_set)
    row_of = {name: row for row, name in enumerate(before.particles.name)}
    rows = np.array([row_of[name] for name in result.particles.name])
    assert made.true[rows].mean() >= 0.97
    assert len(rows) / made.true.sum() >= 0.9  # a quarter of the places is empty: some have one neighbour
    # what is kept is kept to the letter, and in its order
    old, new = (read_star(folder / "particles.star")["particles"] for folder in (made.optimisation_set.parent, out))
    assert (np.diff(rows) > 0).all()
    assert new.columns == {label: [values[i] for i in rows] for label, values in old.columns.items()}
    assert list(result.trajectories) == list(result.particles.name)
    assert result.trajectories[result.particles.name[3]][0, 0] == rows[3]
    content = json.loads((out / "select.json").read_text())
    assert [one["name"] for one in content["criteria"]] == ["condition", "tilts", "lattice", "distance"]
    assert content["criteria"][-1]["left"] == len(rows) == content["particles"]["kept"]
    assert len(content["lattice"]["places"]) == 6
    assert content["lattice"]["spacing_angstrom"] == pytest.approx(SPACING, abs=2.0)
    removed = (out / "removed.csv").read_text().splitlines()
    assert len(removed) == 1 + len(before.particles) - len(rows)
    assert {line.split(",")[-1] for line in removed[1:]} == {"lattice", "distance"}
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in ("Criteria", "Neighbours", "Lattice", "Tomograms"):
        assert f"<h2>{title}</h2>" in page
    assert "optimisation_set.star" in (out / "RELION_OUTPUT_NODES.star").read_text()


def test_classes_scores_and_borders(made: Planted, tmp_path: Path) -> None:
    document = read_star(made.optimisation_set.with_name("particles.star"))
    block = document["particles"].copy()
    block.set_integers("rlnClassNumber", [1 + i % 3 for i in range(len(block))])
    block.set_floats("tiltwiseClassPosterior", [0.3 + 0.5 * (i % 2) for i in range(len(block))])
    write_star(tmp_path / "particles.star", document.replace(block))
    given = ["--i", made.optimisation_set, "--p", tmp_path / "particles.star"]
    words = ["--class", "1,3", "--min-probability", 0.5, "--border", 90, "--min-class-posterior", 0.5, "--tomo", "TS_*"]
    assert call("select", *given, "--o", tmp_path / "a", *words, "-q") == 0
    left = read_star(tmp_path / "a" / "particles.star")["particles"]
    assert set(left.text("rlnClassNumber")) == {"1", "3"}
    assert left.floats("tiltwiseClassPosterior").min() >= 0.5
    assert left.floats("rlnMaxValueProbDistribution").min() >= 0.5
    # tomograms are 240 pixels of 5 Å wide, and 40 deep
    centred = np.stack([left.floats(f"rlnCenteredCoordinate{axis}Angst") for axis in "XYZ"], axis=1)
    assert np.abs(centred[:, :2]).max() <= 600.0 - 90.0
    assert np.abs(centred[:, 2]).max() <= 100.0 - 90.0


BAD = [
    (["--class", "4"], 3, "column is missing: _rlnClassNumber"),
    (["--where", "rlnMaxValueProbDistribution > 2"], 3, "no particle is left"),
    (["--where", "rlnNo > 2"], 2, "a column of data_particles"),
    (["--tomo", "TS_77"], 2, "no tomogram with particles"),
    (["--lattice", "--lattice-neighbours", "7"], 3, "no particle is left"),
    (["--lattice", "--neighbour-distance", "3"], 3, "on no lattice"),
    (["--min-distance", "5", "--score", "rlnNo"], 3, "column is missing: _rlnNo"),
    (["--min-log-likelihood", "5"], 3, "column is missing: _rlnLogLikeliContribution"),
    (["--border", "1e4"], 3, "no particle is left"),
    ([], 2, "nothing to select by"),
]


@pytest.mark.parametrize("words, code, text", BAD)
def test_bad_input(
    words: list[str], code: int, text: str, made: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("select", "--i", made.optimisation_set, "--o", tmp_path / "job", *words, "--quiet") == code
    shown = capsys.readouterr().err
    assert text in shown
    assert "fix:" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "job" / "particles.star").exists()
