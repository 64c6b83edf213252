"""Classification of a few simulated particles at given poses: half of them lack a domain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.classes import mixed, run_classify
from helpers.kills import files_of
from helpers.mixed import MixedData, adjusted_rand_index
from helpers.refinements import Listener
from tiltwise.classes.classify import ClassifyResult
from tiltwise.classes.fixed import FixedIterations
from tiltwise.classes.moved import MOST
from tiltwise.classes.windows import Place
from tiltwise.errors import Aborted, ConfigError, DataError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.io.star import read_star
from tiltwise.jobs.relion import ABORT_NOW
from tiltwise.sim.density import sample_map
from tiltwise.sim.score import score_poses


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> MixedData:
    return mixed(tmp_path_factory.mktemp("two"), 40, 0.25)


@pytest.fixture(scope="module")
def found(two: MixedData, tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassifyResult, Path]:
    folder = tmp_path_factory.mktemp("classified") / "job"
    return run_classify(two, folder), folder


def test_particles_without_a_domain_are_found(two: MixedData, found: tuple[ClassifyResult, Path]) -> None:
    result, _ = found
    assert adjusted_rand_index(two.kind, result.state.classes - 1) >= 0.8
    # what they lack is where the maps differ
    first, second = (one.map for one in result.maps)
    order = 1 if (result.state.classes[two.kind == 0] == 1).mean() > 0.5 else -1
    lacking = sample_map(two.without, 32, result.pixel_size)
    # 0.65 over the whole box, noise outside the particle included
    assert np.corrcoef((order * (first - second)).ravel(), lacking.ravel())[0, 1] >= 0.5


def test_files_have_the_names_and_columns_of_relion(found: tuple[ClassifyResult, Path]) -> None:
    result, folder = found
    read = load_optimisation_set(folder / "run_optimisation_set.star")
    block = next(one for one in read_star(folder / "run_data.star") if "rlnClassNumber" in one)
    assert len(read.particles) == len(block.integers("rlnClassNumber")) == 80
    np.testing.assert_array_equal(block.integers("rlnClassNumber"), result.state.classes)
    np.testing.assert_allclose(block.floats("tiltwiseClassPosterior"), result.state.posterior.max(axis=1), atol=1e-5)
    classes = read_star(folder / "run_model.star")["model_classes"]
    np.testing.assert_allclose(classes.floats("rlnClassDistribution"), result.state.share, atol=1e-5)
    assert [name.rpartition("/")[2] for name in classes.text("rlnReferenceImage")] == [
        "run_class001.mrc",
        "run_class002.mrc",
    ]
    told = json.loads((folder / "classes.json").read_text())
    assert sum(one["particles"] for one in told["classes"]) == 80
    assert [text[:21] for text in told["first_guess"]] == ["particles differ most"]
    assert len(told["switch_rate"]) == result.state.iteration
    assert sum(sum(row) for row in told["tomograms"].values()) == 80


def test_bytes_do_not_depend_on_threads_memory_or_stops(
    two: MixedData, found: tuple[ClassifyResult, Path], tmp_path: Path
) -> None:
    """Stopped after the first iteration, continued with two threads and no room for residuals."""
    _, folder = found
    again = tmp_path / "job"
    with pytest.raises(Aborted):
        run_classify(two, again, Listener(again, stop=1))
    listener = Listener(again)
    run_classify(two, again, listener, threads=2, memory=0.06)
    assert "continues after iteration 1" in listener.notes
    expected = {name: text.replace(bytes(folder), bytes(again)) for name, text in files_of(folder).items()}
    assert files_of(again) == expected


def test_given_references_number_the_classes(two: MixedData, tmp_path: Path) -> None:
    """The second reference lacks the domain: class 2 is theirs."""
    whole, pixel = read_map(two.data.true_map)
    axis = (np.arange(32) - 16) * pixel
    centre, radius = two.without.position_angstrom.mean(axis=0), 22.0
    square = (axis[:, None, None] - centre[2]) ** 2 + (axis[:, None] - centre[1]) ** 2 + (axis - centre[0]) ** 2
    write_map(tmp_path / "a.mrc", whole, pixel)
    write_map(tmp_path / "b.mrc", np.where(square < radius**2, 0.0, whole).astype(np.float32), pixel)
    names = f"{tmp_path / 'a.mrc'},{tmp_path / 'b.mrc'}"
    result = run_classify(two, tmp_path / "job", references=names, ini_high=30.0)
    assert np.mean(result.state.classes - 1 == two.kind) >= 0.94


def test_the_start_that_predicts_particles_best_goes_on(
    two: MixedData, found: tuple[ClassifyResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two: with equal posteriors in the other all maps are the same and stay so."""
    guess, calls = FixedIterations.guess, list[int]()

    def nothing_but_once(work: FixedIterations, seed: int, number: int) -> tuple[NDArray[np.float64], list[Place]]:
        calls.append(number)
        # the true difference is that of the strongest place
        weights, found = guess(work, seed, 0) if number == 1 else (np.full((80, 2), 0.5), guess(work, seed, number)[1])
        return weights, found

    monkeypatch.setattr(FixedIterations, "guess", nothing_but_once)
    result = run_classify(two, tmp_path / "job", starts=2, iterations=1)
    assert calls == [0, 1]
    assert adjusted_rand_index(two.kind, result.state.classes - 1) >= 0.8


