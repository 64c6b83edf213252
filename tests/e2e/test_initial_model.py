"""Maps from random orientations of a few simulated particles: found, the same again, continued, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.refinements import DIAMETER, simulated
from tiltwise.errors import Aborted, ConfigError, DataError
from tiltwise.initial.options import InitialModelOptions
from tiltwise.initial.plan import March, Shells
from tiltwise.initial.results import InitialModelResult
from tiltwise.initial.run import run
from tiltwise.io.mrc import read_map
from tiltwise.io.star import read_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.jobs.relion import ABORT_NOW
from tiltwise.kernels.select import load_backend
from tiltwise.maps.superpose import superpose
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.filters import resample


class Stopping(SilentProgress):
    """Asks the job in `folder` to stop after so many iterations of all stages."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__()
        self.folder, self.left = folder, after

    def iteration(self, row: Any) -> None:
        self.left -= 1
        if self.left == 0:
            (self.folder / ABORT_NOW).touch()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("initial"), 22)


def options(data: SimulatedData, folder: Path, **changes: Any) -> InitialModelOptions:
    values: dict[str, Any] = {
        "input": data.optimisation_set,
        "particle_diameter": DIAMETER + 10.0,
        "resolution": 30.0,
        "starts": 2,
        "threads": 1,
    }
    return InitialModelOptions(output=folder, **{**values, **changes})


def made(chosen: InitialModelOptions, progress: SilentProgress | None = None) -> InitialModelResult:
    progress = progress or SilentProgress()
    with FolderJob(chosen, ["tiltwise", "initial-model"], progress) as job:
        return run(chosen, job, progress)


@pytest.fixture(scope="module")
def result(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> InitialModelResult:
    return made(options(data, tmp_path_factory.mktemp("first") / "job", subset=40))


def test_map_is_that_of_the_particle(result: InitialModelResult, data: SimulatedData) -> None:
    truth, pixel = read_map(data.true_map)
    truth = resample(truth, pixel, result.pixel_size, len(result.map))
    shells = len(result.map) * result.pixel_size / 35.0
    found = superpose(result.map, truth, shells, load_backend("auto"), hands=True)
    assert found.score >= 0.85
    assert not found.mirrored
    assert min(result.choice["agreement"]) >= 0.8
    assert result.resolution_angstrom <= 35.0


def test_files_are_for_the_next_job(result: InitialModelResult) -> None:
    density, pixel = read_map(result.outputs["map"])
    assert pixel == pytest.approx(result.pixel_size)
    assert np.array_equal(density, result.map)
    summary = json.loads(result.outputs["summary"].read_text())
    assert summary["start"] == result.choice["start"]
    assert len(summary["fsc"]) == len(density) // 2 + 1
    table = read_star(result.outputs["particles"])["particles"]
    assert len(table) == 44
    assert result.outputs["optimisation_set"].is_file()


def test_stopped_and_continued_it_leaves_the_same_bytes(
    result: InitialModelResult, data: SimulatedData, tmp_path: Path
) -> None:
    names = ("initial_model.mrc", "initial_model_half1_unfil.mrc", "run_data.star", "initial.json")
    first = {name: (result.outputs["map"].parent / name).read_bytes() for name in names}
    chosen = options(data, tmp_path / "job", subset=40)
    with pytest.raises(Aborted):
        made(chosen, Stopping(tmp_path / "job", 19))  # two starts, and one iteration in half sets
    with pytest.raises(Aborted):
        made(chosen, Stopping(tmp_path / "job", len(result.history) - 19))  # before the final iteration
    made(chosen)
    for name in names:
        assert (tmp_path / "job" / name).read_bytes() == first[name], name


def test_too_few_particles_are_refused(data: SimulatedData, tmp_path: Path) -> None:
    few = simulated(tmp_path, 4)
    with pytest.raises(DataError, match="too few particles"):
        made(options(few, tmp_path / "job"))


def test_boxes_follow_from_diameter_and_resolution(data: SimulatedData, tmp_path: Path) -> None:
    images = InitialModelOptions(input=data.optimisation_set, output=tmp_path, particle_diameter=150.0).images(2.0)
    assert images.binning == 5.0
    assert images.map_size == 24
    assert images.box == 32
    shells = Shells.of(images.map_size, 10.0, 150.0)
    assert (shells.first, shells.last) == (5, 12)


@pytest.mark.parametrize(
    ("changes", "pixel", "words"),
    [
        ({"box": 16, "binning": 1.0}, 5.0, "the box is too small"),
        ({"crop": 16, "binning": 1.0}, 5.0, "the box is too small"),
        ({"resolution": 8.0}, 5.0, "the pixels are too large for the resolution"),
        ({"binning": 8.0}, 5.0, "the pixels are too large for the resolution"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(tmp_path: Path, changes: Any, pixel: float, words: str) -> None:
    chosen = InitialModelOptions(input=tmp_path / "set.star", output=tmp_path, particle_diameter=150.0, **changes)
    with pytest.raises(ConfigError, match=words):
        chosen.images(pixel)


def test_particles_too_small_for_the_pixels_are_refused() -> None:
    with pytest.raises(ConfigError, match="the pixels are too large for the particle"):
        Shells.of(14, 10.0, 80.0)


def test_diameter_and_particles_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--particle-diameter"):
        InitialModelOptions(input=tmp_path / "set.star", output=tmp_path)
    with pytest.raises(ConfigError, match="no particles to work on"):
        InitialModelOptions(output=tmp_path, particle_diameter=100.0)


def test_march_ends_when_nothing_is_gained() -> None:
    march = March(8)
    curve = np.where(np.arange(14) <= 9, 0.9, 0.0)
    while not march.done:
        march.update(curve, 13)
    assert march.radius == 11
    assert march.iteration == 3  # two searches everywhere, one without gain
