"""`tiltwise report A B`: what differs between two jobs, in numbers that were planted."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.projects import OtherOptions, finished, relion_job, unfinished
from tiltwise.cli.main import main
from tiltwise.config import option
from tiltwise.exec.records import JobRecord
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set
from tiltwise.io.star import read_star, write_star
from tiltwise.io.write_particles import write_particles
from tiltwise.io.write_tomograms import write_tomograms
from tiltwise.jobs.records import read_record
from tiltwise.report import compare as comparison
from tiltwise.report.compare import compare, sentence
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.masks import soft_sphere

SIZE, PIXEL = 32, 4.0


def half_maps(folder: Path, noise: float, size: int = SIZE, pixel: float = PIXEL) -> None:
    """Half maps of one structure with noise of their own, and their mean."""
    rng = np.random.default_rng(int(1000 * noise))
    structure = low_pass(np.random.default_rng(0).normal(size=(size,) * 3), pixel, 10.0) * soft_sphere(size, 10, 4)
    halves = [(structure + noise * rng.normal(size=structure.shape)).astype(np.float32) for _ in range(2)]
    for name, values in zip(("half1", "half2", "merged"), (*halves, (halves[0] + halves[1]) / 2), strict=True):
        write_map(folder / f"{name}.mrc", values, pixel)


def job(folder: Path, noise: float, **values: int) -> JobRecord:
    finished(folder, OtherOptions, **values)
    half_maps(folder, noise)
    return record(folder)


def record(folder: Path) -> JobRecord:
    found = read_record(folder, folder.parent)
    assert found is not None
    return found


def test_the_better_maps_win(tmp_path: Path) -> None:
    result = compare(job(tmp_path / "a", 0.4), job(tmp_path / "b", 0.1))
    first, second = result.resolution(0), result.resolution(1)
    assert first is not None
    assert second is not None
    assert second < first
    assert sentence(result).startswith("B is better: ")
    turned = compare(*reversed(result.records))
    assert sentence(turned).startswith("A is better: ")


def test_equal_jobs_do_not_differ(tmp_path: Path) -> None:
    result = compare(job(tmp_path / "a", 0.2), job(tmp_path / "b", 0.2))
    assert sentence(result).startswith("No difference: ")


def test_maps_of_other_grids_are_compared_on_one(tmp_path: Path) -> None:
    """A box of 48 voxels of 4 Å holds that of 32; resolution is looked at in the same volume."""
    first = job(tmp_path / "a", 0.2)
    finished(tmp_path / "b", OtherOptions)
    rng = np.random.default_rng(1)
    for name in ("half1", "half2", "merged"):
        values: NDArray[np.float32] = rng.normal(size=(24,) * 3).astype(np.float32)
        write_map(tmp_path / "b" / f"{name}.mrc", values, 8.0)
    result = compare(first, record(tmp_path / "b"))
    assert [one.pixel_size for one in result.maps] == [8.0, 8.0]
    assert [one.map is not None and len(one.map) for one in result.maps] == [16, 16]
    assert sentence(result).startswith("A is better")


def test_page_says_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job(tmp_path / "a", 0.4, box=32)
    job(tmp_path / "b", 0.1, box=48)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "a", "b"]) == 0
    text = (tmp_path / "compare_a_b.html").read_text()
    assert "B is better" in text
    assert "<td>box</td><td>32</td><td>48</td><td>px</td>" in text
    assert text.count("<svg") == 2
    assert text.count("data:image/png") == 2
    assert "B lies on A as it is" in text
    assert "http" not in text.replace("http-equiv", "")


def planted(folder: Path, data: SimulatedData) -> None:
    """A job with the set of `data`, its defocus raised by 500 Å, every particle moved by 3 Å but one by 13 Å."""
    finished(folder)
    optset = load_optimisation_set(data.optimisation_set, need_images=False)
    particles = optset.particles
    moved = particles.coordinate_px.copy()
    moved[:, 0] += 3.0 / optset.series[0].pixel_size_angstrom
    moved[0, 0] += 10.0 / optset.series[0].pixel_size_angstrom
    series = tuple(
        replace(
            one,
            defocus_u_angstrom=one.defocus_u_angstrom + 500.0,
            defocus_v_angstrom=one.defocus_v_angstrom + 500.0,
        )
        for one in optset.series
    )
    write_particles(folder / "particles.star", optset, particles=replace(particles, coordinate_px=moved))
    write_tomograms(folder / "tomograms.star", optset, series=series)
    write_optimisation_set(
        folder / "run_optimisation_set.star",
        particles=folder / "particles.star",
        tomograms=folder / "tomograms.star",
    )


def test_poses_and_ctfs_that_were_moved(tmp_path: Path, tiny_data: SimulatedData) -> None:
    """The shift that all particles share in the frame of the map is not counted, its rest is; defocus is told."""
    finished(tmp_path / "a")
    shutil.copy(tiny_data.optimisation_set, tmp_path / "a" / "run_optimisation_set.star")
    planted(tmp_path / "b", tiny_data)
    result = compare(record(tmp_path / "a"), record(tmp_path / "b"))
    assert result.moved is not None
    assert len(result.common) == 6
    assert float(result.moved.angle_deg.max()) < 0.01
    assert 9.0 < float(result.moved.distance.max()) < 17.0
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--o", str(tmp_path / "page.html")]) == 0
    assert "rotation from A to B (°)" in (tmp_path / "page.html").read_text()
    assert "<td>500</td><td>0</td><td>0</td><td>0</td><td>0</td>" in (tmp_path / "page.html").read_text()


def test_classes_of_both_are_counted(tmp_path: Path, tiny_data: SimulatedData) -> None:
    table = read_star(load_optimisation_set(tiny_data.optimisation_set, need_images=False).paths["particles"])
    for name, classes in (("a", [1, 1, 1, 2, 2, 2]), ("b", [2, 2, 1, 1, 1, 1])):
        finished(tmp_path / name)
        block = table["particles"].take(range(6))
        block.set_integers("rlnClassNumber", classes)
        write_star(tmp_path / name / "particles.star", table.replace(block))
        write_optimisation_set(
            tmp_path / name / "run_optimisation_set.star",
            particles=tmp_path / name / "particles.star",
            tomograms=load_optimisation_set(tiny_data.optimisation_set, need_images=False).paths["tomograms"],
        )
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--o", str(tmp_path / "page.html")]) == 0
    text = re.sub(r"<[^>]+>", " ", (tmp_path / "page.html").read_text())
    assert re.search(r"A: class 1 +1 +2 +A: class 2 +3 +0", re.sub(r"\s+", " ", text))
    assert "83% are in the class of B" in text


def test_jobs_without_maps_are_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options and times still compare; a job that was killed is named."""
    finished(tmp_path / "a", box=32)
    unfinished(tmp_path / "b", 1)
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--o", str(tmp_path / "c.html"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["verdict"].startswith("No verdict")
    assert content["resolution_angstrom"] == [None, 17.0]


