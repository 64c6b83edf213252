"""Where names in STAR files point to, and how paths are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltwise.errors import FormatError
from tiltwise.io.paths import PathResolver, PathWriter, missing_files, path_text


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("project/Extract/job1/images/a.mrcs", "project/Extract/job1/set.star", "other/b.mrc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "other")
    return tmp_path


def test_current_directory_then_folder_then_parents(tree: Path) -> None:
    job = tree / "project/Extract/job1"
    resolver = PathResolver(job / "set.star")
    assert resolver.find("b.mrc") == str(tree / "other/b.mrc")
    assert resolver.find("images/a.mrcs") == str(job / "images/a.mrcs")
    assert resolver.find("Extract/job1/images/a.mrcs") == str(job / "images/a.mrcs")
    assert resolver.find("set.star") == str(job / "set.star")
    assert resolver.find(str(job / "images/a.mrcs")) == str(job / "images/a.mrcs")
    for absent in ("a.mrcs", "images/x.mrcs", "/absent/a.mrcs", "images/", ""):
        assert resolver.find(absent) is None
    with pytest.raises(FormatError, match=r"the mask is missing[\s\S]*found: x.mrc"):
        resolver.require("x.mrc", "the mask")


def test_two_different_hits_are_an_error(tree: Path) -> None:
    (tree / "project/images").mkdir()
    (tree / "project/images/a.mrcs").touch()
    with pytest.raises(FormatError, match=r"ambiguous: images/a.mrcs[\s\S]*job1/images/a.mrcs and .*project/images"):
        PathResolver(tree / "project/Extract/job1/set.star").find("images/a.mrcs")


def test_folders_above_the_current_one_come_last(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project beside another of the same name is not ambiguous; one job folder still finds its project."""
    job = tree / "project/Extract/job1"
    (tree / "Extract/job1/images").mkdir(parents=True)
    (tree / "Extract/job1/images/a.mrcs").touch()
    monkeypatch.chdir(tree / "project")
    assert PathResolver(job / "set.star").find("Extract/job1/images/a.mrcs") == str(job / "images/a.mrcs")
    (job / "images/a.mrcs").unlink()
    assert PathResolver(job / "set.star").find("Extract/job1/images/a.mrcs") == str(tree / "Extract/job1/images/a.mrcs")


def test_one_file_under_two_names_is_no_error(tree: Path) -> None:
    (tree / "project/images").symlink_to(tree / "project/Extract/job1/images")
    found = PathResolver(tree / "project/Extract/job1/set.star").find("images/a.mrcs")
    assert found == str(tree / "project/Extract/job1/images/a.mrcs")


def test_paths_below_the_current_directory_are_relative(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "project")
    inside, outside = tree / "project/Extract/job1/set.star", tree / "other/out.star"
    assert path_text(inside, "Refine/job2/x.star") == "Extract/job1/set.star"
    assert path_text("Extract/job1/set.star", outside) == str(inside)
    assert path_text(outside, "Refine/job2/x.star") == str(outside)


def test_image_names_change_only_if_they_must(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = str(tree / "project/Extract/job1/images/a.mrcs")
    beside = PathWriter(tree / "project/Extract/job1/new.star")
    assert beside.image("3@images/a.mrcs", image) == "3@images/a.mrcs"
    elsewhere = PathWriter(tree / "other/new.star")
    assert elsewhere.image("3@images/a.mrcs:mrc", image) == f"3@{image}:mrc"
    monkeypatch.chdir(tree)
    assert PathWriter("out/new.star").image("images/a.mrcs", image) == "project/Extract/job1/images/a.mrcs"


def test_many_missing_files_are_counted() -> None:
    message = str(missing_files("tilt images", [f"t{i}.mrc" for i in range(9)] * 2, "a.star"))
    assert "9 tilt images missing" in message
    assert "t0.mrc, t1.mrc, t2.mrc, t3.mrc, t4.mrc and 4 more" in message
