"""`tiltwise.api`: one function for every job, made from the model that makes the command."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.refinements import DIAMETER, simulated

from tiltwise import api
from tiltwise.cli.app import COMMANDS
from tiltwise.cli.main import main
from tiltwise.config import ConfigError, Options
from tiltwise.io.mrc import read_map
from tiltwise.sim.simulate import SimulatedData


def model_of(command: str) -> type[Options] | None:
    return getattr(import_module(f"tiltwise.cli.{COMMANDS[command].module}").command, "model", None)


@pytest.mark.parametrize("command", api.FUNCTIONS)
def test_options_are_those_of_the_command(command: str) -> None:
    """The very same model: neither names nor defaults can differ."""
    function, model = api.FUNCTIONS[command], api.options_of(command)
    assert model is model_of(command)
    parameters = dict(inspect.signature(function).parameters)
    assert parameters.pop("progress").default is None
    assert list(parameters) == list(model.model_fields)
    for spec in model.specs():
        expected = inspect.Parameter.empty if spec.required else spec.default
        assert parameters[spec.name].default == expected
        assert f"\n{spec.name}\n" in str(function.__doc__)
    assert function.__name__ in api.__all__


def test_every_job_has_a_function() -> None:
    """Whatever writes a folder; the demonstration, whose data are fixed, is for the command line."""
    jobs = {name for name in COMMANDS if (model := model_of(name)) is not None and "output" in model.model_fields}
    assert set(api.FUNCTIONS) == jobs - {"demo"}
    page = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    for function in api.FUNCTIONS.values():
        result = inspect.get_annotations(function)["return"]
        assert f".{result}\n" in page, f"docs/api.md does not show {result}"


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean particle_diameter"):
        api.reconstruct(input="a.star", box=32, output="there", particle_diametre=3)
    with pytest.raises(ConfigError, match="--o"):
        api.refine(input="a.star", box=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("api"), particles=4)


class Listener(api.SilentProgress):
    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []

    def title(self, text: str, facts: Mapping[str, Any]) -> None:
        self.titles.append(text)


def test_function_and_command_do_the_same(data: SimulatedData, tmp_path: Path) -> None:
    listener = Listener()
    options = {"input": data.optimisation_set, "box": 32, "particle_diameter": DIAMETER, "threads": 1}
    result = api.reconstruct(output=tmp_path / "python", progress=listener, **options)
    assert listener.titles == ["reconstruct"]
    words = ["--i", str(data.optimisation_set), "--b", "32", "--particle-diameter", f"{DIAMETER}", "--j", "1"]
    assert main(["reconstruct", *words, "--o", str(tmp_path / "shell"), "--quiet"]) == 0
    for name in ("merged.mrc", "half1.mrc", "half2.mrc"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "shell" / name).read_bytes()
    np.testing.assert_array_equal(result.map, read_map(tmp_path / "python" / "merged.mrc")[0])
    found, expected = (json.loads((tmp_path / one / "job.json").read_text()) for one in ("python", "shell"))
    for content in (found, expected):
        del content["parameters"]["output"]
    assert found["parameters"] == expected["parameters"]
    assert "tiltwise reconstruct" in found["command_line"]
    assert (tmp_path / "python" / "report.html").exists()
