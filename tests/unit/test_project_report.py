"""Index of a project: which jobs there are, how they ended, what came from what, and the page that says it."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.projects import OtherOptions, finished, gone, relion_job, toy, unfinished
from tiltwise.cli.main import main
from tiltwise.errors import DataError
from tiltwise.exec.events import last_events, read_events, read_iterations
from tiltwise.exec.records import JobRecord
from tiltwise.jobs.records import find_jobs, read_record
from tiltwise.report.lineage import Lineage, best_set, lanes
from tiltwise.report.project import next_command, words, write_project_report


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Refinements and reconstructions that ended in all ways there are."""
    root = tmp_path / "project"
    first = finished(root / "Refine3D" / "job001", resolution=9.0)
    finished(root / "Reconstruct" / "job002", OtherOptions, resolution=8.0, source=first)
    second = finished(root / "Refine3D" / "job003", source=first)
    with pytest.raises(DataError), toy(root / "Refine3D" / "job004", source=second):
        raise DataError("no particles", where="p.star", fix="find some")
    unfinished(root / "Refine3D" / "job005", gone())
    unfinished(root / "Refine3D" / "job006", os.getpid())
    relion_job(root / "PostProcess" / "job007", ["Refine3D/job003/run.mrc"], [], "RELION_JOB_EXIT_SUCCESS")
    relion_job(root / "Refine3D" / "job008", ["PostProcess/job007/mask.mrc"], [], None)
    (root / "Refine3D" / "alias").symlink_to("job001")
    return root


def by_name(records: list[JobRecord]) -> dict[str, JobRecord]:
    return {one.name: one for one in records}


def edges(records: list[JobRecord]) -> set[tuple[str, str]]:
    lineage = Lineage.of(records)
    return {
        (lineage.jobs[parent].name, one.name)
        for one, parents in zip(lineage.jobs, lineage.parents, strict=True)
        for parent in parents
    }


def test_how_every_job_ended(project: Path) -> None:
    records = by_name(find_jobs(project))
    assert {name: one.state for name, one in records.items()} == {
        "Refine3D/job001": "finished",
        "Reconstruct/job002": "finished",
        "Refine3D/job003": "finished",
        "Refine3D/job004": "failed",
        "Refine3D/job005": "killed",
        "Refine3D/job006": "running",
        "PostProcess/job007": "finished",
        "Refine3D/job008": "unknown",
    }
    assert records["Refine3D/job004"].error == "no particles\n  where: p.star\n  fix: find some"
    assert words(records["Refine3D/job004"]) == "no particles"
    assert "killed" in words(records["Refine3D/job005"])
    assert words(records["Refine3D/job006"]) == "iteration 3"
    assert records["Refine3D/job006"].resolution_angstrom == 17.0
    old = records["PostProcess/job007"]
    assert (old.program, old.command, old.started is not None) == ("RELION", "PostProcess", True)
    assert old.command_line.startswith("`which relion_refine`")


@pytest.mark.parametrize(
    "change, state",
    [({"ticks": 1}, "killed"), ({"boot": "another"}, "killed"), ({"ticks": 1, "space": "another"}, "running")],
)
def test_the_number_of_a_process_may_belong_to_another_one(project: Path, change: dict[str, Any], state: str) -> None:
    """It began at another time, or before the machine was started anew; of processes not seen nothing is known."""
    path = project / "Refine3D" / "job006" / "job.json"
    content = json.loads(path.read_text())
    if content["process_start"] is None:
        pytest.skip("this system does not tell when processes began")
    path.write_text(json.dumps({**content, "process_start": content["process_start"] | change}))
    assert by_name(find_jobs(project))["Refine3D/job006"].state == state


def test_a_guard_that_saw_the_death_is_believed(project: Path) -> None:
    """The number of the process may belong to another one since, or to another machine."""
    (project / "Refine3D" / "job006" / "RELION_JOB_EXIT_FAILURE").touch()
    assert by_name(find_jobs(project))["Refine3D/job006"].state == "killed"


def test_who_read_whose_files(project: Path) -> None:
    found = edges(find_jobs(project))
    assert found == {
        ("Refine3D/job001", "Reconstruct/job002"),
        ("Refine3D/job001", "Refine3D/job003"),
        ("Refine3D/job003", "Refine3D/job004"),
        ("Refine3D/job003", "PostProcess/job007"),
        ("PostProcess/job007", "Refine3D/job008"),
    }


