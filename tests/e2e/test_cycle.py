"""`tiltwise cycle` and `polish` on a small set with planted errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.browser import check_report
from helpers.refinements import DIAMETER, simulated
from tiltwise.cli.main import main
from tiltwise.cycle import run
from tiltwise.cycle.options import CycleOptions
from tiltwise.cycle.project import newest_set
from tiltwise.cycle.table import verdicts
from tiltwise.errors import FormatError, ShapeError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_tomograms
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.manifest import read_manifest
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.masks import distances, soft_edge


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("cycle"), particles=10)


def arguments(data: SimulatedData, output: Path, *more: str) -> list[str]:
    options = {
        "--i": data.optimisation_set,
        "--o": output,
        "--b": 48,
        "--crop": 32,
        "--particle-diameter": DIAMETER + 10.0,
        "--threads": 1,
        "--n": 1,
    }
    return [*(str(word) for pair in options.items() for word in pair), "--no-motion", *more]


COARSE = ("--auto-local-healpix-order", "3", "--offset-range", "3")
"""Searches for poses in seconds."""


@pytest.fixture(scope="module")
def finished(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cycle from a refinement of its own."""
    output = tmp_path_factory.mktemp("cycle") / "out"
    more = ["--ref", str(data.reference), "--ini-high", "40", "--healpix-order", "3", *COARSE]
    assert main(["cycle", *arguments(data, output, *more)]) == 0
    return output


def table(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "cycle.json").read_text())
    return content


def test_every_step_is_a_job_and_a_row(finished: Path) -> None:
    content = table(finished)
    names = [(one["round"], one["name"]) for one in content["steps"]]
    assert names[:4] == [(0, "refine"), (1, "before"), (1, "align"), (1, "ctf")]
    assert names[-2][1] == "postprocess"
    for one in content["steps"]:
        manifest = read_manifest(Path(one["folder"]))
        assert manifest is not None
        assert manifest["status"] == "success"
        assert one["wall_s"] > 0
        assert one["resolution_angstrom"] > 0
    result = load_optimisation_set(finished / "optimisation_set.star", need_images=False)
    assert len(result.particles) == 20


def test_what_every_correction_bought(finished: Path) -> None:
    """The first search took the poses from 8° to 1°, and nothing else is to be put back in a set without errors."""
    content = table(finished)
    rows = {row["family"]: row for row in content["ablation"]["rows"]}
    first = rows["poses of the first search"]
    assert first["gain_nats"] > 5.0 * first["gain_sigma_nats"] > 0
    assert first["mean_fsc_gain"] > 3.0 * first["mean_fsc_gain_sigma"] > 0
    assert first["resolution_without_angstrom"] > content["ablation"]["resolution_angstrom"]
    assert sum(first["gain_nats_by_series"].values()) == pytest.approx(first["gain_nats"], abs=0.1)
    names = [(one["name"], one["peak_memory_gb"]) for one in content["steps"]]
    assert names[-1][0] == "ablation"
    assert all(memory > 0.05 for _, memory in names)


def test_wrong_tilts_cost(data: SimulatedData, tmp_path: Path) -> None:
    """Planted shifts as if they were a correction of the truth."""
    truth = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    rng, series = np.random.default_rng(3), []
    for one in truth.series:
        projection = one.projection.copy()
        projection[:, :2, 3] += rng.normal(scale=1.0, size=(one.n_tilts, 2))
        series.append(replace(one, projection=projection))
    write_tomograms(tmp_path / "tomograms.star", truth, series=series)
    words = ["--t", str(tmp_path / "tomograms.star"), "--p", truth.paths["particles"]]
    words += ["--before", str(data.truth.parent / "optimisation_set.star")]
    assert main(["ablate", *arguments(data, tmp_path / "out")[2:-3], *words]) == 0
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    # particles did not follow what the shifts have in common
    assert [row["family"] for row in content["rows"]][:2] == ["tilt shifts", "places of series"]
    row = content["rows"][0]
    assert row["correction"].endswith("Å")
    assert row["gain_nats"] < -5.0 * row["gain_sigma_nats"] < 0
    assert row["mean_fsc_gain"] < 0
    assert (tmp_path / "out" / "report.html").stat().st_size < 6e6


