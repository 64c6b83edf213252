from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from tiltwise.cli.demo import DemoOptions
from tiltwise.config import Options, OutputOptions, option
from tiltwise.em.options import ReconstructOptions, RefineOptions
from tiltwise.errors import ConfigError
from tiltwise.sim.options import SimulateOptions

REFINE = {"input": "set.star", "output": "out", "box": 64, "reference": "ref.mrc"}


def refine(**changes: object) -> RefineOptions:
    return RefineOptions(**{**REFINE, **changes})  # type: ignore[arg-type]


def test_value_out_of_range_names_flag_unit_expected_and_found() -> None:
    with pytest.raises(ConfigError) as caught:
        refine(box=2)
    error = caught.value
    assert error.where == "--b"
    assert error.expected is not None
    assert "4" in error.expected
    assert "px" in error.expected
    assert error.found == "2"


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RefineOptions(input="set.star")  # type: ignore[arg-type]
    for flag in ("--o", "--b"):
        assert flag in str(caught.value)


def test_unknown_name_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError) as caught:
        refine(boxx=64)
    assert "did you mean box?" in str(caught.value)


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        refine(crop=96)
    assert caught.value.where == "--crop"
    assert caught.value.found == "--crop 96"


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({"skip_align": True, "folds": 5}, "--folds"),
        ({"skip_align": True, "sigma_tilt": 3.0, "sigma_ang": 2.0}, "--sigma-ang, --sigma-tilt"),
    ],
)
def test_options_without_effect_are_refused(values: dict[str, object], flags: str) -> None:
    with pytest.raises(ConfigError, match="no effect") as caught:
        refine(**values)
    assert caught.value.where == flags
    assert "--skip-align" in str(caught.value)


def test_options_without_effect_are_fine_at_their_defaults() -> None:
    assert refine(skip_align=True, folds=0, sigma_ang=None).folds == 0


def test_no_input_is_refused_and_parts_are_enough() -> None:
    with pytest.raises(ConfigError, match="no particles"):
        refine(input=None, particles="p.star")
    assert refine(input=None, particles="p.star", tomograms="t.star").particles == Path("p.star")


@pytest.mark.parametrize("name, expected", [("c6", "C6"), ("I2", "I2"), (" d3 ", "D3"), ("o", "O")])
def test_symmetry_is_normalised(name: str, expected: str) -> None:
    assert refine(symmetry=name).symmetry == expected


@pytest.mark.parametrize("name", ["C0", "X", "I5", "", "C"])
def test_unknown_symmetry_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        refine(symmetry=name)


def test_options_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        refine().box = 10  # type: ignore[misc]


def test_parameters_record_the_origin_and_are_json() -> None:
    parameters = refine(symmetry="C6").parameters()
    assert parameters["symmetry"]["origin"] == "user"
    assert parameters["ini_high"] == {"value": 60.0, "unit": "Å", "origin": "default"}
    assert json.loads(json.dumps(parameters)) == parameters


def test_differences_ignore_what_does_not_change_the_result() -> None:
    recorded = refine().parameters()
    assert refine(threads=4, iterations=30).differences(recorded) == []
    assert refine(box=96).differences(recorded) == ["--b: was 64, now 96"]
    assert refine(crop=32).differences(recorded) == ["--crop: was unset, now 32"]


def test_differences_see_options_of_another_version() -> None:
    recorded = refine().parameters()
    recorded["gone"] = {"value": 1, "unit": None, "origin": "default"}
    del recorded["box"]
    assert refine().differences(recorded) == ["--b: was unknown, now 64", "gone: was 1, now unknown"]


@pytest.mark.parametrize("model", [RefineOptions, ReconstructOptions, SimulateOptions, DemoOptions])
def test_flags_are_unique_within_a_command(model: type[Options]) -> None:
    flags = [flag for spec in model.specs() for flag in spec.flags]
    assert len(flags) == len(set(flags))
    assert not set(flags) & set(model.ignored_flags)


@pytest.mark.parametrize("model", [RefineOptions, ReconstructOptions])
def test_contract_flags_exist(model: type[Options]) -> None:
    flags = {flag for spec in model.specs() for flag in spec.flags}
    assert {"--i", "--o", "--b", "--crop", "--bin", "--j", "--sym", "--p", "--t", "--mot", "--mask"} <= flags


@pytest.mark.parametrize("model", [RefineOptions, ReconstructOptions, SimulateOptions, DemoOptions])
def test_lengths_have_units_and_help_has_no_full_stop(model: type[Options]) -> None:
    for spec in model.specs():
        assert spec.help, spec.name
        assert not spec.help.endswith("."), spec.name
        if spec.name.endswith(("_angstrom", "_px", "_deg")):
            assert spec.unit is not None, spec.name


def test_fields_without_description_are_refused() -> None:
    class Bare(OutputOptions):
        command: ClassVar[str] = "bare"
        width: int = 3

    with pytest.raises(TypeError, match="width"):
        Bare.specs()


def test_types_the_command_line_cannot_hold_are_refused() -> None:
    class Lists(Options):
        values: list[int] = option([], help="values")

    with pytest.raises(TypeError, match="not supported"):
        Lists.specs()
