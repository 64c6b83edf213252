"""Commands as External jobs: of RELION's pipeliner where it is installed, and of CCP-EM's by its markers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from tests.cli.test_bad_input import make_case

from tiltwise.cli import external
from tiltwise.cli.app import COMMANDS
from tiltwise.io.star import read_star
from tiltwise.jobs.interrupt import Interrupts
from tiltwise.jobs.relion import ABORT_FILES, FAILURE, SUCCESS
from tiltwise.sim.simulate import SimulatedData

ROOT = Path(__file__).resolve().parents[2]
NOT_JOBS = {"demo", "simulate", "explain", "doctor", "bench", "scan", "star", "report", "watch"}
EMPTY_PIPELINE = "\ndata_pipeline_general\n\n_rlnPipeLineJobCounter                       1\n\n"


def test_every_job_has_a_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    programs = {name.removeprefix("tiltwise-") for name in scripts if name != "tiltwise"}
    assert programs == {name for name in COMMANDS if name not in NOT_JOBS}
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        if name != "tiltwise":
            assert module == "tiltwise.cli.external"
            assert (getattr(external, function).__doc__ or "").startswith(
                f"Run `tiltwise {name.removeprefix('tiltwise-')}`"
            )


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in NOT_JOBS])
def test_what_relion_adds_is_accepted_and_failures_are_marked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inputs of the form that a command has no use for are no errors; one that cannot begin still ends for RELION."""
    added = {"in_parts": "particles.star", "in_3dref": "map.mrc", "in_mask": "mask.mrc", "j": "2"}
    (tmp_path / "job").mkdir()
    words = [word for label, value in added.items() for word in (f"--{label}", value)]
    monkeypatch.setattr(sys, "argv", [f"tiltwise-{name}", "--o", str(tmp_path / "job"), *words, "--no_such_label", "1"])
    program = getattr(external, name.replace("-", "_").replace("import", "import_project"))
    assert program() == 2
    message = capsys.readouterr().err
    assert "no-such-label" in message
    assert not any(label in message.replace("_", "-") for label in ("--in-", "--j "))
    assert (tmp_path / "job" / FAILURE).exists()


def test_an_abort_file_of_either_pipeliner_stops(tmp_path: Path) -> None:
    for name in ABORT_FILES:
        requests = Interrupts([tmp_path / one for one in ABORT_FILES], lambda reason: None)
        assert requests.reason is None
        (tmp_path / name).touch()
        assert requests.reason == name
        (tmp_path / name).unlink()


@pytest.fixture
def project(tiny_data: SimulatedData, tmp_path: Path) -> Path:
    """A RELION project with one optimisation set, and a program like the installed `tiltwise-reconstruct`."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "default_pipeline.star").write_text(EMPTY_PIPELINE)
    data = make_case("reconstruct", tiny_data, tmp_path).folder
    shutil.move(data, folder / "Import")
    for star in (folder / "Import").rglob("*.star"):
        star.write_text(star.read_text().replace(str(data), "Import"))
    program = folder / "tiltwise-reconstruct"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "from tiltwise.cli.external import reconstruct\nraise SystemExit(reconstruct())\n"
    )
    program.chmod(0o755)
    return folder


def pipeliner(folder: Path, *arguments: str) -> None:
    program = shutil.which("relion_pipeliner")
    if program is None:
        pytest.skip("relion_pipeliner is not installed")
    subprocess.run([program, *arguments], cwd=folder, check=True, timeout=120, capture_output=True)


def test_round_trip_through_relions_pipeliner(project: Path) -> None:
    """The job is added, run and found finished by RELION, and its output is there as nodes."""
    labels = {"b": "32", "crop": "24"}
    given = {"fn_exe": str(project / "tiltwise-reconstruct"), "in_part": "Import/particles.star", "nr_threads": "1"}
    for number, (label, value) in enumerate(labels.items(), 1):
        given |= {f"param{number}_label": label, f"param{number}_value": value}
    pipeliner(project, "--addJob", "External", "--addJobOptions", ";".join(f"{k} == {v}" for k, v in given.items()))
    pipeliner(project, "--RunJobs", "External/job001/", "--schedule", "once", "--sec_wait_after", "0")
    job = project / "External" / "job001"
    deadline = time.monotonic() + 60
    while not (job / SUCCESS).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    errors = (job / "run.err").read_text() if (job / "run.err").exists() else ""
    assert (job / SUCCESS).exists(), errors
    assert "in_parts" in (job / "note.txt").read_text()
    pipeliner(project, "--check_job_completion")
    pipeline = read_star(project / "default_pipeline.star")
    assert pipeline["pipeline_processes"].text("rlnPipeLineProcessStatus") == ["2"]  # finished
    nodes = pipeline["pipeline_nodes"].text("rlnPipeLineNodeName")
    assert "External/job001/merged.mrc" in nodes
    edges = pipeline["pipeline_output_edges"].text("rlnPipeLineEdgeToNode")
    assert "External/job001/merged.mrc" in edges