def test_a_class_that_dies_is_told_and_the_others_go_on(
    two: MixedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = FixedIterations.step

    def third_is_unlikely(work: FixedIterations, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        log = step(work, weights)
        log[:, 2] -= 1e3
        return log

    monkeypatch.setattr(FixedIterations, "step", third_is_unlikely)
    result = run_classify(two, tmp_path / "job", classes=3, iterations=2)
    assert (result.state.dead, result.state.iteration) == ([3], 2)
    assert set(result.state.classes) == {1, 2}
    told = json.loads((tmp_path / "job" / "classes.json").read_text())["classes"][2]
    assert (told["died"], told["particles"], told["share"], told["mean_posterior"]) == (True, 0, 0.0, None)
    warnings = json.loads((tmp_path / "job" / "job.json").read_text())["warnings"]
    assert sum("class 3 has lost its particles" in text for text in warnings) == 1
    assert not result.maps[2].map.any()


def test_junk_is_told_from_particles(tmp_path: Path) -> None:
    sample = mixed(tmp_path, 40, 0.25, lacking=0.0, empty=0.2, shifted=0.1, shift_angstrom=80.0)
    result = run_classify(sample, tmp_path / "job", classes=1, junk=True)
    kept, true = result.state.classes == 1, sample.kind == 0
    assert (kept & true).sum() >= 0.9 * max(kept.sum(), true.sum())


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> MixedData:
    """Poses are off by 5° and 6 Å."""
    planted = {"error_orientation": 5.0, "error_position": 4.0, "snr": 0.6}
    return mixed(tmp_path_factory.mktemp("turned"), 7, 0.3, planted)


LOCAL = {"align": "local", "healpix_order": 3, "sigma_ang": 4.0, "offset_range_px": 1.5, "strict_highres_exp": 20.0}


def test_particles_are_aligned_to_every_class(
    turned: MixedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poses get better, classes are found, and stops, also during the alignment to the average, change no byte."""
    whole = tmp_path / "a" / "job"
    result = run_classify(turned, whole, iterations=2, **LOCAL)
    assert np.mean(result.state.classes - 1 == turned.kind) in (0.0, 1.0)
    truth = load_optimisation_set(turned.data.folder / "truth" / "optimisation_set.star")
    before = score_poses(load_optimisation_set(turned.data.optimisation_set), truth)
    after = score_poses(load_optimisation_set(whole / "run_optimisation_set.star"), truth)
    assert np.median(after.angle_deg) <= 0.6 * np.median(before.angle_deg)
    assert np.median(after.distance) <= 0.4 * np.median(before.distance)
    again = tmp_path / "b" / "job"
    with monkeypatch.context() as patch:

        def stop(listener: Listener, text: str) -> None:
            if text.startswith("alignment 2"):
                (again / ABORT_NOW).touch()

        patch.setattr(Listener, "note", stop)
        with pytest.raises(Aborted):
            run_classify(turned, again, Listener(again), iterations=2, **LOCAL)
    listener = Listener(again, stop=1)
    with pytest.raises(Aborted):
        run_classify(turned, again, listener, iterations=2, **LOCAL)
    assert next(note[:11] for note in listener.notes if note.startswith("alignment")) == "alignment 3"
    run_classify(turned, again, iterations=2, threads=2, **LOCAL)
    expected = {name: text.replace(b"/a/job", b"/b/job") for name, text in files_of(whole).items()}
    assert files_of(again) == expected


def test_particles_are_aligned_before_they_are_divided(tmp_path: Path) -> None:
    """A small domain: classes that are guessed at the poses of the file would sort their errors."""
    planted = {"error_orientation": 5.0, "error_position": 4.0, "snr": 0.6}
    apart = {"width_px": 288, "height_px": 288, "spacing": 100.0}
    sample = mixed(tmp_path, 30, 0.05, planted | apart)
    listener = Listener(tmp_path / "job")
    result = run_classify(sample, tmp_path / "job", listener, iterations=1, **LOCAL)
    assert any("alignment 2 to the average" in note for note in listener.notes)
    assert adjusted_rand_index(sample.kind, result.state.classes - 1) >= 0.8


def test_particles_that_are_all_alike_stay_together_when_they_are_aligned(tmp_path: Path) -> None:
    planted = {"error_orientation": 5.0, "error_position": 4.0, "snr": 0.6}
    apart = {"width_px": 288, "height_px": 288, "spacing": 100.0}
    sample = mixed(tmp_path, 12, 0.25, planted | apart, lacking=0.0)
    result = run_classify(sample, tmp_path / "job", iterations=1, **LOCAL)
    np.testing.assert_allclose(result.state.posterior, 0.5, atol=0.05)
    warnings = json.loads((tmp_path / "job" / "job.json").read_text())["warnings"]
    assert any("do not tell these classes apart" in text for text in warnings)


def test_classes_of_pose_errors_are_called_so(tmp_path: Path, two: MixedData) -> None:
    """Particles that are all alike, turned and shifted: classes are certain, and of nothing."""
    planted = {"error_orientation": 5.0, "error_position": 4.0, "snr": 0.6, "spacing": 100.0}
    apart = {"width_px": 288, "height_px": 288}
    sample = mixed(tmp_path, 15, 0.25, planted | apart, lacking=0.0)

    def warned(data: MixedData, folder: Path) -> tuple[float, bool]:
        result = run_classify(data, folder, iterations=3)
        job = json.loads((folder / "job.json").read_text())
        told = any("errors of poses are sorted here" in text for text in job["warnings"])
        assert told == (job["metrics"]["moved_share"] >= MOST)
        return float(result.state.posterior.max(axis=1).mean()), told

    assert warned(sample, tmp_path / "a" / "job") == (pytest.approx(1.0, abs=0.05), True)
    assert warned(two, tmp_path / "b" / "job") == (pytest.approx(1.0, abs=0.05), False)


@pytest.mark.parametrize("references", [0, 1, 2])
def test_poses_are_found_everywhere(references: int, tmp_path: Path) -> None:
    """By the average at the poses of the file, by one map first, or by a map for every class."""
    lost = {"error_orientation": 1000.0 if references else 8.0, "error_position": 4.0, "snr": 0.6}
    sample = mixed(tmp_path, 8, 0.3, lost)
    extra: dict[str, Any] = {}
    if references:
        whole, pixel = read_map(sample.data.reference)
        write_map(tmp_path / "lacking.mrc", whole - sample_map(sample.without, 32, pixel), pixel)
        names = [str(sample.data.reference), str(tmp_path / "lacking.mrc")]
        extra["references"] = ",".join(names[:references])
    listener = Listener(tmp_path / "job")
    result = run_classify(
        sample,
        tmp_path / "job",
        listener,
        align="global",
        healpix_order=1,
        iterations=1,
        strict_highres_exp=20.0,
        **extra,
    )
    assert any("to the average" in note for note in listener.notes) == (references < 2)
    # particles that have been found are sought near their poses
    assert result.state.near == (references < 2)
    truth = load_optimisation_set(sample.data.folder / "truth" / "optimisation_set.star")
    after = score_poses(result.optset, truth)
    assert np.median(after.angle_deg) <= 5.0
    assert np.median(after.distance) <= 3.0
    if references == 2:
        assert np.mean(result.state.classes - 1 == sample.kind) >= 0.9
    assert adjusted_rand_index(sample.kind, result.state.classes - 1) >= 0.5


def test_no_junk_is_no_reason_to_doubt(two: MixedData, tmp_path: Path) -> None:
    result = run_classify(two, tmp_path / "job", classes=1, junk=True)
    assert (result.state.classes == 1).all()
    warnings = json.loads((tmp_path / "job" / "job.json").read_text())["warnings"]
    assert len(warnings) == len(result.state.dead) == 1
    assert "no position is junk" in warnings[0]


def test_bad_input_is_refused_in_words(two: MixedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few particles for so many classes"):
        run_classify(two, tmp_path / "a", classes=21)
    with pytest.raises(ConfigError, match="nothing to choose from"):
        run_classify(two, tmp_path / "a", classes=1)
    reference = two.data.reference
    with pytest.raises(ConfigError, match="references 1 and 2 are the same map"):
        run_classify(two, tmp_path / "b", references=f"{reference},{reference}")
    with pytest.raises(ConfigError, match="differ in number"):
        run_classify(two, tmp_path / "c", references=str(reference))
    with pytest.raises(ConfigError, match="--starts"):
        run_classify(two, tmp_path / "e", references=f"{reference},b.mrc", align="global", starts=2)
    with pytest.raises(ConfigError, match="differs from nothing"):
        run_classify(two, tmp_path / "f", classes=1, junk=True, align="local", tau2_fudge=2.0)
    corner = np.zeros((32, 32, 32), np.float32)
    corner[:4, :4, :4] = 1.0
    write_map(tmp_path / "corner.mrc", corner, 6.0)
    with pytest.raises(DataError, match="mask lies outside the particle"):
        run_classify(two, tmp_path / "d", mask=tmp_path / "corner.mrc")


def test_a_class_too_many_is_told(two: MixedData, tmp_path: Path) -> None:
    """Without any difference between particles posteriors are the shares, and the user is told."""
    alike = mixed(tmp_path, 20, 0.25, lacking=0.0)
    result = run_classify(alike, tmp_path / "job")
    certain = result.state.posterior.max(axis=1)
    assert certain.mean() - result.state.share.max() < 0.15
    warnings = json.loads((tmp_path / "job" / "job.json").read_text())["warnings"]
    assert any("do not tell these classes apart" in text for text in warnings) or result.state.share.max() > 0.9
