"""The program as users call it: help, typos, exit codes, JSON."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tiltwise import __version__, errors
from tiltwise.cli import doctor
from tiltwise.cli import main as main_module
from tiltwise.cli.app import COMMANDS, PANELS
from tiltwise.cli.main import main

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_help_lists_the_commands_without_loading_them() -> None:
    script = (
        "import sys; from tiltwise.cli.main import main; code = main(['-h']); "
        "heavy = {'numpy', 'pydantic', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    for name, entry in COMMANDS.items():
        assert name in result.stdout
        assert entry.help[:30] in result.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "-h"]) == 0
    essential = capsys.readouterr().out
    assert main([name, "--help-all"]) == 0
    everything = capsys.readouterr().out
    assert "--json" in essential or name == "watch"  # which serves until it is stopped
    assert len(everything) >= len(essential)


def test_help_shows_defaults_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    main(["refine", "-h"])
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "low-pass filter of the starting map [Å] (default: 60.0)" in text
    assert "--tau2-fudge" not in text


def test_every_command_is_in_one_panel() -> None:
    shown = [name for names in PANELS.values() for name in names if name in COMMANDS]
    assert sorted(shown) == sorted(COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tiltwise {__version__}\n"


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["refin"], "Did you mean one of: 'refine'"),
        (["refine", "--bax", "3"], "tiltwise refine -h"),
        (["refine", "--b", "many"], "many"),
        (["refine"], "--b: expected a value"),
        (["refine"], "fix: see 'tiltwise refine -h'"),
        (["refine", "--i", "a", "--o", "b", "--b", "64", "--ref", "c", "--sym", "Q9"], "where: --sym"),
    ],
)
def test_usage_errors(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert text in shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.ConfigError("x"), 2),
        (errors.DataError("x"), 3),
        (errors.FormatError("x"), 3),
        (errors.OutputError("x"), 5),
        (MemoryError("9 GB"), 5),
        (OSError(errno.ENOSPC, "full", "a.mrc"), 5),
        (errors.Aborted("x"), 6),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 1),
        (OSError(errno.EIO, "disk"), 1),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(main_module, "_run", fail)
    assert main(["refine", "--json"]) == code
    shown = capsys.readouterr()
    assert shown.err.lstrip().startswith(("✗", "Traceback"))
    assert ("Traceback" in shown.err) == (code == 1)
    content = json.loads(shown.out)
    assert content["status"] == "failure"
    assert content["exit_code"] == code
    assert content["error"]["type"] == type(error).__name__


def test_doctor_as_json(tiltwise: Run) -> None:
    result = tiltwise("doctor", "--json")
    found = json.loads(result.stdout)
    assert result.returncode == 0, result.stderr
    assert found["tiltwise"] == __version__
    assert found["packages"]["numpy"]
    assert any(backend["name"] == "reference" and backend["available"] for backend in found["backends"])
    assert sum(backend["active"] for backend in found["backends"]) == 1


def test_doctor_knows_every_dependency() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {re.split(r"[<>=!~ ;\[]", text)[0] for text in project["project"]["dependencies"]}
    assert needed == set(doctor._PACKAGES)


def test_doctor_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"tiltwise {__version__}" in text
    assert "backend reference" in text


def test_missing_input_fails_before_anything_is_written(tiltwise: Run) -> None:
    result = tiltwise("refine", "--i", "none.star", "--o", "job", "--b", "64", "--ref", "ref.mrc")
    assert result.returncode == 3
    assert "none.star" in result.stderr
    assert "Traceback" not in result.stderr
