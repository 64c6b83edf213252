"""What a refinement leaves for users of RELION, and RELION's own programs on it where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from helpers.refinements import run_refine, simulated
from tiltwise.io.mrc import read_map
from tiltwise.io.star import StarDocument, read_star, write_star
from tiltwise.jobs.relion import OUTPUT_NODES
from tiltwise.sim.simulate import SimulatedData

ITERATION = ("data.star", "half1_class001.mrc", "half2_class001.mrc", "half1_model.star", "half2_model.star")
SHARED = ("sampling.star", "optimiser.star")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("files"), 4)


@pytest.fixture(scope="module")
def folder(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refined") / "job"
    run_refine(data, folder, iterations=2, write_iterations="all")
    return folder


def iterations(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("run_it*"))


def test_files_of_iterations(data: SimulatedData, folder: Path, tmp_path: Path) -> None:
    """All; then only the last ones when a run is continued; a run from the start clears them."""
    expected = [f"run_it{number:03d}_{name}" for number in (1, 2) for name in (*ITERATION, *SHARED)]
    assert iterations(folder) == sorted(expected)
    run_refine(data, tmp_path, iterations=1)
    run_refine(data, tmp_path, iterations=2)
    assert iterations(tmp_path) == sorted(f"run_it002_{name}" for name in (*ITERATION, *SHARED))
    run_refine(data, tmp_path, iterations=1, write_iterations="none", redo=True)
    assert iterations(tmp_path) == []


def test_particles_have_relions_columns_and_errors_of_poses(folder: Path) -> None:
    particles = read_star(folder / "run_data.star")["particles"]
    assert particles.integers("rlnGroupNumber").tolist() == [1] * 4 + [2] * 4
    assert set(particles.integers("rlnClassNumber")) == {1}
    assert set(particles.floats("rlnNormCorrection")) == {1.0}
    assert particles.floats("tiltwiseAngleStd").min() > 0
    assert particles.floats("tiltwiseOriginStdAngst").min() > 0
    effective, significant = particles.floats("tiltwiseEffectivePoses"), particles.floats("rlnNrOfSignificantSamples")
    assert effective.min() >= 1
    assert np.all(effective <= significant * (1 + 1e-5))
    # sum p^2 <= max p; poses of a grid hold 99.9 % of the posterior
    assert np.all(effective * particles.floats("rlnMaxValueProbDistribution") >= 0.998)


def test_model_agrees_with_the_maps(folder: Path) -> None:
    model, optimiser = read_star(folder / "run_model.star"), read_star(folder / "run_optimiser.star")
    general, table = model["model_general"], model["model_class_1"]
    density, pixel_size = read_map(folder / "run_class001.mrc")
    assert int(general.value("rlnOriginalImageSize")) == len(density)
    assert abs(float(general.value("rlnPixelSize")) - pixel_size) <= 1e-5
    curve = table.floats("rlnGoldStandardFsc")
    shell = len(density) * pixel_size / float(general.value("rlnCurrentResolution"))
    assert np.all(curve[1 : int(shell) + 1] >= 0.143)
    assert sum(model["model_groups"].integers("rlnGroupNrParticles")) == 8
    directions = read_star(folder / "run_sampling.star")["sampling_directions"]
    assert len(model["model_pdf_orient_class_1"]) == len(directions)
    for label, name in (
        ("rlnModelStarFile", "run_model.star"),
        ("rlnExperimentalDataStarFile", "run_data.star"),
        ("rlnOrientSamplingStarFile", "run_sampling.star"),
    ):
        assert Path(optimiser["optimiser_general"].value(label)).name == name
    nodes = read_star(folder / OUTPUT_NODES)["output_nodes"]
    assert "OptimiserData.star.relion.refine3d" in nodes.text("rlnPipeLineNodeTypeLabel")


def relion(program: str, *arguments: str, cwd: Path) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ERROR" not in done.stderr, done.stderr[-2000:]
    return done.stdout


def with_image_size(folder: Path) -> Path:
    """Particles as they would be after extraction: RELION 3.1 refuses optics groups without images."""
    document = read_star(folder / "run_data.star")
    optics = document["optics"].copy()
    optics.set_floats("rlnImagePixelSize", [6.0])
    optics.set_integers("rlnImageSize", [32])
    optics.set_integers("rlnImageDimensionality", [2])
    path = folder / "extracted_data.star"
    write_star(path, StarDocument(document.replace(optics).blocks))
    return path


def test_relion_selects_particles(folder: Path) -> None:
    """relion_star_handler keeps our columns and finds its own."""
    with_image_size(folder)
    select = ("--select", "rlnMaxValueProbDistribution", "--minval", "0", "--o", "selected.star")
    relion("relion_star_handler", "--i", "extracted_data.star", *select, cwd=folder)
    selected = read_star(folder / "selected.star")["particles"]
    assert len(selected) == 8
    assert "tiltwiseAngleStd" in selected


def test_relion_reads_maps_and_model(folder: Path) -> None:
    found = relion("relion_image_handler", "--i", "run_class001.mrc", "--stats", cwd=folder)
    assert "32 x 32 x 32" in found
    assert "angpix = 6" in found
    columns = ("rlnSpectralIndex", "rlnGoldStandardFsc", "rlnReferenceTau2")
    table = relion("relion_star_printtable", "run_model.star", "data_model_class_1", *columns, cwd=folder)
    assert len(table.strip().splitlines()) == 17
