"""Maps from random orientations of a few simulated particles: found, the same again, continued, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.refinements import DIAMETER, simulated
from tiltwise.errors import Aborted, ConfigError, DataError
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.initial.choice import doubts
from tiltwise.initial.engine import Engine, one_mate_each
from tiltwise.initial.options import InitialModelOptions
from tiltwise.initial.plan import March, Shells
from tiltwise.initial.results import InitialModelResult
from tiltwise.initial.run import run
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.io.star import read_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.jobs.relion import ABORT_NOW
from tiltwise.kernels.select import load_backend
from tiltwise.maps.superpose import superpose
from tiltwise.selection.expand import run as run_expand
from tiltwise.selection.expand import with_mates
from tiltwise.selection.options import ExpandOptions
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


def test_hand_of_a_doubtful_map_is_in_doubt(result: InitialModelResult) -> None:
    assert not result.doubtful
    assert result.hand == "as the tilt geometry has it"
    alone = replace(result, choice={**result.choice, "agreement": [1.0, 0.5]})
    assert alone.doubtful
    assert alone.hand.startswith("in doubt")
    assert not replace(alone, starts=result.starts[:1]).doubtful


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
        ({"binning": 8.0, "resolution": 30.0}, 5.0, "the pixels are too large for the resolution"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(tmp_path: Path, changes: Any, pixel: float, words: str) -> None:
    chosen = InitialModelOptions(input=tmp_path / "set.star", output=tmp_path, particle_diameter=150.0, **changes)
    with pytest.raises(ConfigError, match=words):
        chosen.images(pixel)


def shells(folder: Path, **changes: Any) -> tuple[float, Shells]:
    """Pixels in Å that tilt images of 3 Å are binned to, and the shells of maps of them; of particles of 240 Å."""
    chosen = InitialModelOptions(input=folder / "set.star", output=folder, particle_diameter=240.0, **changes)
    images = chosen.images(3.0)
    pixel = 3.0 * images.binning
    return pixel, Shells.of(images.map_size, pixel, chosen.particle_diameter, chosen.finest_angstrom)


def test_resolution_is_aimed_at_whatever_the_binning(tmp_path: Path) -> None:
    """Finer pixels of --bin change no shell; --bin alone says how fine it may become."""
    coarse, of_resolution = shells(tmp_path, resolution=30.0)
    fine, of_both = shells(tmp_path, resolution=30.0, binning=1.0)
    assert (coarse, fine) == (12.0, 3.0)
    assert of_resolution == of_both == Shells(360.0, 5, 15)
    assert shells(tmp_path, binning=1.0)[1].last == 60
    assert shells(tmp_path, resolution=80.0, binning=1.0)[1].last == of_both.of_start + 1


def test_what_is_too_coarse_for_a_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the pixels are too large for the particle"):
        Shells.of(14, 10.0, 80.0)
    with pytest.raises(ConfigError, match="the pixels are too large for the particle"):
        shells(tmp_path, binning=20.0)


def test_prior_on_displacements_follows_the_range(data: SimulatedData, tmp_path: Path) -> None:
    assert options(data, tmp_path).first_offset_sigma_angstrom == pytest.approx(10.0)
    assert options(data, tmp_path, offset_range=6.0).first_offset_sigma_angstrom == pytest.approx(4.0)


def test_one_mate_of_every_particle_takes_part(data: SimulatedData, tmp_path: Path) -> None:
    optset, _ = with_mates(load_optimisation_set(data.optimisation_set), symmetry_matrices("C3"))
    count = len(optset.particles)
    assert one_mate_each(optset, 10.0).tolist() == list(range(0, count, 3))
    apart = optset.particles.coordinate_px + np.tile([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 1.0, 0.0]], (44, 1))
    parts = replace(optset, particles=replace(optset.particles, coordinate_px=apart))
    assert one_mate_each(parts, 10.0).tolist() == [row for row in range(count) if row % 3 < 2]
    assert len(one_mate_each(parts, 1.0)) == count


def test_an_expanded_set_is_warned_about(data: SimulatedData, tmp_path: Path) -> None:
    expand = ExpandOptions(input=data.optimisation_set, output=tmp_path / "expanded", symmetry="C2")
    with FolderJob(expand, ["tiltwise", "expand"], SilentProgress()) as job:
        expanded = run_expand(expand, job, SilentProgress()).outputs["optimisation_set"]
    chosen = options(data, tmp_path / "job", input=expanded)
    with FolderJob(chosen, ["tiltwise", "initial-model"], SilentProgress()) as job:
        engine = Engine(chosen, job, SilentProgress())
        assert engine.count == 44
    assert any("expanded by its symmetry" in text for text in job.summary()["warnings"])


def test_diameter_and_particles_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--particle-diameter"):
        InitialModelOptions(input=tmp_path / "set.star", output=tmp_path)
    with pytest.raises(ConfigError, match="no particles to work on"):
        InitialModelOptions(output=tmp_path, particle_diameter=100.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"agreement": [1.0], "start": 1}, []),
        ({"agreement": [0.79, 1.0, 0.2]}, ["0.79 at most"]),
        ({"agreement": [0.79, 1.0, 0.2], "hand_determined": False}, ["0.79 at most", "mirror image"]),
        ({"symmetry_score": 0.59}, ["hardly has the symmetry C6"]),
        ({"symmetry_score": 0.61}, []),
    ],
)
def test_doubts_are_told(changes: dict[str, Any], words: list[str]) -> None:
    choice: dict[str, Any] = {"agreement": [0.3, 1.0, 0.81], "start": 2, "hand_nats": 1.0, "hand_nats_error": 0.1}
    told = list(doubts(choice | {"hand_determined": True, "symmetry_score": None} | changes, "C6"))
    assert len(told) == len(words)
    for text, part in zip(told, words, strict=True):
        assert part in text


def test_march_ends_when_nothing_is_gained() -> None:
    march = March(8)
    curve = np.where(np.arange(14) <= 9, 0.9, 0.0)
    while not march.done:
        march.update(curve, 13)
    assert march.radius == 11
    assert march.iteration == 3  # two searches everywhere, one without gain