def test_what_was_before_is_named(data: SimulatedData, finished: Path) -> None:
    before = load_optimisation_set(finished / "before_optimisation_set.star", need_images=False)
    assert before.paths["particles"] == load_optimisation_set(data.optimisation_set).paths["particles"]


@pytest.mark.parametrize("folder", ["", "round0/refine", "round1/before", "round1/ctf", "round1/align", "postprocess"])
def test_reports_need_no_network_and_show_all_they_have(folder: str, finished: Path, browser: Any) -> None:
    surface = folder not in ("round1/ctf", "round1/align")
    check_report(browser, finished / folder / "report.html", surface=surface, started=folder in ("", "round0/refine"))


def test_a_cycle_of_particles_that_is_stopped_goes_on_and_changes_no_input(
    data: SimulatedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an External job has it, with --p; stopped by the abort file in the folder of the cycle."""
    optset = load_optimisation_set(data.optimisation_set)
    files = {path: path.read_bytes() for path in data.folder.rglob("*.star")}
    words = ["--p", optset.paths["particles"], "--t", optset.paths["tomograms"], "--bins", "2,1", "--order", "ctf"]
    words = [*arguments(data, tmp_path / "out", *COARSE, "--no-ablation")[2:], *words]
    mask = soft_edge(distances(32, 3), 14.0, 5.0).astype(np.float32)
    write_map(tmp_path / "mask.mrc", mask, 0.0)
    words += ["--mask", str(tmp_path / "mask.mrc")]
    measured = run.Cycle._measured

    def stop(self: run.Cycle, *given: Any, **named: Any) -> None:
        measured(self, *given, **named)
        (tmp_path / "out" / "RELION_JOB_ABORT_NOW").touch()

    monkeypatch.setattr(run.Cycle, "_measured", stop)
    assert main(["cycle", *words]) == 6
    assert (tmp_path / "out" / "RELION_JOB_EXIT_ABORTED").exists()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("round*/*/job.json")}
    assert len(done) == 2  # start, before
    coarse = tmp_path / "out" / "mask_bin2.mrc"
    done[coarse] = coarse.stat().st_mtime_ns
    for name, given in (("round0/reconstruct", coarse), ("round1/before", tmp_path / "mask.mrc")):
        manifest = read_manifest(tmp_path / "out" / name)
        assert manifest is not None
        assert str(given) in manifest["command_line"]
    monkeypatch.undo()
    assert main(["cycle", *words]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    steps = table(tmp_path / "out")["steps"]
    assert [one["binning"] for one in steps if one["name"] == "refine"] == [1.0]  # finer pixels are a reason to refine
    assert {path: path.read_bytes() for path in files} == files


def test_goes_on_where_it_stopped(data: SimulatedData, finished: Path) -> None:
    """Steps that are finished are not run again, nor is a mask found again."""
    steps = [Path(one["folder"]) / "job.json" for one in table(finished)["steps"]]
    steps.append(finished / "round1" / "mask" / "job.json")
    before = [path.stat().st_mtime_ns for path in steps]
    more = ["--ref", str(data.reference), "--ini-high", "40", "--healpix-order", "3", *COARSE]
    assert main(["cycle", *arguments(data, finished, *more)]) == 0
    assert [path.stat().st_mtime_ns for path in steps] == before


def test_polish_starts_from_the_poses_of_a_project(
    data: SimulatedData, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    job = project / "Refine3D" / "job007"
    job.mkdir(parents=True)
    text = (finished / "round0" / "refine" / "run_optimisation_set.star").read_text()
    (job / "run_optimisation_set.star").write_text(text)
    (project / "Polish" / "job009").mkdir(parents=True)
    (project / "Polish" / "job009" / "optimisation_set.star").write_text(text)
    assert newest_set(project) == job / "run_optimisation_set.star"
    files = {path: path.read_bytes() for path in project.rglob("*.star")}
    monkeypatch.chdir(tmp_path)
    words = arguments(data, tmp_path / "out", "--order", "ctf", *COARSE)[2:]  # without --i
    assert main(["polish", "project", *words]) == 0
    steps = [one["name"] for one in table(tmp_path / "out")["steps"]]
    assert steps[:3] == ["reconstruct", "before", "ctf"]
    assert {path: path.read_bytes() for path in project.rglob("*.star")} == files


def test_project_without_sets(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no optimisation set"):
        newest_set(tmp_path)


@pytest.mark.parametrize("pixel", [0.0, 1.0, 6.0])
def test_masks_keep_their_centre_and_size_in_angstrom(pixel: float, data: SimulatedData, tmp_path: Path) -> None:
    """At binnings by which the box cannot be divided, too; a mask without a pixel size is as wide as the maps."""

    def ball(size: int, pixel: float) -> NDArray[np.float32]:
        axis = (np.arange(size) - size // 2) * pixel
        x, y, z = 12.0, -18.0, 6.0
        r = np.sqrt((axis - x) ** 2 + (axis[:, None] - y) ** 2 + (axis[:, None, None] - z) ** 2)
        return soft_edge(r, 75.0, 50.0).astype(np.float32)

    write_map(tmp_path / "mask.mrc", ball(32, 6.0), pixel)
    options = {"input": data.optimisation_set, "box": 48, "crop": 32, "mask": tmp_path / "mask.mrc", "bins": "3,2,1"}
    told: list[str] = []
    progress = SilentProgress()
    progress.note = told.append  # type: ignore[method-assign]

    def given(binning: float, folder: str = "out") -> Path:
        chosen = CycleOptions(output=tmp_path / folder, **options)
        with FolderJob(chosen, ["tiltwise", "cycle"], progress) as job:
            one = run.Cycle(chosen, job, progress, lambda step: {})
            found, again = one.given_mask(binning), one.given_mask(binning)
        assert found is not None
        assert again == found
        return found

    assert given(1.0) == tmp_path / "mask.mrc"
    assert told == []
    for binning, size in ((2.0, 16), (3.0, 10)):
        found, own = read_map(given(binning))
        assert own == pytest.approx(6.0 * binning)
        np.testing.assert_allclose(found, ball(size, 6.0 * binning), atol=0.08)  # averages of voxels
    assert sum("as wide as the maps" in text for text in told) == (2 if pixel != 6.0 else 0)
    assert sum("is resampled to" in text for text in told) == 2
    write_map(tmp_path / "mask.mrc", ball(32, 6.0)[:-2], pixel)
    with pytest.raises(ShapeError, match="not a cube"):
        given(2.0, "b")


def test_a_pixel_size_of_one_angstrom_is_one_where_unbinned_pixels_have_it(data: SimulatedData, tmp_path: Path) -> None:
    """Not "unknown" as for others, though the maps of the round are of 2 Å."""
    mask = np.zeros((22, 22, 22), np.float32)
    mask[3:19, 3:19, 3:19] = 1.0
    write_map(tmp_path / "mask.mrc", mask, 1.0)
    options = CycleOptions(
        input=data.optimisation_set, box=72, crop=48, mask=tmp_path / "mask.mrc", bins="2,1", output=tmp_path / "out"
    )
    with FolderJob(options, ["tiltwise", "cycle"], SilentProgress()) as job:
        one = run.Cycle(options, job, SilentProgress(), lambda step: {})
        one.pixel_size = 1.0
        found, _ = read_map(one.given_mask(2.0))  # type: ignore[arg-type]
    assert found.sum() * 8 == pytest.approx(mask.sum(), rel=0.01)


def test_verdicts_in_words(tmp_path: Path) -> None:
    series = {
        "a": {"verdict": {"defocus": {"verdict": "improved"}, "scale": {"verdict": "unchanged"}}},
        "b": {"verdict": {"defocus": {"verdict": "worse"}, "scale": {"verdict": "unchanged"}}},
    }
    (tmp_path / "ctf.json").write_text(json.dumps({"series": series}))
    assert verdicts(tmp_path / "ctf.json") == ("defocus improved in 1 of 2; scale improved in 0 of 2", 1)
