"""From option models to the command line and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.cli.flags import translate
from tiltwise.config import Options
from tiltwise.em.options import ReconstructOptions, RefineOptions

BASE = ["--i", "set.star", "--o", "job", "--b", "64", "--ref", "ref.mrc"]


def invoke(arguments: list[str], model: type[Options] = RefineOptions) -> tuple[Options, Session, Result]:
    calls: list[tuple[Options, Session]] = []

    def run(options: Options, session: Session) -> Outcome:
        calls.append((options, session))
        return Outcome({"folder": Path("job"), "resolution_angstrom": float("nan")}, ["done"])

    result = CliRunner().invoke(command_from_options(model, run, "Help."), arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return (*calls[0], result)


def parse(*arguments: str) -> Any:
    return invoke([*BASE, *arguments])[0]


def test_only_typed_options_count_as_the_users() -> None:
    options = parse("--sym", "c6")
    assert options.model_fields_set == {"input", "output", "box", "reference", "symmetry"}
    assert options.symmetry == "C6"


@pytest.mark.parametrize(
    "typed, name, value",
    [
        (["--particle_diameter", "200"], "particle_diameter", 200.0),
        (["--particle-diameter=200"], "particle_diameter", 200.0),
        (["--j", "3"], "threads", 3),
        (["--threads", "3"], "threads", 3),
        (["--bin", "2"], "binning", 2.0),
        (["--binning", "2"], "binning", 2.0),
        (["--offset_range", "4"], "offset_range_px", 4.0),
        (["--healpix_order", "3"], "healpix_order", 3),
        (["--solvent_mask", "m.mrc"], "mask", Path("m.mrc")),
        (["--iter", "7"], "iterations", 7),
        (["--random_seed", "9"], "seed", 9),
        (["--no-flatten-solvent"], "flatten_solvent", False),
        (["--flatten_solvent"], "flatten_solvent", True),
        (["--mot", "motion.star"], "trajectories", Path("motion.star")),
        (["--split", "random"], "split", "random"),
    ],
)
def test_relions_names_are_accepted(typed: list[str], name: str, value: object) -> None:
    assert getattr(parse(*typed), name) == value


def test_relion_flags_without_effect_are_accepted_and_named() -> None:
    options, session, result = invoke(
        [*BASE, "--auto_refine", "--pad", "2", "--gpu=0:1", "--pipeline_control", "External/job012/", "--j", "4"]
    )
    assert session.ignored_flags == ("--auto_refine", "--pad", "--gpu")
    assert options.threads == 4  # type: ignore[attr-defined]
    assert "without effect here: --auto_refine --pad --gpu" in result.output


def test_external_job_of_relion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "Extract" / "job010"
    folder.mkdir(parents=True)
    (folder / "optimisation_set.star").touch()
    given = {"--o": "External/job012/", "--in_parts": "Extract/job010/particles.star", "--in_3dref": "ref.mrc"}
    given |= {"--b": "64", "--sym": "C6", "--j": "16"}
    options, _, result = invoke([word for pair in given.items() for word in pair])
    assert options.input == Path("Extract/job010/optimisation_set.star")  # type: ignore[attr-defined]
    assert options.particles == Path("Extract/job010/particles.star")  # type: ignore[attr-defined]
    assert str(options.output) == "External/job012"  # type: ignore[attr-defined]
    assert "the optimisation set beside the particles" in result.output


def test_command_line_is_kept_as_typed() -> None:
    _, session, _ = invoke([*BASE, "--healpix_order", "3"])
    assert session.command_line[-2:] == ("--healpix_order", "3")


def test_json_is_the_only_thing_on_standard_output() -> None:
    _, _, result = invoke([*BASE, "--pool", "3", "--json"])
    assert json.loads(result.stdout) == {"folder": "job", "resolution_angstrom": None}
    assert "--pool" in result.stderr


def test_quiet_says_nothing() -> None:
    assert invoke([*BASE, "--quiet"])[2].output == ""


def test_flags_after_two_dashes_are_left_alone() -> None:
    assert translate(["--j", "2", "--", "--bin"], RefineOptions) == (["--threads", "2", "--", "--bin"], [])


NAMES = st.text("abcXYZ019_.", min_size=1, max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "box": st.integers(32, 512),
    "crop": st.none() | st.integers(4, 32),
    "binning": st.floats(1, 8),
    "symmetry": st.sampled_from(["C1", "C6", "D2", "T", "O", "I3"]),
    "particle_diameter": st.none() | st.floats(1, 1000),
    "split": st.sampled_from(["auto", "keep", "random"]),
    "seed": st.integers(0, 2**31),
    "threads": st.integers(0, 64),
    "memory": st.none() | st.floats(0.1, 1000),
    "mask": st.none() | NAMES.map(Path),
    "redo": st.booleans(),
}
REFINE_VALUES = {
    **VALUES,
    "reference": NAMES.map(Path),
    "ini_high": st.floats(1, 100),
    "sigma_ang": st.none() | st.floats(0.1, 10),
    "flatten_solvent": st.booleans(),
}
RECONSTRUCT_VALUES = {**VALUES, "snr": st.none() | st.floats(0.01, 10), "relion_compatible": st.booleans()}


@given(st.fixed_dictionaries(REFINE_VALUES))
def test_refine_options_survive_the_command_line(values: dict[str, Any]) -> None:
    options = RefineOptions(input="set.star", output="job", **values)  # type: ignore[arg-type]
    assert invoke(options.to_arguments())[0] == options


@given(st.fixed_dictionaries(RECONSTRUCT_VALUES))
def test_reconstruct_options_survive_the_command_line(values: dict[str, Any]) -> None:
    options = ReconstructOptions(input="set.star", output="job", **values)  # type: ignore[arg-type]
    assert invoke(options.to_arguments(), ReconstructOptions)[0] == options