def test_a_project_that_was_moved_keeps_its_lineage(project: Path, tmp_path: Path) -> None:
    before = edges(find_jobs(project))
    shutil.move(project, tmp_path / "elsewhere")
    records = find_jobs(tmp_path / "elsewhere")
    assert edges(records) == before
    best = best_set(Lineage.of(records))
    assert best is not None
    assert best.path == tmp_path / "elsewhere/Refine3D/job001/run_optimisation_set.star"


def test_a_folder_named_by_an_option_is_read(tmp_path: Path) -> None:
    finished(tmp_path / "job001")
    finished(tmp_path / "job002", OtherOptions, source=tmp_path / "job001")
    assert edges(find_jobs(tmp_path)) == {("job001", "job002")}


def test_jobs_inside_a_job_are_its_parts(tmp_path: Path) -> None:
    first = finished(tmp_path / "Cycle" / "round1" / "refine")
    finished(tmp_path / "Cycle")
    second = finished(tmp_path / "Cycle" / "round1" / "align", source=first)
    finished(tmp_path / "After", source=second)
    records = find_jobs(tmp_path)
    assert edges(records) == {("Cycle", "After")}
    lineage = Lineage.of(records)
    assert {one.name for one in lineage.parts[0]} == {"Cycle/round1/refine", "Cycle/round1/align"}


def test_the_best_set_is_the_one_measured_best(project: Path) -> None:
    """The reconstruction measured the set of the first refinement; the second refinement's is not measured."""
    lineage = Lineage.of(find_jobs(project))
    best = best_set(lineage)
    assert best is not None
    assert best.measured_by is not None
    assert (best.job.name, best.resolution_angstrom, best.measured_by.name) == (
        "Refine3D/job001",
        8.0,
        "Reconstruct/job002",
    )
    assert [one.name for one in best.newer] == ["Refine3D/job003"]
    command = next_command(lineage, best)
    assert command.startswith("tiltwise reconstruct --i ")
    assert "job003" in command
    assert " --b 32 " in command
    # the boxes of classes with symmetries of their own, but not these
    last = lineage.jobs[-1]
    several = replace(last, parameters={**last.parameters, "symmetry": {"value": "C6,C1"}})
    assert "C6,C1" not in next_command(replace(lineage, jobs=(*lineage.jobs[:-1], several)), best)


def test_without_any_resolution_the_newest_set_is_best(tmp_path: Path) -> None:
    first = finished(tmp_path / "job001")
    finished(tmp_path / "job002", source=first)
    best = best_set(Lineage.of(find_jobs(tmp_path)))
    assert best is not None
    assert (best.job.name, best.resolution_angstrom) == ("job002", None)


def test_no_line_runs_through_another_job(project: Path) -> None:
    lineage = Lineage.of(find_jobs(project))
    columns = lanes(lineage)
    for number in range(len(columns)):
        for child in lineage.children(number):
            assert columns[number] not in columns[number + 1 : child]