class ClassOptions(OtherOptions):
    command: ClassVar[str] = "classify"
    symmetry: str = option("C6,C1", flags=("--sym",), help="of every class")


def test_classes_with_symmetries_of_their_own(tmp_path: Path) -> None:
    for name in "ab":
        finished(tmp_path / name, ClassOptions)
        half_maps(tmp_path / name, 0.2)
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--o", str(page)]) == 0
    assert "B lies on A as it is" in page.read_text()


def test_maps_without_density_are_none(tmp_path: Path) -> None:
    first = job(tmp_path / "a", 0.2)
    finished(tmp_path / "b", OtherOptions)
    for name in ("half1", "half2", "merged"):
        write_map(tmp_path / "b" / f"{name}.mrc", np.zeros((SIZE,) * 3, np.float32), PIXEL)
    result = compare(first, record(tmp_path / "b"))
    assert result.maps[1].map is None
    assert sentence(result).startswith("No verdict")


def test_large_maps_are_binned_for_the_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [comparison._seen(512, 1.0, finest) for finest in (2.0, 4.0, 16.0, 100.0)] == [256, 256, 96, 96]
    assert comparison._seen(512, 1.0, 8.0) == 2 * 96
    assert comparison._seen(48, 1.0, 2.0) == 48
    monkeypatch.setattr(comparison, "MOST_BOX", 16)
    result = compare(job(tmp_path / "a", 0.05), job(tmp_path / "b", 0.05))
    laid = comparison._overlay(result)
    assert laid is not None
    assert len(laid.first) == 16
    assert laid.pixel_size == 2 * PIXEL
    assert laid.agreement == "16.0 Å or finer"
    assert result.maps[0].map is not None
    assert len(result.maps[0].map) == SIZE


def test_what_is_no_job_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b")]) == 3
    assert "not the folder of a job" in capsys.readouterr().err
    for number in (1, 2):
        relion_job(tmp_path / "Class3D" / f"job00{number}", [], [], None)
    folders = [str(tmp_path / "Class3D" / f"job00{number}") for number in (1, 2)]
    assert main(["report", *folders, "--o", str(tmp_path / "c.html")]) == 3
    assert "nothing to compare" in capsys.readouterr().err
