"""Refinements on pseudo-subtomograms, made in memory or stored, and by RELION's likelihood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.pseudo_files import write_pseudo_subtomograms, write_weights
from helpers.refinements import DIAMETER, Listener, run_refine, simulated
from tiltwise.errors import DataError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles
from tiltwise.io.stacks import read_pseudo_subtomogram
from tiltwise.sim.score import score_map, score_poses
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("models"), 8)


@pytest.fixture(scope="module")
def stored(data: SimulatedData) -> Path:
    """Particle file of pseudo-subtomograms in RELION's layout, every one in a frame of its own."""
    optset = load_optimisation_set(data.optimisation_set)
    frames = Rotation.random(len(optset.particles), rng=np.random.default_rng(4)).as_matrix()
    return write_pseudo_subtomograms(data.folder / "pseudo", optset, 48, 32, frames)


@pytest.fixture
def without_tilt_images(data: SimulatedData) -> Iterator[None]:
    """The tilt images are elsewhere for a while."""
    folder = data.folder / "tilt_series"
    stacks = sorted(folder.glob("*.mrcs"))
    for stack in stacks:
        stack.rename(stack.with_suffix(".away"))
    yield
    for stack in stacks:
        stack.with_suffix(".away").rename(stack)


def assert_finds_the_truth(data: SimulatedData, folder: Path, angle: float, distance: float) -> None:
    """Factors by which the median errors of poses must fall, and a map that agrees where the reference had nothing."""
    truth = load_optimisation_set(data.folder / "truth" / "optimisation_set.star", need_images=False)
    before = score_poses(load_optimisation_set(data.optimisation_set, need_images=False), truth)
    after = score_poses(load_optimisation_set(folder / "run_optimisation_set.star", need_images=False), truth)
    assert np.median(after.angle_deg) <= np.median(before.angle_deg) / angle
    assert np.median(after.distance) <= np.median(before.distance) / distance
    true_map, pixel_size = read_map(data.true_map)
    density, _ = read_map(folder / "run_class001.mrc")
    assert score_map(density, true_map, pixel_size, DIAMETER, after).fsc[1:11].min() >= 0.6


@pytest.mark.parametrize(
    ("data_model", "likelihood"), [("pseudo3d", "exact"), ("pseudo3d", "relion"), ("stack2d", "relion")]
)
def test_every_data_model_finds_the_true_poses_and_map(
    data: SimulatedData, tmp_path: Path, data_model: str, likelihood: str
) -> None:
    run_refine(data, tmp_path / "job", data_model=data_model, likelihood=likelihood, iterations=3)
    assert_finds_the_truth(data, tmp_path / "job", 2.0, 5.0)


@pytest.mark.parametrize("likelihood", ["exact", "relion"])
def test_stored_pseudo_subtomograms_are_refined_in_their_frames(
    data: SimulatedData, stored: Path, tmp_path: Path, without_tilt_images: None, likelihood: str
) -> None:
    run_refine(data, tmp_path / "job", particles=stored, data_model="pseudo3d", likelihood=likelihood, iterations=3)
    assert_finds_the_truth(data, tmp_path / "job", 2.0, 5.0)


def test_pseudo_subtomograms_are_no_stacks(
    data: SimulatedData, stored: Path, tmp_path: Path, without_tilt_images: None
) -> None:
    with pytest.raises(DataError, match=r"no images[\s\S]*--data-model pseudo3d"):
        run_refine(data, tmp_path / "job", particles=stored, iterations=1)


def test_search_on_the_grid_alone(data: SimulatedData, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"climb": False, "iterations": 1, "offset_range_px": 2.0}
    run_refine(data, tmp_path / "job", data_model="pseudo3d", **changes)
    assert_finds_the_truth(data, tmp_path / "job", 1.5, 2.5)


def test_bytes_do_not_depend_on_threads(data: SimulatedData, tmp_path: Path) -> None:
    for threads in (1, 2):
        run_refine(
            data, tmp_path / str(threads), data_model="pseudo3d", iterations=1, offset_range_px=1.5, threads=threads
        )
    for name in ("run_class001.mrc", "run_data.star"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_what_cannot_be_read_is_said(data: SimulatedData, stored: Path, tmp_path: Path) -> None:
    optset = load_optimisation_set(data.optimisation_set, particles=stored)
    first = read_pseudo_subtomogram(optset, 0)
    assert first.multiplicity is not None
    names = optset.particles.image_files, optset.particles.ctf_files

    def refine_with(image: Path, weights: Path, likelihood: str = "exact") -> None:
        files = {
            "image_files": (str(image), *names[0][1:]),
            "ctf_files": (str(weights), *names[1][1:]),
        }
        changed = replace(optset, particles=replace(optset.particles, **files))
        write_particles(tmp_path / "particles.star", changed)
        run_refine(
            data,
            tmp_path / f"job{len(list(tmp_path.iterdir()))}",
            particles=tmp_path / "particles.star",
            data_model="pseudo3d",
            likelihood=likelihood,
            iterations=1,
        )

    data_file = Path(names[0][0])
    write_weights(tmp_path / "small.mrc", first.ctf2[:-2], None)
    with pytest.raises(DataError, match="weights do not fit"):
        refine_with(data_file, tmp_path / "small.mrc")
    write_weights(tmp_path / "alone.mrc", first.ctf2, None)
    with pytest.raises(DataError, match=r"no multiplicity[\s\S]*--likelihood exact"):
        refine_with(data_file, tmp_path / "alone.mrc", "relion")
    write_map(tmp_path / "narrow.mrc", first.data[4:-4, 4:-4, 4:-4], 6.0)
    with mrcfile.new(tmp_path / "narrow_weights.mrc", np.ones((48, 24, 13), np.float32)):
        pass
    with pytest.raises(DataError, match=r"wrong size[\s\S]*32 voxels"):
        refine_with(tmp_path / "narrow.mrc", tmp_path / "narrow_weights.mrc")


def test_missing_weights_are_noted_and_the_tilt_images_used(data: SimulatedData, stored: Path, tmp_path: Path) -> None:
    optset = load_optimisation_set(data.optimisation_set, particles=stored)
    lost = (str(tmp_path / "lost.mrc"), *optset.particles.ctf_files[1:])
    path = tmp_path / "particles.star"
    write_particles(path, replace(optset, particles=replace(optset.particles, ctf_files=lost)))
    listener = Listener(tmp_path / "job")
    run_refine(data, tmp_path / "job", listener, particles=path, data_model="pseudo3d", iterations=1, skip_align=True)
    assert any("extracted images not found" in note and "lost.mrc" in note for note in listener.notes)
