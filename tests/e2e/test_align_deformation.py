"""Deformations of tilt images: found where they were planted, left alone where not, kept by everything that follows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.small_alignments import PIXEL, align_options, predicted, rms_px, run, simulated
from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.errors import ConfigError, DataError
from tiltwise.extract.cache import ParticleCache
from tiltwise.extract.source import ParticleSource
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_tomograms
from tiltwise.io.star import read_star, write_star
from tiltwise.io.tomograms import MATRIX_LABELS
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.motion import align
from tiltwise.motion.align import AlignResult
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import soft_sphere

PLANTED = {"deformation": "spline", "deformation_rms": 12.0, "motion": 0.0}
FITTED = {"motion": False, "deformation": "spline"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("bent"), **PLANTED)


@pytest.fixture(scope="module")
def result(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> AlignResult:
    return run(data.optimisation_set, tmp_path_factory.mktemp("straightened"), **FITTED)


def error_px(data: SimulatedData, found: AlignResult | Path) -> float:
    path = found if isinstance(found, Path) else found.outputs["optimisation_set"]
    truth = predicted(load_optimisation_set(data.truth.parent / "optimisation_set.star"))
    return rms_px(predicted(load_optimisation_set(path)), truth)


def verdicts(found: AlignResult) -> dict[str, bool]:
    return {verdict.family: verdict.improved for verdict in found.series[0].verdicts}


def test_planted_deformation_is_found(data: SimulatedData, result: AlignResult, tmp_path: Path) -> None:
    without = run(data.optimisation_set, tmp_path / "rigid", motion=False)
    assert error_px(data, data.optimisation_set) > 2.0
    assert error_px(data, without) > 0.5
    assert error_px(data, result) < 0.2
    assert verdicts(result)["deformation"]
    width = result.priors.deformation
    assert width is not None
    assert 1 / 1.5 <= width.sigma_angstrom / 12.0 <= 1.5  # learned


def test_a_deformation_of_every_tilt_is_found(tmp_path: Path) -> None:
    each = {"deformation": "affine", "deformation_per": "tilt"}
    data = simulated(tmp_path, **{**PLANTED, **each})
    without = run(data.optimisation_set, tmp_path / "rigid", motion=False)
    found = run(data.optimisation_set, tmp_path / "out", motion=False, **each)
    assert verdicts(found)["deformation"]
    assert error_px(data, found) < 0.35
    assert error_px(data, without) > 0.8
    table = json.loads(found.outputs["table"].read_text())["series"]["TS_01"]["deformation"]
    assert len(table["coefficients"]) == len(table["displacement_rms_angstrom"]) == found.series[0].data.series.n_tilts


@pytest.mark.parametrize("changes", [{}, {"deformation": "affine", "deformation_per": "tilt"}])
def test_a_deformation_that_was_not_planted_is_not_applied(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = simulated(tmp_path, motion=0.0)
    found = run(data.optimisation_set, tmp_path / "out", **{**FITTED, **changes})
    assert not verdicts(found)["deformation"]
    assert verdicts(found)["tilts"]
    written = load_optimisation_set(found.outputs["optimisation_set"])
    assert written.series[0].deformation is None
    assert "rlnTomoDeformation" not in found.outputs["tomograms"].read_text()


def test_files_say_what_was_fitted_with_a_deformation(result: AlignResult) -> None:
    """Positions that extraction finds in the files are those of the optimiser."""
    one = result.series[0]
    expected = (one.specimen.cut_px + one.alignment.predict(one.specimen))[:, one.data.rank]
    written = load_optimisation_set(result.outputs["optimisation_set"])
    assert written.series[0].deformation is not None
    assert np.abs(predicted(written) - expected).max() <= 1e-4


def test_error_bars_of_a_deformation(data: SimulatedData, result: AlignResult) -> None:
    table = json.loads(result.outputs["table"].read_text())
    entry = table["series"]["TS_01"]["deformation"]
    assert table["deformation_prior"]["kind"] == "spline"
    assert table["deformation_prior"]["per"] == "series"
    assert np.shape(entry["coefficients"]) == np.shape(entry["coefficient_sigmas"]) == (1, 72)
    assert entry["displacement_rms_angstrom"][0] == pytest.approx(12.0, rel=0.5)
    assert 0.0 < entry["displacement_sigma_angstrom"][0] < 12.0
    # of predicted positions: about as large as they are
    claimed = np.sqrt(np.mean(np.square(table["series"]["TS_01"]["predicted_position_sigma_angstrom"])))
    assert 0.5 <= error_px(data, result) / np.sqrt(2.0) * PIXEL / claimed <= 2.0
    page = (result.outputs["table"].parent / "report.html").read_text()
    assert "Deformation of TS_01" in page


def test_a_given_deformation_stays_and_is_replaced_when_fitted(result: AlignResult, tmp_path: Path) -> None:
    source = result.outputs["optimisation_set"]
    before = load_optimisation_set(source)
    kept = run(source, tmp_path / "kept", rounds=1, motion=False)
    again = load_optimisation_set(kept.outputs["optimisation_set"])
    old, new = before.series[0].deformation, again.series[0].deformation
    assert old is not None
    assert new is not None
    assert np.array_equal(old.coefficients, new.coefficients)
    assert rms_px(predicted(before), predicted(again)) < 0.15
    fitted = run(source, tmp_path / "anew", rounds=1, force=True, **FITTED)
    assert rms_px(predicted(before), predicted(load_optimisation_set(fitted.outputs["optimisation_set"]))) < 0.15


def test_a_stopped_fit_of_a_deformation_continues_to_the_same_bytes(
    data: SimulatedData, result: AlignResult, tmp_path: Path
) -> None:
    class Stopper(SilentProgress):
        def iteration(self, row: Any) -> None:
            raise KeyboardInterrupt

    options = align_options(data.optimisation_set, tmp_path / "stopped", **FITTED)
    with pytest.raises(KeyboardInterrupt), FolderJob(options, ["tiltwise", "align"], Stopper()) as job:
        align.run(options, job, Stopper())
    again = run(data.optimisation_set, tmp_path / "stopped", **FITTED)
    for name in ("particles", "table"):
        assert again.outputs[name].read_bytes() == result.outputs[name].read_bytes()


def test_images_that_are_kept_move_with_the_deformation(data: SimulatedData) -> None:
    """A particle followed with a phase ramp from where it was cut, against a new cut, in a strong field."""
    true = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    bent = true.series[0].deformation
    assert bent is not None
    strong = replace(bent, coefficients=8.0 * bent.coefficients)
    moved = np.array([0.45, -0.45, 0.4]) * PIXEL
    errors = []
    for deformation in (None, strong):
        series = replace(true.series[0], deformation=deformation)
        optset = replace(true, series=(series,))
        source = ParticleSource(optset, box_px=48, crop_px=32, binning=1.0, diameter_angstrom=None)
        fresh, kept = source.load(3, moved), ParticleCache(source, 1 << 30).load(3, moved)
        errors.append(float(np.abs(kept.data - fresh.data).mean() / np.abs(fresh.data).mean()))
    assert errors[1] <= 1.5 * errors[0]


def test_what_cannot_be_fitted_is_said_before_any_work(data: SimulatedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        run(data.optimisation_set, tmp_path / "a", shift_only=True, **FITTED)
    with pytest.raises(ConfigError, match="grid of waves"):
        run(data.optimisation_set, tmp_path / "b", motion=False, deformation="fourier", deformation_grid=3)
    optset = load_optimisation_set(data.optimisation_set)
    folder = tmp_path / "stretched"
    folder.mkdir()
    write_tomograms(folder / "tomograms.star", optset)
    series: NDArray[np.float64] = optset.series[0].projection * np.array([1.02, 1.0, 1.0, 1.0])[:, None]
    document = read_star(folder / "tilt_series/TS_01.star")
    for axis, label in enumerate(MATRIX_LABELS):
        document["TS_01"].set_vectors(label, series[:, axis])
    write_star(folder / "tilt_series/TS_01.star", document)
    with pytest.raises(DataError, match=r"RELION-5 angles[\s\S]*TS_01"):
        run(data.optimisation_set, tmp_path / "c", tomograms=folder / "tomograms.star", **FITTED)


def test_other_commands_follow_a_deformation(data: SimulatedData, tmp_path: Path) -> None:
    truth = data.truth.parent / "optimisation_set.star"
    optset = load_optimisation_set(truth)
    straight = [replace(one, deformation=None) for one in optset.series]
    write_tomograms(tmp_path / "tomograms.star", replace(optset, documents=None), series=straight)
    true_map, curves = read_map(data.true_map)[0], []
    for number, tomograms in enumerate((None, tmp_path / "tomograms.star")):
        options = ReconstructOptions(
            input=truth, tomograms=tomograms, box=48, crop=32, threads=1, output=tmp_path / f"map{number}"
        )
        with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
            density = reconstruct.run(options, job, SilentProgress()).map
        curves.append(fsc(density, true_map, soft_sphere(32, 13.0, 3.0)))
    assert curves[0][1:11].min() > 0.8
    assert curves[1][8:11].max() < 0.4
