"""The commands from end to end on a tiny simulated data set."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiltwise.cli import demo
from tiltwise.cli.main import main
from tiltwise.cycle.options import CycleOptions
from tiltwise.em.options import RefineOptions
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.sim.options import SimulateOptions

TINY: dict[str, Any] = {
    "tilt_series": 1,
    "particles": 8,
    "width_px": 128,
    "height_px": 128,
    "thickness": 300.0,
    "pixel_size": 8.0,
    "box": 24,
    "particle_diameter": 90.0,
    "beads": 60,
    "tilt_step": 12.0,
    "snr": 1.0,
    "spacing": 0.0,
    "margin_px": 16,
    "error_orientation": 4.0,
    "reference_resolution": 30.0,
}
COARSE: dict[str, Any] = {
    "box": 32,
    "crop": 24,
    "particle_diameter": 100.0,
    "ini_high": 30.0,
    "healpix_order": 1,
    "offset_range_px": 1.0,
    "iterations": 2,
    "threads": 1,
}


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "data"
    options = SimulateOptions(output=folder, **TINY)
    assert call("simulate", *options.to_arguments(), "--quiet") == 0
    return folder


def refine_arguments(data: Path, output: Path, **changes: Any) -> list[str]:
    values = {**COARSE, **changes}
    options = RefineOptions(input=data / "optimisation_set.star", reference=data / "ref30.mrc", output=output, **values)
    return ["refine", *options.to_arguments()]


def check_folder(folder: Path) -> dict[str, Any]:
    """What every finished job folder has."""
    names = {path.name for path in folder.iterdir()}
    assert {"RELION_JOB_EXIT_SUCCESS", "job.json", "events.jsonl", "note.txt", "report.html"} <= names
    assert not {"RELION_JOB_EXIT_FAILURE", "RELION_JOB_EXIT_ABORTED"} & names
    assert not [name for name in names if name.startswith(".") and name != ".state"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert re.search("https?:", re.sub(r"base64,[^\"]*", "", page)) is None
    content: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    for entry in content["outputs"]:
        assert Path(entry["path"]).stat().st_size == entry["bytes"], entry["path"]
    return content


def test_simulate(data: Path) -> None:
    content = check_folder(data)
    assert content["metrics"]["n_particles"] == 8
    assert len(load_optimisation_set(data / "optimisation_set.star").particles) == 8


def test_reconstruct(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--i", data / "optimisation_set.star", "--b", 32, "--crop", 24, "--o", tmp_path / "job", "--json")
    assert call("reconstruct", *arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == "success"
    assert summary["metrics"]["resolution_angstrom"] < 48
    content = check_folder(tmp_path / "job")
    assert [Path(entry["path"]).name for entry in content["inputs"]] == [
        "optimisation_set.star",
        "particles.star",
        "tomograms.star",
    ]
    for name in ("half1.mrc", "half2.mrc", "merged.mrc"):
        density, pixel_size = read_map(tmp_path / "job" / name)
        assert density.shape == (24, 24, 24)
        assert pixel_size == pytest.approx(8.0)
    nodes = (tmp_path / "job" / "RELION_OUTPUT_NODES.star").read_text()
    assert "merged.mrc" in nodes


def test_refine_continues_and_protects_its_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "job"
    assert main(refine_arguments(data, folder)) == 0
    text = capsys.readouterr().out
    assert text.count("FSC.143") == 1
    assert "next: tiltwise" in text
    check_folder(folder)
    first = (folder / "run_class001.mrc").read_bytes()
    assert {p.name for p in folder.glob("run_*")} >= {"run_data.star", "run_optimisation_set.star"}
    # Again: nothing is left to iterate, the end is the same.
    assert main(refine_arguments(data, folder)) == 0
    assert "continues after iteration 2" in capsys.readouterr().out
    assert (folder / "run_class001.mrc").read_bytes() == first
    # Another calculation must not overwrite it.
    assert main(refine_arguments(data, folder, ini_high=40.0)) == 2
    assert "--ini-high: was 30.0, now 40.0" in capsys.readouterr().err
    assert (folder / "run_class001.mrc").read_bytes() == first
    check_folder(folder)


def test_killed_refinement_continues_to_the_same_bytes(data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*refine_arguments(data, whole), "--quiet"]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "tiltwise", *refine_arguments(data, killed), "--quiet"], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (killed / ".state" / "refine.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while not (killed / "RELION_JOB_EXIT_FAILURE").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (killed / "RELION_JOB_EXIT_FAILURE").exists()
    assert not (killed / "run_class001.mrc").exists()
    assert main([*refine_arguments(data, killed), "--quiet"]) == 0
    for name in ("run_class001.mrc", "run_half1_class001_unfil.mrc"):
        np.testing.assert_array_equal(read_map(whole / name)[0], read_map(killed / name)[0])


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole story, on fewer particles in smaller images."""
    small = {"width_px": 160, "height_px": 160, "thickness": 300.0, "pixel_size": 6.0, "box": 32, "beads": 120}
    small |= {"particle_diameter": 110.0, "tilt_step": 12.0, "snr": 0.5, "spacing": 0.0, "margin_px": 24, "threads": 1}
    whole = demo.simulate_options, demo.cycle_options

    def data_options(options: demo.DemoOptions) -> SimulateOptions:
        return whole[0](options).model_copy(update={**small, "particles": 10})

    def cycle_options(options: demo.DemoOptions, data: demo.Data) -> CycleOptions:
        changed = {"box": 48, "crop": 32, "particle_diameter": 120.0, "motion": False, "threads": 1}
        return whole[1](options, data).model_copy(update=changed)

    monkeypatch.setattr(demo, "simulate_options", data_options)
    monkeypatch.setattr(demo, "cycle_options", cycle_options)
    assert call("demo", "--o", tmp_path / "demo", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert printed == summary
    assert {"resolution_angstrom", "truth_resolution_angstrom", "pose_error_deg", "wall_s"} <= set(summary)
    assert all(np.isfinite(value) for value in summary.values())
    # the planted errors are seen; so few particles say where they are themselves, and nothing of the tilts
    assert summary["start_shift_error_angstrom"] == pytest.approx(4.0, rel=0.3)
    assert summary["start_angle_error_deg"] == pytest.approx(0.2, rel=0.3)
    assert summary["start_defocus_error_angstrom"] == pytest.approx(400.0, rel=0.5)
    assert summary["shift_error_angstrom"] <= summary["start_shift_error_angstrom"]
    assert summary["pose_error_deg"] < 0.8 * summary["start_pose_error_deg"]
    assert summary["pose_error_angstrom"] < 0.5 * summary["start_pose_error_angstrom"]
    for folder in (tmp_path / "demo", tmp_path / "demo" / "cycle", tmp_path / "demo" / "cycle" / "round0" / "refine"):
        check_folder(folder)
    # a second run keeps the data and the steps
    kept = [tmp_path / "demo" / "data" / "tilt_series" / "TS_01.mrcs"]
    kept.append(tmp_path / "demo" / "cycle" / "round0" / "refine" / "run_class001.mrc")
    before = [path.stat().st_mtime_ns for path in kept]
    assert call("demo", "--o", tmp_path / "demo", "--quiet") == 0
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_folder_that_cannot_be_made(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("--i", data / "optimisation_set.star", "--b", 32, "--o", tmp_path / "file" / "job")
    assert call("reconstruct", *arguments) == 5
    assert "fix:" in capsys.readouterr().err
