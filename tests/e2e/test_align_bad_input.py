"""What goes wrong with the input of an alignment, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.small_alignments import PIXEL, predicted, rms_px, run, simulated
from tiltwise.errors import DataError, TiltwiseError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set, write_particles, write_tomograms
from tiltwise.model import Particles
from tiltwise.motion.align import AlignResult
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("align"))


@pytest.fixture(scope="module")
def result(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> AlignResult:
    return run(data.optimisation_set, tmp_path_factory.mktemp("aligned"))


def with_particles(data: SimulatedData, folder: Path, particles: Particles) -> Path:
    optset = load_optimisation_set(data.optimisation_set)
    folder.mkdir()
    write_particles(folder / "particles.star", optset, particles=particles)
    write_optimisation_set(
        folder / "set.star", particles=folder / "particles.star", tomograms=optset.paths["tomograms"]
    )
    return folder / "set.star"


def test_particles_that_few_tilts_show_follow_and_disturb_no_others(
    data: SimulatedData, result: AlignResult, tmp_path: Path
) -> None:
    particles = load_optimisation_set(data.optimisation_set).particles
    moved = particles.coordinate_px.copy()
    moved[:2, 0] = [-20.0, 260.0]  # beside the field: images of high tilts alone show them
    source = with_particles(data, tmp_path / "set", replace(particles, coordinate_px=moved))
    found = run(source, tmp_path / "out")
    one = found.series[0]
    seen = np.bincount(one.data.members[one.data.seen], minlength=len(particles)) > 0
    assert seen.all()
    shift = one.alignment.displacement_px * PIXEL
    assert np.isfinite(shift).all()
    assert np.linalg.norm(shift[:2], axis=1).max() < 45.0  # three standard deviations of their prior
    after = predicted(load_optimisation_set(found.outputs["optimisation_set"]))
    usual = predicted(load_optimisation_set(result.outputs["optimisation_set"]))
    assert rms_px(after[2:], usual[2:]) < 0.3


def test_duplicated_particles_move_together(data: SimulatedData, tmp_path: Path) -> None:
    optset = load_optimisation_set(data.optimisation_set)
    text = Path(optset.paths["particles"]).read_text().rstrip("\n")
    rows = [line for line in text.splitlines() if line.split()[:1] and "TS_01/" in line][:4]
    sets = []
    for name, added in (("same", rows), ("renamed", [row.replace("TS_01/", "TS_01/again") for row in rows])):
        (tmp_path / f"{name}.star").write_text("\n".join([text, *added]) + "\n")
        sets.append(tmp_path / f"{name}_set.star")
        write_optimisation_set(sets[-1], particles=tmp_path / f"{name}.star", tomograms=optset.paths["tomograms"])
    with pytest.raises(TiltwiseError, match="name"):
        run(sets[0], tmp_path / "refused")
    source = sets[1]
    found = run(source, tmp_path / "out", rounds=1)
    shift = found.series[0].alignment.displacement_px
    assert np.abs(shift[-4:] - shift[:4]).max() <= 1e-6  # in one half and fold, neither predicts the other


def test_missing_doses_are_an_order_of_tilts_without_motion(data: SimulatedData, tmp_path: Path) -> None:
    optset = load_optimisation_set(data.optimisation_set)
    blank = replace(optset.series[0], pre_exposure=np.zeros(optset.series[0].n_tilts))
    write_tomograms(tmp_path / "tomograms.star", optset, series=[blank])
    found = run(data.optimisation_set, tmp_path / "out", tomograms=tmp_path / "tomograms.star", motion=False, rounds=1)
    assert found.series[0].applied["tilts"]


def test_references_of_the_wrong_hand_are_refused(data: SimulatedData, tmp_path: Path) -> None:
    density, pixel = read_map(data.true_map)
    write_map(tmp_path / "mirrored.mrc", np.roll(density[:, :, ::-1], 1, axis=2), pixel)
    both = {"reference1": tmp_path / "mirrored.mrc", "reference2": tmp_path / "mirrored.mrc"}
    with pytest.raises(DataError, match="mirrored along x"):
        run(data.optimisation_set, tmp_path / "wrong", motion=False, **both)
    true = {"reference1": data.true_map, "reference2": data.true_map}
    assert not run(data.optimisation_set, tmp_path / "right", motion=False, **true).series[0].reason


def test_a_trajectory_is_never_applied_twice(result: AlignResult, tmp_path: Path) -> None:
    source = load_optimisation_set(result.outputs["optimisation_set"])
    assert source.trajectories
    again = run(result.outputs["optimisation_set"], tmp_path / "again", rounds=1, force=True)
    written = load_optimisation_set(again.outputs["optimisation_set"])
    largest = max(np.abs(path).max() for path in source.trajectories.values())
    change = [np.abs(written.trajectories[name] - path).max() for name, path in source.trajectories.items()]
    assert largest > 2.0  # Å
    assert np.median(change) < 0.5 * largest
    assert rms_px(predicted(source), predicted(written)) < 0.35


def test_a_set_that_names_no_motion_file_is_told(result: AlignResult, tmp_path: Path) -> None:
    optset = load_optimisation_set(result.outputs["optimisation_set"])
    write_optimisation_set(
        tmp_path / "set.star",
        particles=optset.paths["particles"],
        tomograms=optset.paths["tomograms"],
        trajectories=tmp_path / "missing.star",
    )
    with pytest.raises(TiltwiseError, match="missing"):
        run(tmp_path / "set.star", tmp_path / "out")
