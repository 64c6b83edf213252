"""The list of programs, and options that do nothing for one of them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tiltwise.cli.main import main
from tiltwise.errors import FormatError
from tiltwise.interchange.options import ImportOptions, Source
from tiltwise.interchange.programs import ONLY_FOR, PROGRAMS, choose


def test_every_program_can_be_named() -> None:
    assert {program.source for program in PROGRAMS} == set(get_args(Source)) - {"auto"}
    assert set(ONLY_FOR) <= set(ImportOptions.model_fields)
    assert {source for sources in ONLY_FOR.values() for source in sources} <= set(get_args(Source))


def test_what_nobody_wrote_is_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(FormatError, match=r"not recognised(?s:.*)--from"):
        choose(ImportOptions(input=tmp_path / "notes.txt", output=tmp_path))
    with pytest.raises(FormatError, match="no such file"):
        choose(ImportOptions(input=tmp_path / "none", output=tmp_path))


def test_options_without_effect_are_refused(tutorial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tomograms = str(tutorial / "Polish/job070/tomograms.star")
    call = ["import", "--i", tomograms, "--o", str(tmp_path / "out")]
    assert main([*call, "--voltage", "200", "--mdoc", "mdocs"]) == 2
    message = capsys.readouterr().err
    assert "--mdoc has no effect here" in message
    assert not (tmp_path / "out/tomograms.star").exists()
    particles = str(tutorial / "Polish/job070/particles.star")
    assert main(["import", "--i", particles, "--t", tomograms, "--o", str(tmp_path / "out"), "--angpix", "1.35"]) == 2
    assert "--coord-angpix" in capsys.readouterr().err


def test_the_hand_can_be_changed(tutorial: Path, tmp_path: Path) -> None:
    tomograms = str(tutorial / "Polish/job070/tomograms.star")
    assert main(["import", "--i", tomograms, "--o", str(tmp_path / "out"), "--hand", "1", "--quiet"]) == 0
    text = (tmp_path / "out/tomograms.star").read_text()
    assert text.count(" 1.000000 optics1") == 5
