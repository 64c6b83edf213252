"""Commands on half maps from end to end, and their answers to bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from helpers.half_maps import BOX, PIXEL, half_maps, particle, write_half_maps
from tiltwise.cli.main import main
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.star import read_star
from tiltwise.spectral.masks import soft_sphere

DATA = 3
CORRECTED = "rlnFourierShellCorrelationCorrected"


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with half maps like that of a reconstruction."""
    return write_half_maps(tmp_path_factory.mktemp("halves"), *half_maps(0.15))


def check_report(folder: Path) -> None:
    assert (folder / "RELION_JOB_EXIT_SUCCESS").exists()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert re.search("https?:", re.sub(r"base64,[^\"]*", "", page)) is None


def test_mask_of_a_folder_a_half_map_and_a_map(
    halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("mask", "--i", halves, "--extend", 8, "--edge", 12, "--o", tmp_path / "a") == 0
    assert "next: tiltwise postprocess" in capsys.readouterr().out
    check_report(tmp_path / "a")
    mask, pixel_size = read_map(tmp_path / "a" / "mask.mrc")
    assert pixel_size == pytest.approx(PIXEL)
    assert mask.min() == 0
    assert mask.max() == 1
    assert mask[particle() > 0.3].min() == 1
    assert "mask.mrc" in (tmp_path / "a" / "RELION_OUTPUT_NODES.star").read_text()
    assert call("mask", "--i", halves / "half2.mrc", "--extend", 8, "--edge", 12, "--o", tmp_path / "b", "-q") == 0
    np.testing.assert_array_equal(read_map(tmp_path / "b" / "mask.mrc")[0], mask)
    write_map(tmp_path / "map.mrc", particle(), PIXEL)
    assert call("mask", "--i", tmp_path / "map.mrc", "--ini_threshold", 0.2, "--o", tmp_path / "c", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["threshold"] == 0.2


Refuse = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refuse:
    """Run a command that must fail on its data; its message."""

    def run(*arguments: object, code: int = DATA) -> str:
        assert call(*arguments, "--o", tmp_path / "job", "--quiet") == code
        text = capsys.readouterr().err
        assert "Traceback" not in text
        assert "fix:" in text
        return text

    return run


def test_half_maps_that_do_not_belong_together(refused: Refuse, tmp_path: Path) -> None:
    first, second = half_maps(0.15)
    one, two = tmp_path / "half1.mrc", tmp_path / "half2.mrc"
    write_map(one, first, PIXEL)
    assert "no mate" in refused("mask", "--i", one)
    write_map(two, second[4:-4, 4:-4, 4:-4], PIXEL)
    assert f"{BOX} and {BOX - 8} voxels" in refused("mask", "--half1", one, "--half2", two)
    write_map(two, second, 1.01 * PIXEL)
    assert "4 and 4.04 Å" in refused("mask", "--half1", one, "--half2", two)
    write_map(two, first, PIXEL)
    assert "identical" in refused("mask", "--i", tmp_path)
    write_map(two, second[:-2], PIXEL)
    assert "cubic" in refused("mask", "--i", tmp_path)
    write_map(two, np.zeros_like(second), PIXEL)
    assert "empty" in refused("mask", "--i", tmp_path)
    write_map(two, second, 0.0)
    assert "--angpix" in refused("mask", "--i", tmp_path)
    (tmp_path / "none").mkdir()
    assert "no half maps in the folder" in refused("mask", "--i", tmp_path / "none")
    assert "no such file or folder" in refused("mask", "--i", tmp_path / "nowhere_half1.mrc")


def test_a_folder_that_is_not_there(refused: Refuse, tmp_path: Path) -> None:
    assert "no such file or folder" in refused("postprocess", "--i", tmp_path / "nowhere")


def test_nothing_to_mask(refused: Refuse, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = (rng.normal(size=(32, 32, 32)) for _ in range(2))
    assert "no particle stands out" in refused("mask", "--i", write_half_maps(tmp_path / "noise", *noise))
    halves = write_half_maps(tmp_path / "halves", *half_maps(0.15))
    assert "above 50" in refused("mask", "--i", halves, "--threshold", 50)


def test_postprocess_finds_its_mask(halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("postprocess", "--i", halves, "--autob-lowres", 40, "--o", tmp_path / "job") == 0
    text = capsys.readouterr().out
    assert "next: tiltwise local-resolution" in text
    check_report(tmp_path / "job")
    density, _ = read_map(tmp_path / "job" / "postprocess.mrc")
    masked, _ = read_map(tmp_path / "job" / "postprocess_masked.mrc")
    mask, _ = read_map(tmp_path / "job" / "mask.mrc")
    np.testing.assert_allclose(masked, density * mask, rtol=1e-6, atol=1e-9)
    content = json.loads((tmp_path / "job" / "job.json").read_text())
    assert 8.0 < content["metrics"]["resolution_angstrom"] < 20.0
    tree = ElementTree.parse(tmp_path / "job" / "postprocess_fsc.xml").getroot()
    points = [(float(p[0].text or "nan"), float(p[1].text or "nan")) for p in tree.iter("coordinate")]
    assert len(points) == BOX // 2
    star = read_star(tmp_path / "job" / "postprocess.star")["fsc"]
    np.testing.assert_allclose(
        points, np.stack([star.floats("rlnResolution"), star.floats(CORRECTED)], 1)[1:], atol=1e-6
    )
    # RELION's way to name the maps, and its flags.
    again = ("postprocess", "--i", halves / "half1.mrc", "--i2", halves / "half2.mrc", "--auto_bfac", "--auto_mask")
    assert call(*again, "--autob_lowres", 40, "--angpix", PIXEL, "--o", tmp_path / "again", "-q") == 0
    np.testing.assert_array_equal(read_map(tmp_path / "again" / "postprocess.mrc")[0], density)


def test_masks_that_cannot_be_used(halves: Path, refused: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "mask.mrc"
    for mask, message in (
        (np.zeros((BOX,) * 3), "not all zero"),
        (2.0 * particle(), " to 2"),
        (particle() - 0.5, "the mask cannot be used"),
        (np.ones((32,) * 3), "cut off at the edge of its own box"),
    ):
        write_map(path, mask, PIXEL)
        assert message in refused("postprocess", "--i", halves, "--mask", path)


def test_agreement_up_to_nyquist_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_half_maps(tmp_path / "halves", *half_maps(1e-3))
    assert call("postprocess", "--i", folder, "--o", tmp_path / "job") == 0
    captured = capsys.readouterr()
    assert "the limit of the pixels" in captured.out
    assert "never falls below 0.143" in captured.out + captured.err


def test_mask_beside_the_particle_is_not_used(halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = np.roll(soft_sphere(BOX, 8.0, 4.0), 18, axis=0)
    write_map(tmp_path / "mask.mrc", beside, PIXEL)
    assert call("postprocess", "--i", halves, "--mask", tmp_path / "mask.mrc", "--o", tmp_path / "job") == 0
    captured = capsys.readouterr()
    assert "the mask was not used" in captured.out + captured.err
    assert "without mask" in captured.out


def test_local_resolution(halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("local-resolution", "--i", halves, "--adhoc-bfac", -100, "--o", tmp_path / "job") == 0
    assert "median of the particle" in capsys.readouterr().out
    check_report(tmp_path / "job")
    resolution, pixel_size = read_map(tmp_path / "job" / "locres.mrc")
    mask, _ = read_map(tmp_path / "job" / "mask.mrc")
    assert pixel_size == pytest.approx(PIXEL)
    assert resolution[mask == 0].max() == 0
    assert resolution[mask > 0].min() >= 2 * PIXEL * (1 - 1e-6)
    assert 8.0 < np.median(resolution[mask > 0.5]) < 25.0
    filtered, _ = read_map(tmp_path / "job" / "locres_filtered.mrc")
    assert np.corrcoef(filtered[mask > 0.5], particle()[mask > 0.5])[0, 1] > 0.8


def test_coarsest_resolution_that_the_box_cannot_hold(halves: Path, refused: Refuse) -> None:
    assert "192 Å for this box" in refused("local-resolution", "--i", halves, "--coarsest", 500)


def test_model_and_directions_are_compared(halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.mrc"
    write_map(model, particle(), PIXEL)
    assert call("postprocess", "--i", halves, "--model", model, "--o", tmp_path / "job", "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    # The mean map agrees with the truth (FSC 0.5) about as far as the halves with each other (0.143).
    assert metrics["model_resolution_angstrom"] == pytest.approx(metrics["resolution_angstrom"], rel=0.15)
    assert 0.3 < metrics["directional_area_ratio"] <= 1.0
    page = (tmp_path / "job" / "report.html").read_text(encoding="utf-8")
    assert "map and model" in page
    assert "Resolution by direction" in page
    write_map(model, np.roll(particle(), 12, axis=1), PIXEL)
    assert call("postprocess", "--i", halves, "--model", model, "--no-directions", "--o", tmp_path / "b") == 0
    captured = capsys.readouterr()
    assert "do not agree even at low resolution" in captured.out + captured.err


def test_fit_of_a_narrow_range_is_said(halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("postprocess", "--i", halves, "--no-directions", "--autob-lowres", 15, "--o", tmp_path / "job") == 0
    captured = capsys.readouterr()
    assert "a narrow range, 15 to" in captured.out + captured.err
