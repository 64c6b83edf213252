"""Shifts of whole tilts, however large: sparse samples by whole images, dense ones by sums over particles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_tomograms
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.motion import align
from tiltwise.motion.align import AlignResult
from tiltwise.motion.options import AlignOptions
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

F64 = NDArray[np.float64]
PIXEL = 6.0


def simulated(folder: Path, **changes: Any) -> SimulatedData:
    values: dict[str, Any] = {
        "tilt_series": 1,
        "particles": 30,
        "width_px": 400,
        "height_px": 288,
        "thickness": 300.0,
        "pixel_size": PIXEL,
        "box": 32,
        "particle_diameter": 110.0,
        "beads": 120,
        "tilt_step": 12.0,
        "snr": 0.5,
        "margin_px": 24,
        "seed": 3,
        "threads": 1,
    }
    return simulate(SimulateOptions(output=folder / "data", **(values | changes)))


def moved_images(data: SimulatedData, folder: Path, shift_px: F64) -> Path:
    """Tomograms whose metadata say that images are shifted back: `shift_px` (F, 2) is to be found."""
    optset = load_optimisation_set(data.optimisation_set)
    projection = optset.series[0].projection.copy()
    projection[:, :2, 3] -= shift_px
    folder.mkdir()
    write_tomograms(folder / "tomograms.star", optset, series=[replace(optset.series[0], projection=projection)])
    return folder / "tomograms.star"


def run_options(data: SimulatedData, tomograms: Path, folder: Path, **changes: Any) -> AlignOptions:
    values: dict[str, Any] = {
        "input": data.optimisation_set,
        "tomograms": tomograms,
        "box": 48,
        "crop": 32,
        "particle_diameter": 120.0,
        "shift_only": True,
        "fit_range": 35.0,
        "threads": 1,
    }
    return AlignOptions(output=folder, **(values | changes))


def run(data: SimulatedData, tomograms: Path, folder: Path, **changes: Any) -> AlignResult:
    options = run_options(data, tomograms, folder, **changes)
    with FolderJob(options, ["tiltwise", "align"], SilentProgress()) as job:
        return align.run(options, job, SilentProgress())


def error_px(result: AlignResult, planted: F64) -> F64:
    """(F,) distance of found shifts from those planted, rows as in the series."""
    one = result.series[0]
    return np.asarray(np.linalg.norm(one.alignment.shift_px[one.data.rank] - planted, axis=1))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("sparse"))


def planted_shifts(tilts: int) -> F64:
    shift = np.random.default_rng(1).normal(size=(tilts, 2))
    shift[[2, 6]] = [[48.0, -36.0], [-60.0, 5.0]]
    return shift


def test_a_shift_of_60_px_is_found_in_a_sparse_sample(sparse: SimulatedData, tmp_path: Path) -> None:
    tilts = sparse.n_tilts
    planted = planted_shifts(tilts)
    found = run(sparse, moved_images(sparse, tmp_path / "moved", planted), tmp_path / "out")
    assert error_px(found, planted).max() <= 0.2
    one = found.series[0]
    verdicts = {verdict.family: verdict.improved for verdict in one.verdicts}
    assert verdicts["large shifts"]
    assert one.applied["large shifts"]
    assert one.errors is not None
    assert 0.2 <= np.median(error_px(found, planted)) / (np.median(one.errors.image_angstrom) / PIXEL) <= 4.0
    assert not one.alignment.displacement_px.any()
    assert np.array_equal(one.turn_deg, np.zeros((tilts, 3)))


def test_a_bead_does_not_capture_the_maximum(tmp_path: Path) -> None:
    data = simulated(tmp_path)
    stack, pixel = read_map(data.folder / "tilt_series" / "TS_01.mrcs")
    x, y = np.meshgrid(np.arange(stack.shape[2]), np.arange(stack.shape[1]))
    for centre in ([50, 80], [230, 200], [350, 60]):
        stack -= (50.0 * stack.std()) * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 8**2)
    write_map(data.folder / "tilt_series" / "TS_01.mrcs", stack.astype(np.float32), pixel, "float32")
    planted = planted_shifts(data.n_tilts)
    references = {"reference1": data.true_map, "reference2": data.true_map}
    found = run(data, moved_images(data, tmp_path / "moved", planted), tmp_path / "out", **references)
    assert error_px(found, planted).max() <= 0.2


def test_noise_is_not_shifted(tmp_path: Path) -> None:
    data = simulated(tmp_path, signal=False, noise=1.0, snr=None)
    references = {"reference1": data.true_map, "reference2": data.true_map, "opposite_half": True}
    found = run(data, data.folder / "tomograms.star", tmp_path / "out", **references)
    assert not any(verdict.improved for verdict in found.series[0].verdicts)
    assert not found.series[0].alignment.shift_px.any()
    assert found.series[0].reason


def test_a_stopped_search_continues_to_the_same_bytes(sparse: SimulatedData, tmp_path: Path) -> None:
    class Stopper(SilentProgress):
        def iteration(self, row: Any) -> None:
            raise KeyboardInterrupt

    tomograms = moved_images(sparse, tmp_path / "moved", planted_shifts(sparse.n_tilts))
    whole = run(sparse, tomograms, tmp_path / "whole")
    options = run_options(sparse, tomograms, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt), FolderJob(options, ["tiltwise", "align"], Stopper()) as job:
        align.run(options, job, Stopper())
    again = run(sparse, tomograms, tmp_path / "stopped")
    assert again.outputs["table"].read_bytes() == whole.outputs["table"].read_bytes()


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("dense"), particles=500, spacing=0.0)


def test_500_overlapping_particles_share_shifts(dense: SimulatedData, tmp_path: Path) -> None:
    planted = np.clip(np.random.default_rng(1).normal(size=(dense.n_tilts, 2)) * 2.0, -4.0, 4.0)
    found = run(dense, moved_images(dense, tmp_path / "moved", planted), tmp_path / "out")
    assert {verdict.family for verdict in found.series[0].verdicts} == {"tilts"}  # not by whole images
    assert error_px(found, planted).max() <= 0.1


def test_a_shift_beyond_the_range_is_reported(dense: SimulatedData, tmp_path: Path) -> None:
    planted = np.zeros((dense.n_tilts, 2))
    planted[4] = [8.5, 0.0]  # of 35 Å = 5.8 px
    found = run(dense, moved_images(dense, tmp_path / "moved", planted), tmp_path / "out", rounds=1)
    one = found.series[0]
    assert one.shared is not None
    assert np.flatnonzero(one.shared.clipped[one.data.rank]).tolist() == [4]
    assert any("limit of --range" in line for line in found.words())
