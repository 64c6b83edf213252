"""Alignment of a small simulated series with planted errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.small_alignments import PIXEL, align_options, predicted, rms_px, run, simulated
from tiltwise.errors import ConfigError, DataError
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.io.optimisation_set import (
    load_optimisation_set,
    write_optimisation_set,
    write_particles,
    write_tomograms,
)
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.kernels.select import load_backend
from tiltwise.model.poses import poses_of
from tiltwise.motion import align
from tiltwise.motion.align import AlignResult
from tiltwise.motion.geometry import Alignment
from tiltwise.motion.series import Correlator, SeriesData
from tiltwise.report.align import residual_section
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("align"))


@pytest.fixture(scope="module")
def result(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> AlignResult:
    return run(data.optimisation_set, tmp_path_factory.mktemp("aligned"))


def test_planted_errors_are_found(data: SimulatedData, result: AlignResult) -> None:
    truth = predicted(load_optimisation_set(data.truth.parent / "optimisation_set.star"))
    before = rms_px(predicted(load_optimisation_set(data.optimisation_set)), truth)
    after = rms_px(predicted(load_optimisation_set(result.outputs["optimisation_set"])), truth)
    assert before > 1.5
    assert after < 0.25 * before
    assert {verdict.family for verdict in result.series[0].verdicts if verdict.improved} >= {"tilts", "motion"}


def test_files_say_what_was_fitted(result: AlignResult) -> None:
    one = result.series[0]
    expected = (one.specimen.cut_px + one.alignment.predict(one.specimen))[:, one.data.rank]
    found = predicted(load_optimisation_set(result.outputs["optimisation_set"]))
    assert np.abs(found - expected).max() <= 1e-4
    lowest = int(np.argmin(one.data.series.pre_exposure))
    for path in result.optset.trajectories.values():
        assert not path[lowest].any()


def test_table_and_report(result: AlignResult) -> None:
    table = json.loads(result.outputs["table"].read_text())
    entry = table["series"][result.series[0].data.series.name]
    assert len(entry["shift_angstrom"]) == len(entry["turn_sigma_deg"]) == result.series[0].data.series.n_tilts
    assert {one["family"] for one in entry["verdicts"]} == {"tilts", "positions", "motion"}
    assert np.isfinite(entry["predicted_position_sigma_angstrom"]).all()
    page = (result.outputs["table"].parent / "report.html").read_text()
    assert "Verdicts" in page
    assert "Motion of the particles" in page


def test_what_was_forced_is_not_said_to_be_supported(result: AlignResult) -> None:
    one = result.series[0]
    assert "Held-out data support new motion in 1 of 1 series." in result.words()
    flat = [replace(verdict, gain=0.0, limit=-1.0) for verdict in one.verdicts]
    forced = replace(result, series=[replace(one, verdicts=flat, applied=dict.fromkeys(one.applied, True))])
    assert "Held-out data support new motion in 0 of 1 series; --force applied them in 1." in forced.words()


def test_residuals_are_the_errors_before_and_noise_after(data: SimulatedData, result: AlignResult) -> None:
    one = result.series[0]
    left, rank = one.residuals, one.data.rank
    assert left is not None
    assert left.particles == 1
    truth = predicted(load_optimisation_set(data.truth.parent / "optimisation_set.star"))
    error = (truth - predicted(load_optimisation_set(data.optimisation_set))) * PIXEL
    before, after = left.lengths()
    true = np.median(np.linalg.norm(error, axis=2), axis=0)
    assert np.abs(before[rank] - true).max() < 0.1 * PIXEL
    assert np.median(np.abs(after / left.noise_angstrom - 1.0)) < 0.3
    entry = json.loads(result.outputs["table"].read_text())["series"][one.data.series.name]["residuals"]
    assert entry["before_angstrom"] == np.round(before[rank], 5).tolist()
    page = (result.outputs["table"].parent / "report.html").read_text()
    assert page.count('<div class="film" hidden>') == 2
    unknown = np.full_like(left.after_angstrom, np.nan)
    assert residual_section(replace(one, residuals=replace(left, after_angstrom=unknown))) is None


def test_a_second_run_moves_little(result: AlignResult, tmp_path: Path) -> None:
    before = predicted(load_optimisation_set(result.outputs["optimisation_set"]))
    again = run(result.outputs["optimisation_set"], tmp_path / "again", rounds=1)
    after = predicted(load_optimisation_set(again.outputs["optimisation_set"]))
    assert rms_px(before, after) < 0.3


def test_motion_that_was_given_stays_without_a_fit_of_motion(result: AlignResult, tmp_path: Path) -> None:
    source = load_optimisation_set(result.outputs["optimisation_set"])
    again = run(result.outputs["optimisation_set"], tmp_path / "still", rounds=1, motion=False, force=True)
    for name, path in source.trajectories.items():
        assert np.abs(again.optset.trajectories[name] - path).max() <= 1e-6
    # and is not fitted into the tilts once more
    found = predicted(load_optimisation_set(again.outputs["optimisation_set"]))
    assert rms_px(predicted(source), found) < 0.3


def test_threads_do_not_matter(data: SimulatedData, result: AlignResult, tmp_path: Path) -> None:
    again = run(data.optimisation_set, tmp_path / "threads", threads=3)
    for name in ("particles", "trajectories", "table"):
        assert again.outputs[name].read_bytes() == result.outputs[name].read_bytes()


def test_noise_moves_nothing(tmp_path: Path) -> None:
    # particles where there are none; one series in twenty may be accepted by chance, not this one
    data = simulated(tmp_path, signal=False, noise=1.0, snr=None, particles=20, seed=4)
    with pytest.raises(DataError, match="do not agree"):
        run(data.optimisation_set, tmp_path / "own", rounds=1)
    given = run(
        data.optimisation_set,
        tmp_path / "given",
        reference1=data.true_map,
        reference2=data.true_map,
        opposite_half=True,
    )
    assert not any(verdict.improved for verdict in given.series[0].verdicts)
    assert given.series[0].reason
    left = given.series[0].residuals
    assert left is not None
    assert np.allclose(left.before_angstrom, left.after_angstrom, rtol=0.0, atol=1e-6, equal_nan=True)
    assert left.particles > 1  # no single image shows its particle
    assert "Residuals of" in (tmp_path / "given" / "report.html").read_text()
    before = predicted(load_optimisation_set(data.optimisation_set))
    assert np.array_equal(predicted(load_optimisation_set(given.outputs["optimisation_set"])), before)


def test_shifts_alone(data: SimulatedData, tmp_path: Path) -> None:
    found = run(data.optimisation_set, tmp_path / "shifts", motion=False, shift_only=True)
    truth = predicted(load_optimisation_set(data.truth.parent / "optimisation_set.star"))
    before = rms_px(predicted(load_optimisation_set(data.optimisation_set)), truth)
    assert rms_px(predicted(load_optimisation_set(found.outputs["optimisation_set"])), truth) < 0.6 * before
    one = found.series[0].alignment
    assert not one.displacement_px.any()
    assert np.array_equal(one.turn, np.tile(np.eye(3), (len(one.turn), 1, 1)))


def test_order_of_rows_does_not_matter(data: SimulatedData) -> None:
    optset = load_optimisation_set(data.optimisation_set)
    series = optset.series[0]
    order = np.random.default_rng(1).permutation(series.n_tilts)
    names = ("projection", "pre_exposure", "nominal_tilt_deg", "image_index")
    shuffled = replace(series, **{name: getattr(series, name)[order] for name in names})
    mixed = replace(optset, series=(shuffled,))
    parts = []
    for one in (optset, mixed):
        source = ParticleSource(one, box_px=48, crop_px=32, binning=1.0, diameter_angstrom=None)
        parts.append(SeriesData.of(source, Poses.of(one), 0, 15.0))
    first, second = (part.specimen(part.basis(1000.0, "gaussian").functions, 0.3) for part in parts)
    assert np.array_equal(first.rotation, second.rotation)
    assert np.array_equal(first.cut_px, second.cut_px)
    assert np.array_equal(first.step_px, second.step_px)
    assert np.array_equal(order[parts[1].order], parts[0].order)


def test_what_cannot_be_done_is_said(data: SimulatedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one half map is missing"):
        run(data.optimisation_set, tmp_path / "a", reference1=data.true_map)
    with pytest.raises(ConfigError, match="exclude each other"):
        run(data.optimisation_set, tmp_path / "b", shift_only=True)
    with pytest.raises(ConfigError, match="is for --shift-only"):
        run(data.optimisation_set, tmp_path / "c", shift_by="images")


def test_a_stopped_run_continues_to_the_same_bytes(data: SimulatedData, result: AlignResult, tmp_path: Path) -> None:
    class Stopper(SilentProgress):
        def iteration(self, row: Any) -> None:
            raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    options = align_options(data.optimisation_set, folder)
    with pytest.raises(KeyboardInterrupt), FolderJob(options, ["tiltwise", "align"], Stopper()) as job:
        align.run(options, job, Stopper())
    again = run(data.optimisation_set, folder)
    for name in ("particles", "trajectories", "table"):
        assert again.outputs[name].read_bytes() == result.outputs[name].read_bytes()


def test_noise_without_power_is_refused(data: SimulatedData) -> None:
    """Given references are never whitened: correlations look at the noise themselves."""
    optset = load_optimisation_set(data.optimisation_set)
    source = ParticleSource(optset, box_px=48, crop_px=32, binning=1.0, diameter_angstrom=None)
    poses = Poses.of(optset)
    one = SeriesData.of(source, poses, 0, np.inf)
    correlator = Correlator(source.disc, load_backend(), 1, 1, 1.0, 8.0, 3.0)
    noise = np.ones((one.series.n_tilts, 17))
    noise[2, 5] = 0.0
    volumes = dict.fromkeys(range(len(one.members)), np.zeros((64, 64, 33), np.complex64))
    specimen = one.specimen()

    def load(particle: int) -> ParticleImages:
        return source.load(particle, poses.displacement_angstrom[particle])

    with pytest.raises(DataError, match="noise power is not a positive number"):
        correlator.evidence(one, Alignment.none(specimen), specimen, load, volumes, noise)


def keep_particles(data: SimulatedData, folder: Path, counts: dict[str, int]) -> Path:
    """A set beside the simulated one with so many particles of every series."""
    optset = load_optimisation_set(data.optimisation_set)
    rows = []
    for name, count in counts.items():
        rows += [i for i, own in enumerate(optset.particles.tomogram) if own == name][:count]
    folder.mkdir()
    particles = folder / "particles.star"
    write_particles(particles, optset, particles=optset.particles.take(np.array(rows)))
    write_optimisation_set(folder / "set.star", particles=particles, tomograms=optset.paths["tomograms"])
    return folder / "set.star"


def test_series_with_no_or_one_particle_stay_as_they_are(tmp_path: Path) -> None:
    data = simulated(tmp_path, tilt_series=3, particles=12, tilt_step=15.0)
    source = keep_particles(data, tmp_path / "few", {"TS_01": 12, "TS_02": 1})
    found = run(source, tmp_path / "out")
    full, single, empty = found.series
    assert not full.reason
    assert single.reason
    assert empty.reason == "no particle is visible"
    written = load_optimisation_set(found.outputs["optimisation_set"])
    before = load_optimisation_set(source)
    for old, new in zip(before.series[1:], written.series[1:], strict=True):
        assert np.array_equal(old.projection, new.projection)


def test_motion_without_doses_is_refused(data: SimulatedData, tmp_path: Path) -> None:
    optset = load_optimisation_set(data.optimisation_set)
    blank = replace(optset.series[0], pre_exposure=np.zeros(optset.series[0].n_tilts))
    folder = tmp_path / "undosed"
    folder.mkdir()
    write_tomograms(folder / "tomograms.star", optset, series=[blank])
    with pytest.raises(DataError, match="motion needs the order and dose"):
        run(data.optimisation_set, tmp_path / "out", tomograms=folder / "tomograms.star")


def test_positions_of_many_series_with_few_particles(tmp_path: Path) -> None:
    """Tilts are right, and stay; what is common to the particles of one series is not taken for a drift of the map."""
    data = simulated(
        tmp_path, tilt_series=4, particles=10, error_shift=0.0, error_angle=0.0, motion=0.0, error_position=8.0, snr=2.0
    )
    judged = run(data.optimisation_set, tmp_path / "judged", motion=False, fit_range=40.0)
    for one in judged.series:
        verdicts = {verdict.family: verdict.improved for verdict in one.verdicts}
        assert not verdicts["tilts"]
        assert one.applied["positions"] == verdicts["positions"]
        assert one.alignment.displacement_px.any() == verdicts["positions"]
    assert sum(one.applied["positions"] for one in judged.series) >= 2
    alone = {"fit_angles": False, "fit_shifts": False, "force": True, "motion": False, "fit_range": 40.0, "threads": 2}
    found = run(data.optimisation_set, tmp_path / "out", **alone)
    halves = found.optset.particles.half_set
    assert set(halves.tolist()) == {1, 2}
    true = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    rotations, positions = poses_of(true)
    errors = []
    for path in (data.optimisation_set, found.outputs["optimisation_set"]):
        written = load_optimisation_set(path)
        away = poses_of(written)[1] - positions
        for half in (1, 2):  # a map may lie anywhere
            rows = halves == half
            shift = np.linalg.lstsq(rotations[rows].reshape(-1, 3), away[rows].ravel(), rcond=None)[0]
            away[rows] -= rotations[rows] @ shift
        errors.append(float(np.sqrt((away**2).mean())))
    assert np.array_equal(written.particles.half_set, halves)
    assert errors[0] > 6.0
    assert errors[1] < 0.2 * errors[0]
