"""Particles whose boxes reach over the edge of every tilt image are left out, and a sentence says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.refinements import refine_options, simulated

from tiltwise.em import reconstruct, refine
from tiltwise.em.options import ReconstructOptions
from tiltwise.errors import DataError
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set, write_particles
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.report.commands import write_refine_report
from tiltwise.sim.simulate import SimulatedData


class Warnings(SilentProgress):
    def __init__(self) -> None:
        super().__init__()
        self.texts = list[str]()

    def warn(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("unseen"), particles=8)


def moved_away(data: SimulatedData, folder: Path, rows: list[int]) -> Path:
    optset = load_optimisation_set(data.optimisation_set)
    coordinates = optset.particles.coordinate_px.copy()
    coordinates[rows] += 1000.0
    particles = folder / "particles.star"
    write_particles(particles, optset, particles=replace(optset.particles, coordinate_px=coordinates))
    write_optimisation_set(folder / "set.star", particles=particles, tomograms=optset.paths["tomograms"])
    return folder / "set.star"


def test_refine_leaves_them_out(data: SimulatedData, tmp_path: Path) -> None:
    source, progress = moved_away(data, tmp_path, [5]), Warnings()
    options = refine_options(data, tmp_path / "out", input=source, iterations=1)
    with FolderJob(options, ["tiltwise", "refine"], progress) as job:
        result = refine.run(options, job, progress)
        write_refine_report(job.path("report.html"), options, result, job.content)
    lost = load_optimisation_set(source).particles.name[5]
    assert any(f"left out: {lost}" in text for text in progress.texts)
    written = load_optimisation_set(result.outputs["optimisation_set"])
    assert len(written.particles) == 15
    assert lost not in written.particles.name
    assert np.isfinite(result.map).all()


def test_reconstruct_leaves_them_out(data: SimulatedData, tmp_path: Path) -> None:
    source, progress = moved_away(data, tmp_path, [5]), Warnings()
    options = ReconstructOptions(input=source, output=tmp_path / "out", box=48, crop=32, threads=1)
    with FolderJob(options, ["tiltwise", "reconstruct"], progress) as job:
        result = reconstruct.run(options, job, progress)
    assert any("1 particles lie outside every tilt image and are left out" in text for text in progress.texts)
    assert np.isfinite(result.map).all()


def test_many_are_a_mistake(data: SimulatedData, tmp_path: Path) -> None:
    source = moved_away(data, tmp_path, [1, 2, 5])
    options = refine_options(data, tmp_path / "out", input=source, iterations=1)
    with (
        pytest.raises(DataError, match="3 particles lie outside every tilt image"),
        FolderJob(options, ["tiltwise", "refine"], SilentProgress()) as job,
    ):
        refine.run(options, job, SilentProgress())
