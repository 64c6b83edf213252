"""`tiltwise bfactor-plot` on a few simulated particles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.refinements import DIAMETER, simulated
from tiltwise.cli.main import main
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("bfactor"), 24)


def arguments(data: SimulatedData, folder: Path) -> list[str]:
    truth = data.true_map.parent / "optimisation_set.star"
    box = ["--b", "48", "--crop", "32", "--particle-diameter", str(DIAMETER), "--j", "1"]
    return ["bfactor-plot", "--i", str(truth), *box, "--split", "random", "--draws", "3", "--o", str(folder), "--quiet"]


def test_points_line_and_report(data: SimulatedData, tmp_path: Path) -> None:
    """Subsets of all sizes, every particle in one part; more particles do not make the resolution worse."""
    assert main(arguments(data, tmp_path / "job")) == 0
    content = json.loads((tmp_path / "job" / "bfactor.json").read_text())
    particles, resolution = (np.array(content[key]) for key in ("particles", "resolution_angstrom"))
    assert particles.max() == 48
    assert particles[-1] == 48
    assert set(particles[:3]) <= {12, 11, 13}
    means = [resolution[particles == count].mean() for count in np.unique(particles)]
    assert means[-1] < means[0]
    assert bool(content["refused"]) == (content["bfactor_angstrom2"] is None)
    text = (tmp_path / "job" / "report.html").read_text()
    assert "Resolution against particles" in text
    assert "<svg" in text
    other = arguments(data, tmp_path / "same")
    assert main(other) == 0
    assert (tmp_path / "same" / "bfactor.json").read_bytes() == (tmp_path / "job" / "bfactor.json").read_bytes()


def test_few_particles_are_refused(
    tiny_data: SimulatedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "bfactor-plot",
        "--i",
        str(tiny_data.optimisation_set),
        "--b",
        "24",
        "--o",
        str(tmp_path / "job"),
        "--quiet",
    ]
    assert main(command) == 3
    error = capsys.readouterr().err
    assert "too few particles" in error
    assert "at least 32" in error
