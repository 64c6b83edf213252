"""Options of a refinement that change what is fitted: given poses, contrast of tilt series."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from helpers.refinements import run_refine, simulated
from tiltwise.io.star import read_star
from tiltwise.sim.simulate import SimulatedData

POSE = [f"rlnAngle{name}" for name in ("Rot", "Tilt", "Psi")] + [f"rlnCenteredCoordinate{x}Angst" for x in "XYZ"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("options"), 8)


def test_given_poses_are_kept_and_judged(data: SimulatedData, tmp_path: Path) -> None:
    """The text of every pose stays; the true poses are likelier, more certain, and give the better map."""
    stated = run_refine(data, tmp_path / "stated", skip_align=True)
    truth = data.folder / "truth" / "optimisation_set.star"
    true = run_refine(data, tmp_path / "true", skip_align=True, input=truth)
    assert "poses of the file" in stated.stop_reason
    files = data.folder / "particles.star", tmp_path / "stated" / "run_data.star"
    before, after = (read_star(path)["particles"] for path in files)
    for label in POSE:
        assert after.columns[label] == before.columns[label], label
    assert "rlnOriginXAngst" not in after
    gain = [a.log_evidence - b.log_evidence for a, b in zip(true.estimates, stated.estimates, strict=True)]
    # 384 nats; a particle of 16 may be at its true pose by chance
    assert np.median(gain) > 100
    assert np.median([e.std_deg for e in true.estimates]) < np.median([e.std_deg for e in stated.estimates])
    assert true.resolution_angstrom < 0.6 * stated.resolution_angstrom
    assert all(row["change_deg"] < 1e-5 and row["change_angstrom"] == 0 for row in stated.history)


def test_contrast_of_series_is_found(tmp_path: Path) -> None:
    """Planted 0.7 and 1.3."""
    data = simulated(tmp_path, 8)
    folder = data.folder
    planted = np.array([0.7, 1.3])
    for factor, stack in zip(planted, sorted((folder / "tilt_series").glob("*.mrcs")), strict=True):
        with mrcfile.open(stack, "r+") as file:
            file.data[...] = file.data * np.float32(factor)
    job = tmp_path / "job"
    truth = folder / "truth" / "optimisation_set.star"
    run_refine(data, job, skip_align=True, scale=True, iterations=2, input=truth)
    found = read_star(job / "run_model.star")["model_groups"].floats("rlnGroupScaleCorrection")
    np.testing.assert_allclose(found, planted, rtol=0.06)  # 0.02 for 12 particles in each of 4 series
    assert read_star(job / "run_optimiser.star")["optimiser_general"].value("rlnDoCorrectScale") == "1"