def test_of_many_jobs_the_newest_are_drawn(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(project / "<b>", source=project / "Refine3D" / "job003")
    monkeypatch.setattr("tiltwise.report.project._MOST_DRAWN", 8)
    write_project_report(tmp_path / "page.html", project, find_jobs(project))
    text = (tmp_path / "page.html").read_text()
    picture = text[text.index("<svg") : text.index("</svg>")]
    assert "The newest 8 of 9." in text
    assert picture.count("<text") == 8
    assert picture.count("stroke-width") == 4  # what the first job was read by is not drawn, it is not there
    assert "&lt;b&gt;" in picture
    assert "<b>" not in picture
    assert re.search(r'<a href="project/Refine3D/job003/report.html"><text', picture)


def test_rows_that_were_computed_again_count_once(tmp_path: Path) -> None:
    lines = [
        {"kind": "start"},
        *({"kind": "iteration", "iteration": n, "run": 1} for n in (1, 2, 3)),
        {"kind": "start"},
    ]
    lines += [{"kind": "iteration", "iteration": n, "run": 2} for n in (2, 3)]
    (tmp_path / "events.jsonl").write_text("\n".join(str(line).replace("'", '"') for line in lines))
    assert [(row["iteration"], row["run"]) for row in read_iterations(tmp_path)] == [(1, 1), (2, 2), (3, 2)]


def test_a_manifest_that_cannot_be_read_is_a_row_with_its_error(project: Path) -> None:
    (project / "Refine3D" / "job001" / "job.json").write_text('{"command": ')
    record = by_name(find_jobs(project))["Refine3D/job001"]
    assert record.state == "unknown"
    assert "cannot be read" in str(record.error)
    assert main(["report", str(project)]) == 0


def test_page_of_a_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All jobs, links that lead to files, clickable pictures, and nothing from a network."""
    assert main(["report", str(project)]) == 0
    assert "job005: killed" in capsys.readouterr().out
    text = (project / "tiltwise_report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "http" not in text.replace("http-equiv", "")
    links = set(re.findall(r'<a (?:xlink:)?href="(?!data:)([^"]+)"', text))
    assert links == {"Refine3D/job001/report.html", "Reconstruct/job002/report.html", "Refine3D/job003/report.html"}
    assert all((project / link).is_file() for link in links)
    assert len(re.findall(r'<a href="[^"]*report.html"><text', text)) == 3  # in the picture
    for state in ("finished", "failed", "killed", "running", "no end marker"):
        assert f"<td>{state}</td>" in text


def test_links_from_another_folder(project: Path, tmp_path: Path) -> None:
    place = tmp_path / "other place"
    place.mkdir()
    assert main(["report", str(project), "--o", str(place / "index.html")]) == 0
    text = (place / "index.html").read_text()
    assert 'href="../project/Refine3D/job001/report.html"' in text


def test_an_empty_project_says_so(tmp_path: Path) -> None:
    assert main(["report", str(tmp_path)]) == 0
    assert "no job in this folder" in (tmp_path / "tiltwise_report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 3, "there is no such folder"),
        ([".", "--o", "."], 5, "needs a name of a file"),
        ([".", "--o", "missing/index.html"], 5, "mkdir -p"),
        ([".", "--o", "/proc/index.html"], 5, "cannot"),  # nobody can write there
        ([".", ".", "."], 2, "at most"),
    ],
)
def test_bad_requests_are_answered_in_words(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == code
    assert says in capsys.readouterr().err


def test_a_project_on_a_disk_that_is_read_only(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or Path(path) != project)
    assert main(["report", str(project)]) == 5
    error = capsys.readouterr().err
    assert "read-only" in error
    assert "--o " in error
    assert main(["report", str(project), "--o", str(tmp_path / "index.html")]) == 0


@pytest.mark.parametrize(("name", "says"), [("job004", "has failed"), ("job005", "was killed"), ("job006", "runs")])
def test_page_of_a_job_without_report(project: Path, name: str, says: str) -> None:
    folder = project / "Refine3D" / name
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert says in text
    assert "Options" in text
    assert ("Iterations" in text) == (name != "job004")
    assert main(["report", str(folder)]) == 0  # a second time: the job has still not finished


def test_report_of_a_finished_job_is_left_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project / "Refine3D" / "job001"
    before = (folder / "report.html").read_text()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text() == before
    assert str(folder / "report.html") in capsys.readouterr().out


def test_records_of_other_folders_are_none(tmp_path: Path) -> None:
    assert read_record(tmp_path, tmp_path) is None
    (tmp_path / "job001").mkdir()
    assert find_jobs(tmp_path) == []


def test_rows_of_several_stages_and_rows_without_a_number(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"kind": "iteration", "round": 1, "step": "before"},
        {"kind": "iteration", "stage": "start 1", "iteration": 1},
        {"kind": "note", "text": "a\u2028b", "about": "iteration"},
        {"kind": "iteration", "stage": "start 2", "iteration": 1, "run": 1},
        {"kind": "iteration", "stage": "start 2", "iteration": 1, "run": 2},
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (tmp_path / "events.jsonl").write_text(text, encoding="utf-8")
    rows = read_iterations(tmp_path)
    assert [row.get("stage") for row in rows] == [None, "start 1", "start 2"]
    assert rows[-1]["run"] == 2
    assert len(list(read_events(tmp_path))) == 5


def test_last_events_of_a_long_file(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("".join(f'{{"kind": "é", "n": {n}}}\n' for n in range(9000)))
    assert [event["n"] for event in last_events(tmp_path, 3)] == [8997, 8998, 8999]


@pytest.mark.parametrize(
    "content",
    [{"runs": [1]}, {"parameters": []}, {"metrics": [1]}, {"status": "running", "host": "x"}, {"inputs": [{}]}],
)
def test_a_job_json_of_another_program_is_a_row_with_its_error(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"command": ["x"], **content}))
    (record,) = find_jobs(tmp_path)
    assert record.state == "unknown"
    assert "none of tiltwise" in str(record.error)


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    for name in ("a $\\frac$", "b $\\frac$"):
        finished(tmp_path / name, resolution=9.0)
    assert main(["report", str(tmp_path)]) == 0
