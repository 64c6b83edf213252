"""What is in a folder and the command that imports it: the command is run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.foreign import MOTIVES
from tiltwise.cli.main import main
from tiltwise.errors import ConfigError
from tiltwise.geometry.rotations import rotation_z
from tiltwise.interchange import inventory
from tiltwise.interchange.scan import Project, scan
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set

TILT_DEG = (-20.0, 0.0, 20.0)


def write_projects(root: Path, *, pixel: float = 2.0, dose: bool = True) -> None:
    """Two eTomo data sets, their mdocs and CTF tables in folders of their own, picks, and other things."""
    for number in (1, 2):
        folder = root / "etomo" / f"TS_{number}"
        folder.mkdir(parents=True)
        row = " ".join(f"{v:.7f}" for v in rotation_z(85.0)[:2, :2].T.ravel())
        (folder / f"TS_{number}.xf").write_text(f"{row} 1.5 -2.5\n" * 3)
        (folder / f"TS_{number}.tlt").write_text("".join(f"{a}\n" for a in TILT_DEG))
        (folder / "tilt.com").write_text(
            f"$tilt -StandardInput\nInputProjections TS_{number}_ali.mrc\nTILTFILE TS_{number}.tlt\n"
            "THICKNESS 100\nFULLIMAGE 400 360\n"
        )
        write_map(folder / f"TS_{number}.mrc", np.random.default_rng(1).normal(size=(3, 42, 38)), pixel, "float16")
        (root / "mdocs").mkdir(exist_ok=True)
        sections = "".join(
            f"\n[ZValue = {i}]\nTiltAngle = {a}\n"
            + ("ExposureDose = 3\n" if dose else "")
            + f"DateTime = 30-Nov-15  15:2{i}:00\n"
            for i, a in enumerate(TILT_DEG)
        )
        (root / f"mdocs/TS_{number}.mrc.mdoc").write_text("PixelSpacing = 2.0\n" + sections)
        (root / "ctf").mkdir(exist_ok=True)
        (root / f"ctf/TS_{number}.defocus").write_text(
            "1 0 0. 0. 0 3\n" + "".join(f"{i} {i} {a} {a} 2000 1990 30\n" for i, a in enumerate(TILT_DEG, 1))
        )
    (root / "motl.star").write_text(MOTIVES)
    (root / "qc.csv").write_text("name,score\na,1\n")
    (root / "notes.txt").write_text("hello\n")
    (root / ".hidden").mkdir()
    (root / ".hidden/TS_9.xf").write_text("x\n")


def of(projects: tuple[Project, ...], source: str) -> Project:
    found = [project for project in projects if project.source == source]
    assert len(found) == 1, found
    return found[0]


def test_the_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_projects(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    result = scan(Path("data"))
    project = of(result.projects, "imod")
    assert project.missing == ()
    assert (project.series, project.tilts) == (("TS_1", "TS_2"), 6)
    assert project.command[:4] == ("tiltwise", "import", "--i", "data/etomo")
    assert ("--mdoc", "data/mdocs") in zip(project.command, project.command[1:], strict=False)
    assert ("--ctf", "data/ctf") in zip(project.command, project.command[1:], strict=False)
    Path("Import").mkdir()
    assert main(list(project.command[1:])) == 0
    tomograms = Path(project.command[-1]) / "tomograms.star"
    assert tomograms.is_file()
    # with the tilt series imported, the list of particles only lacks what nobody can know
    (tmp_path / "data/imported").symlink_to(tomograms.parent.resolve())
    again = of(scan(Path("data")).projects, "particles")
    assert again.path == Path("data/motl.star")
    assert "run the command above" in again.missing[0].fix


def test_what_is_missing(tmp_path: Path) -> None:
    write_projects(tmp_path, pixel=1.0, dose=False)
    for stack in tmp_path.glob("etomo/*/TS_2.mrc"):
        stack.unlink()
    project = of(scan(tmp_path).projects, "imod")
    text = "; ".join(one.what for one in project.missing)
    for what in ("pixel size", "size of the tilt images", "dose before every view"):
        assert what in text
    words = project.command
    assert words[words.index("--angpix") + 1] == "ANGPIX"
    assert words[words.index("--dose") + 1] == "DOSE"
    filled = {"ANGPIX": "2", "DOSE": "3", "WIDTH,HEIGHT": "38,42"}
    arguments = [filled.get(word, word) for word in words[1:-1]]
    assert main([*arguments, str(tmp_path / "out")]) == 0


def test_particles_of_a_set_that_is_there(tmp_path: Path) -> None:
    write_projects(tmp_path / "data")
    project = of(scan(tmp_path / "data").projects, "imod")
    assert main([*project.command[1:-1], str(tmp_path / "data/Import")]) == 0
    project = of(scan(tmp_path / "data").projects, "particles")
    words = project.command
    assert words[words.index("--t") + 1] == str(tmp_path / "data/Import/tomograms.star")
    assert words[words.index("--coord-binning") + 1] == "BINNING"
    assert words[words.index("--tomogram-names") + 1] == "NUMBERS_AND_NAMES"
    names = tmp_path / "names.txt"
    names.write_text("24 TS_2\n")
    filled = {"BINNING": "0.4", "NUMBERS_AND_NAMES": str(names)}
    assert main([*(filled.get(word, word) for word in words[1:-1]), str(tmp_path / "out")]) == 0
    assert len(load_optimisation_set(tmp_path / "out/optimisation_set.star").particles) == 2


def test_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_projects(tmp_path, pixel=1.0)
    assert main(["scan", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for part in ("IMOD transforms", "etomo/TS_1/TS_1.xf and 1 more", "missing: the pixel size", "tiltwise import --i"):
        assert part in text
    assert "hidden" not in text
    assert "qc.csv: " not in text  # a table, but not of coordinates
    assert main(["scan", str(tmp_path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {project["from"] for project in content["projects"]} == {"imod", "particles"}
    assert content["files"]["mdoc"] == [str(tmp_path / f"mdocs/TS_{n}.mrc.mdoc") for n in (1, 2)]
    assert main(["scan", str(tmp_path / "none")]) == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["scan", str(empty)]) == 0
    assert "nothing here" in capsys.readouterr().out


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_projects(tmp_path)
    monkeypatch.setattr(inventory, "MOST_FILES", 5)
    assert not scan(tmp_path).inventory.complete
    with pytest.raises(ConfigError, match="no such folder"):
        scan(tmp_path / "motl.star")


def test_damaged_files_do_not_stop_it(tmp_path: Path) -> None:
    write_projects(tmp_path)
    (tmp_path / "etomo/TS_1/TS_1.tlt").write_text("nan\n")
    (tmp_path / "broken.star").write_bytes(b"data_global\nloop_\n_rlnTomoName\n\xff\xff 1 2\n")
    (tmp_path / "broken.em").write_bytes(b"\x06\x00")
    (tmp_path / "broken.aln").write_bytes(b"\xff\xfe")
    result = scan(tmp_path)
    assert "NaN" in of(result.projects, "imod").missing[0].what
    assert "AreTomo" in of(result.projects, "aretomo").title


@pytest.mark.parametrize(
    "folder, source, placeholders",
    [
        ("pypi_formats/etomofiles", "imod", ["--tomogram-size", "--mdoc"]),
        ("pypi_formats/alnfile", "aretomo", ["--angpix", "--mdoc"]),
    ],
)
def test_real_folders(shared_data: Path, folder: str, source: str, placeholders: list[str]) -> None:
    root = shared_data / "data" / folder
    if not root.is_dir():
        pytest.skip(f"there is no {root}")
    project = of(scan(root).projects, source)
    assert [word for word in project.command if word in placeholders] == placeholders
