"""The convention test: every planted mistake is named, a correct set is not blamed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.plant import PLANTS, Plant, plant
from tiltwise.check.codes import CODES
from tiltwise.check.convention.readings import Reading, alternatives, coordinate_alternatives
from tiltwise.check.options import CheckOptions
from tiltwise.check.run import CheckResult, check
from tiltwise.cli.main import main
from tiltwise.geometry.projection import project_points
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.particles import PIXEL_LABELS
from tiltwise.io.star import read_star, write_star
from tiltwise.jobs.progress import choose_progress
from tiltwise.sim.microscope import true_parameters
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """20 particles of little noise in 13 tilts: fewer images than the bench has, each of them worth more."""
    return simulate(
        SimulateOptions(
            output=tmp_path_factory.mktemp("conventions") / "data",
            tilt_series=1,
            particles=20,
            width_px=288,
            height_px=288,
            pixel_size=5.0,
            box=48,
            particle_diameter=140.0,
            beads=150,
            tilt_step=10.0,
            snr=1.0,
            spacing=0.0,
            error_position=2.0,
            error_orientation=2.0,
            reference_resolution=12.0,
            seed=5,
        )
    )


def examine(path: Path, reference: Path) -> CheckResult:
    options = CheckOptions(input=path, reference=reference, particle_diameter=140.0)
    return check(options, choose_progress(quiet=True, json=False))


def codes(result: CheckResult) -> list[str]:
    return [one.code for one in result.findings if one.code.startswith("TW-CONV")]


def test_a_correct_set_is_confirmed(data: SimulatedData) -> None:
    result = examine(data.optimisation_set, data.reference)
    assert codes(result) == []
    assert result.conventions is not None
    assert {one.verdict for one in result.conventions.answers} == {"confirmed"}
    asked = {one.question for one in alternatives()} | {"coordinates"}
    assert {one.question for one in result.conventions.answers} == asked
    offset = result.conventions.offset
    assert offset is not None
    assert offset.chi2(np.zeros(3)) < 25.0


@pytest.mark.parametrize("mistake", PLANTS, ids=lambda mistake: mistake.name)
def test_a_planted_mistake_is_named(data: SimulatedData, tmp_path: Path, mistake: Plant) -> None:
    result = examine(plant(data.folder, tmp_path / "planted", mistake), data.reference)
    assert codes(result) == [mistake.code]
    assert result.exit_code(strict=False) == 3
    if mistake.code == "TW-CONV-08":
        assert result.conventions is not None
        assert result.conventions.offset is not None
        np.testing.assert_allclose(result.conventions.offset.tomogram_px, 1.0, atol=0.35)


@pytest.mark.parametrize(
    "names",
    [
        ("sign of tilt", "hand"),
        ("wrong binning", "sign of tilt"),
        ("corner for centre", "dose reversed"),
        ("Å for px", "swapped x/y shifts"),
        ("1 px", "hand"),
    ],
    ids=lambda names: " and ".join(names),
)
def test_two_mistakes_at_once(data: SimulatedData, tmp_path: Path, names: tuple[str, str]) -> None:
    both = [one for one in PLANTS if one.name in names]
    result = examine(plant(data.folder, tmp_path / "planted", *both), data.reference)
    assert set(codes(result)) == {one.code for one in both}


@pytest.mark.parametrize("factor, shift, expected", [(1, 0, []), (0.5, 0, ["TW-CONV-05"]), (1, 1, ["TW-CONV-08"])])
def test_relion4(data: SimulatedData, tmp_path: Path, factor: float, shift: float, expected: list[str]) -> None:
    folder = tmp_path / "relion4"
    arguments = ["export", "--to", "relion4", "--i", str(data.optimisation_set), "--o", str(folder), "--quiet"]
    assert main(arguments) == 0
    document = read_star(folder / "particles.star")
    for label in PIXEL_LABELS:
        block = document["particles"]
        block.set_floats(label, block.floats(label) * factor + shift)
    write_star(folder / "particles.star", document)
    assert codes(examine(folder / "optimisation_set.star", data.reference)) == expected


def test_contrast_mirror_and_a_map_of_something_else(data: SimulatedData, tmp_path: Path) -> None:
    density, pixel_size = read_map(data.reference)
    write_map(tmp_path / "black.mrc", -density, pixel_size)
    assert codes(examine(data.optimisation_set, tmp_path / "black.mrc")) == ["TW-CONV-10"]
    write_map(tmp_path / "mirror.mrc", np.roll(density[:, :, ::-1], 1, axis=2), pixel_size)
    assert codes(examine(data.optimisation_set, tmp_path / "mirror.mrc")) == ["TW-CONV-13"]
    noise = np.random.default_rng(3).normal(size=density.shape).astype(np.float32)
    write_map(tmp_path / "noise.mrc", noise, pixel_size)
    assert codes(examine(data.optimisation_set, tmp_path / "noise.mrc")) == ["TW-CONV-15"]


def test_the_command_says_by_how_much(data: SimulatedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plant(data.folder, tmp_path / "planted", PLANTS[0])
    arguments = ["check", "--i", str(path), "--ref", str(data.reference), "--particle-diameter", "140"]
    assert main([*arguments, "--o", str(tmp_path / "job"), "--json"]) == 3
    content = json.loads(capsys.readouterr().out)
    hand = next(one for one in content["conventions"]["answers"] if one["question"] == "hand")
    assert hand["verdict"] == "wrong"
    assert hand["nats"] > 15
    page = (tmp_path / "job" / "report.html").read_text(encoding="utf-8")
    assert "Conventions" in page
    assert "Slope of the defocus" in page


def stated(**changes: object) -> Reading:
    options = SimulateOptions(
        output=Path("none"), tilt_series=1, width_px=200, height_px=160, thickness=300.0, **changes
    )
    parameters = true_parameters(options, np.random.default_rng(1))
    units = np.random.default_rng(2).uniform(-20, 20, (6, 3))
    size = np.array(options.tomogram_size)
    zero = np.zeros((6, 3))
    return Reading(parameters.series("TS", options), units, True, zero, units + size / 2, np.array([np.eye(3)] * 6))


def test_alternatives_change_what_they_say() -> None:
    reading = stated()
    for one in [*alternatives(), *coordinate_alternatives(reading)]:
        assert set(one.codes) <= set(CODES)
        changed = one.change(reading)
        if changed is None:
            continue
        before = project_points(reading.series.projection, reading.position_px)
        after = project_points(changed.series.projection, changed.position_px)
        assert (np.abs(after - before).max() > 0.5) == (one.question in MOVING), one.answer


MOVING = {"coordinates", "sign of the tilt", "tilt axis", "image shifts", "z axis"}


@pytest.mark.parametrize("question", sorted(MOVING - {"coordinates"}))
def test_geometric_alternatives_undo_themselves(question: str) -> None:
    reading = stated()
    for one in alternatives():
        if one.question == question:
            once = one.change(reading)
            assert once is not None
            twice = one.change(once)
            assert twice is not None
            np.testing.assert_allclose(twice.series.projection, reading.series.projection, atol=1e-9)
            np.testing.assert_allclose(twice.position_px, reading.position_px, atol=1e-9)


def test_opposite_tilts_are_those_of_opposite_angles() -> None:
    reading = stated()
    change = next(one.change for one in alternatives() if one.question == "sign of the tilt")
    options = SimulateOptions(output=Path("none"), tilt_series=1, width_px=200, height_px=160, thickness=300.0)
    parameters = true_parameters(options, np.random.default_rng(1))
    object.__setattr__(parameters, "y_tilt_deg", -parameters.y_tilt_deg)
    expected = parameters.series("TS", options).projection
    changed = change(reading)
    assert changed is not None
    np.testing.assert_allclose(changed.series.projection, expected, atol=1e-9)
