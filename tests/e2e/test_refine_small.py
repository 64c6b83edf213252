"""Refinement and reconstruction of 16 simulated particles whose poses are known.

Bounds hold for seeds 1 to 10 of the data, with room; `SEED` has the worst start of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.compare import assert_close
from helpers.refinements import DIAMETER, MAPS, Listener, assert_same_files, run_refine, simulated
from tiltwise.em import reconstruct
from tiltwise.em.folds import FOLDS
from tiltwise.em.memory import plan_refine
from tiltwise.em.options import ReconstructOptions
from tiltwise.em.reconstruct import ReconstructResult
from tiltwise.errors import Aborted
from tiltwise.geometry.rotations import angular_distance_deg, matrix_to_euler
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.sim.score import score_map, score_poses
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("sixteen"), 8)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """Six particles, for the reference backend, which is slow."""
    return simulated(tmp_path_factory.mktemp("six"), 3)


def run_reconstruct(data: SimulatedData, folder: Path, **changes: Any) -> ReconstructResult:
    options = ReconstructOptions(
        input=data.optimisation_set, output=folder, box=48, crop=32, **{"threads": 1, **changes}
    )
    with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        return reconstruct.run(options, job, SilentProgress())


def assert_same_poses(found: OptimisationSet, expected: OptimisationSet) -> None:
    """Equal to what rounding may do.

    It decides whether a climb whose gain is near 5e-4 nats takes one more step, by up to 0.03 standard deviations of
    half a degree; and one particle may have two modes of the same height.
    """
    (rotation, position), (other_rotation, other_position) = poses_of(found), poses_of(expected)
    assert np.sort(angular_distance_deg(rotation, other_rotation))[-2] <= 0.05
    assert np.sort(np.linalg.norm(position - other_position, axis=1))[-2] <= 0.01


@pytest.fixture(scope="module")
def refined(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Job folder of the refinement that the others are compared with."""
    folder = tmp_path_factory.mktemp("refined") / "job"
    run_refine(data, folder)
    return folder


def test_refinement_finds_the_true_poses_and_map(data: SimulatedData, refined: Path) -> None:
    truth = load_optimisation_set(data.folder / "truth" / "optimisation_set.star")
    before = score_poses(load_optimisation_set(data.optimisation_set), truth)
    after = score_poses(load_optimisation_set(refined / "run_optimisation_set.star"), truth)
    # 8.9° -> 1.9° and 10.7 Å -> 0.8 Å; over the seeds the factors are 2.8 to 5.3 and 9.8 to 17.7.
    assert np.median(after.angle_deg) <= np.median(before.angle_deg) / 2.5
    assert np.median(after.distance) <= np.median(before.distance) / 7.0
    true_map, pixel_size = read_map(data.true_map)
    density, _ = read_map(refined / MAPS[0])
    curve = score_map(density, true_map, pixel_size, DIAMETER, after).fsc
    # At shell 10 (19 Å, where the reference has nothing) 0.74 to 0.83; 0.0 to 0.34 with the poses of the start.
    assert curve[1:11].min() >= 0.65


def test_bytes_of_a_refinement_do_not_depend_on_threads_or_memory(
    data: SimulatedData, refined: Path, tmp_path: Path
) -> None:
    """The least memory that is allowed keeps no images between iterations; by default all are kept."""
    least = plan_refine(32, 2, 4.0, folds=FOLDS).total / 1e9
    listener = Listener(tmp_path / "job")
    run_refine(data, tmp_path / "job", listener, threads=2, memory=least + 1e-6)
    assert any("images kept 0.00 GB" in note for note in listener.notes)
    assert_same_files(tmp_path / "job", refined)


def test_stopped_refinement_continues_to_the_same_bytes(data: SimulatedData, refined: Path, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with pytest.raises(Aborted):
        run_refine(data, folder, Listener(folder, stop=1))
    assert not any((folder / name).exists() for name in MAPS)
    again = Listener(folder)
    run_refine(data, folder, again)
    assert "continues after iteration 1" in again.notes
    assert_same_files(folder, refined)


def test_finished_refinement_is_extended_as_if_it_had_not_ended(
    data: SimulatedData, refined: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    assert len(run_refine(data, folder, iterations=1).history) == 1
    assert (folder / MAPS[0]).read_bytes() != (refined / MAPS[0]).read_bytes()
    again = Listener(folder)
    run_refine(data, folder, again)
    assert "continues after iteration 1" in again.notes
    assert_same_files(folder, refined)


def test_frames_of_subtomograms_do_not_matter(data: SimulatedData, refined: Path, tmp_path: Path) -> None:
    """The same poses as A_sub A_part with A_sub at random, in and out."""
    optset = load_optimisation_set(data.optimisation_set)
    rotation, _ = poses_of(optset)
    frame = Rotation.random(len(rotation), rng=np.random.default_rng(1)).as_matrix()
    particles = replace(
        optset.particles,
        subtomogram_angles_deg=matrix_to_euler(frame),
        angles_deg=matrix_to_euler(np.swapaxes(frame, -1, -2) @ rotation),
    )
    write_particles(tmp_path / "particles.star", replace(optset, particles=particles))
    folder = tmp_path / "job"
    run_refine(data, folder, particles=tmp_path / "particles.star")
    found, expected = (load_optimisation_set(f / "run_optimisation_set.star") for f in (folder, refined))
    assert np.ptp(found.particles.subtomogram_angles_deg) > 90
    assert_same_poses(found, expected)


def test_backends_refine_alike(few: SimulatedData, tmp_path: Path) -> None:
    """One iteration and the final one.  Float32 against float64: no pose may win that loses elsewhere."""
    found, expected = (
        run_refine(few, tmp_path / name, backend=name, iterations=1, offset_range_px=2.0)
        for name in ("auto", "reference")
    )
    assert_same_poses(found.optset, expected.optset)
    # 4e-5 measured at most, as for the poses
    for half, other in zip(found.halves, expected.halves, strict=True):
        assert_close(half, other, 2e-4)
    assert_close(found.map, expected.map, 2e-4)


def test_bytes_of_a_reconstruction_do_not_depend_on_threads(data: SimulatedData, tmp_path: Path) -> None:
    for threads in (1, 2):
        run_reconstruct(data, tmp_path / str(threads), threads=threads)
    for name in ("half1.mrc", "half2.mrc", "merged.mrc"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_backends_reconstruct_alike(data: SimulatedData, tmp_path: Path) -> None:
    found, expected = (run_reconstruct(data, tmp_path / name, backend=name) for name in ("auto", "reference"))
    # Coordinates, images and factors of float32: 8e-7 measured.
    for half, other in zip(found.halves, expected.halves, strict=True):
        assert_close(half, other, 1e-5)
    assert_close(found.map, expected.map, 1e-5)
