from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tiltwise.errors import OutputError
from tiltwise.files import atomic_path, remove_leftovers, write_text


def test_file_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "map.mrc"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mrc"
    assert target.read_text() == "half"
    assert os.listdir(tmp_path) == ["map.mrc"]


def test_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "no" / "a", "x")
    assert str(tmp_path / "no" / "a") in str(caught.value)
    assert caught.value.exit_code == 5


def test_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError):
        write_text(tmp_path / "a", "x")
    assert os.listdir(tmp_path) == ["a"]


def test_errors_of_other_files_are_not_blamed_on_the_target(tmp_path: Path) -> None:
    def read_other() -> None:
        with atomic_path(tmp_path / "a"):
            (tmp_path / "other").read_text()

    with pytest.raises(FileNotFoundError):
        read_other()


def test_what_a_killed_writer_leaves_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("map.mrc", ".hidden.mrc", ".a-note.txt", "a-12345678.mrc")]
    for path in kept:
        path.touch()
    with atomic_path(tmp_path / "map.mrc") as temporary:
        temporary.write_text("new")
        remove_leftovers(tmp_path)
        assert not temporary.exists()
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
