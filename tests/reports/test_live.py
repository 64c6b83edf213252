"""Reports of jobs that run, fail, are stopped or are killed."""

from __future__ import annotations

import errno
import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tiltwise.cli.command import Session
from tiltwise.cli.main import main
from tiltwise.cli.running import Running, running
from tiltwise.config import OutputOptions, option
from tiltwise.errors import Aborted, ConfigError, DataError
from tiltwise.exec.live_page import close_page
from tiltwise.jobs.guard import Guard
from tiltwise.jobs.progress import SilentProgress
from tiltwise.jobs.relion import ABORT_NOW, FAILURE, SUCCESS, write_marker
from tiltwise.report import live
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.live import AT_LEAST_S, SHARE, LiveReport


class ToyOptions(OutputOptions):
    command: ClassVar[str] = "toy"
    width: int = option(3, unit="px", help="a width")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Said(SilentProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def iteration(self, row: Any) -> None:
        self.lines.append(str(dict(row)))


@contextmanager
def toy(folder: Path) -> Iterator[Running]:
    with running(ToyOptions(output=folder), Session(("tiltwise", "toy", "--o", str(folder)), SilentProgress())) as job:
        yield job


def page(folder: Path) -> str:
    """The report as its reader sees it."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def source(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def begun(tmp_path: Path, **changes: Any) -> tuple[LiveReport, Clock, dict[str, Any]]:
    clock, content = Clock(), manifest()
    report = LiveReport(Said(), clock, **changes)
    report.begin(tmp_path / "report.html", content)
    return report, clock, content


def manifest() -> dict[str, Any]:
    return {
        "command": "toy",
        "command_line": "tiltwise toy",
        "working_directory": "/x",
        "warnings": [],
        "parameters": {"width": {"value": 5, "unit": "px", "origin": "user"}},
        "inputs": [],
        "outputs": [],
        "timings_s": {},
        "host": {"name": "h", "cpu": "c", "cores": 1, "memory_gb": 1},
        "program": {"tiltwise": "0", "python": "3"},
    }


def test_the_first_page_is_there_before_the_work(tmp_path: Path) -> None:
    with toy(tmp_path / "job"):
        text = page(tmp_path / "job")
        assert "running begins" in text
        assert "width" in text
        assert re.search(r'<meta http-equiv="refresh" content="\d+">', source(tmp_path / "job"))


def test_a_page_says_what_is_done_and_how_long_it_will_take(tmp_path: Path) -> None:
    report, clock, _ = begun(tmp_path)
    report.title("toy", {"particles": 1200, "pixel_size_angstrom": 2.5})
    report.note("memory: 2 GB")
    with report.task("correlations", 300) as task:
        clock.now += 60.0
        task.advance(100)
        text = page(tmp_path)
    assert "correlations: 100 of 300, about 2 min left" in text
    assert "memory: 2 GB" in text
    assert re.search(r"particles\s*1,200\s*pixel size\s*2.5 Å", text)
    clock.now += 60.0
    report.note("next")
    assert re.search(r"correlations\s*done\s*100 of 300\s*60.0 s", page(tmp_path))


def test_everything_is_passed_on(tmp_path: Path) -> None:
    said = Said()
    report = LiveReport(said)
    report.note("a")
    report.warn("b")
    report.iteration({"iteration": 1})
    with report.task("c", 2) as task:
        task.advance()
    assert said.lines == ["a", "b", "{'iteration': 1}"]
    report.end(DataError("no page was begun"))
    assert list(tmp_path.iterdir()) == []


def test_pages_and_figures_take_little_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 0.1 s and figures of 3 s, asked for at every unit of 0.05 s of work, over half an hour."""
    clock = Clock()
    spent = {"page": 0.0, "figures": 0.0}

    def write(*arguments: Any) -> None:
        clock.now += 0.1
        spent["page"] += 0.1

    def draw(folder: Path) -> list[Section]:
        clock.now += 3.0
        spent["figures"] += 3.0
        return []

    monkeypatch.setattr(live, "write_report", write)
    report = LiveReport(SilentProgress(), clock, draw)
    began = clock.now
    report.begin(tmp_path / "report.html", manifest())
    with report.task("work", 36_000) as task:
        for number in range(36_000):
            clock.now += 0.05
            task.advance()
            if number % 100 == 0:
                report.iteration({"iteration": number})
    total = clock.now - began
    assert 0 < spent["page"] < 1.1 * SHARE * total
    assert 0 < spent["figures"] < 1.1 * SHARE * total
    assert spent["page"] / 0.1 > 0.5 * total / max(AT_LEAST_S, 0.1 / SHARE)


def test_figures_that_cannot_be_drawn_do_not_end_the_page(tmp_path: Path) -> None:
    def draw(folder: Path) -> list[Section]:
        raise ValueError

    report, clock, _ = begun(tmp_path, figures=draw)
    for line in ("one", "two"):
        clock.now += 1000.0
        report.note(line)
    assert "two" in page(tmp_path)
    report.end(DataError("trouble"))
    assert "failed trouble" in page(tmp_path)


def test_rows_of_an_earlier_run_are_kept_until_they_are_done_again(tmp_path: Path) -> None:
    rows = [{"t": 1, "kind": "iteration", "iteration": n, "value": 10 + n} for n in (1, 2, 3)]
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    report, clock, _ = begun(tmp_path, figures=lambda folder: [])
    report.iteration({"iteration": 3, "value": 99})
    clock.now += 1000.0
    report.note("now")
    text = source(tmp_path)
    assert all(f">{value}</td>" in text for value in (11, 12, 99))
    assert ">13</td>" not in text


def test_a_failure_is_told_with_what_was_found_before(tmp_path: Path) -> None:
    def work(active: Running) -> None:
        active.progress.note("half of it is done")
        active.job.warn("a tilt is dark")
        raise DataError("the <images> are empty", where="a.mrc", fix="take others")

    with pytest.raises(DataError), toy(tmp_path / "job") as active:
        work(active)
    text = page(tmp_path / "job")
    assert "failed the <images> are empty" in text
    assert "take others" in text
    assert "half of it is done" in text
    assert "a tilt is dark" in text
    assert 'http-equiv="refresh"' not in source(tmp_path / "job")
    assert not close_page(str(tmp_path / "job" / "report.html"), "killed", "x")


def test_a_bug_names_the_file_with_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), toy(tmp_path / "job"):
        print(1 // 0)
    assert "ZeroDivisionError" in page(tmp_path / "job")
    assert "crash.txt" in page(tmp_path / "job")
    assert (tmp_path / "job" / "crash.txt").exists()


def test_a_stop_on_request_is_told(tmp_path: Path) -> None:
    def work(active: Running) -> None:
        (tmp_path / "job" / ABORT_NOW).touch()
        active.job.check_abort()

    with pytest.raises(Aborted), toy(tmp_path / "job") as active:
        work(active)
    assert "stopped the job was stopped on request" in page(tmp_path / "job")
    with pytest.raises(KeyboardInterrupt), toy(tmp_path / "job"):
        raise KeyboardInterrupt
    assert "stopped The job was stopped at once" in page(tmp_path / "job")


def test_a_folder_that_is_refused_keeps_its_report(tmp_path: Path) -> None:
    with toy(tmp_path / "job") as active:
        (active.job.folder / "report.html").write_text("mine")
        active.progress.finish()
    content = json.loads((tmp_path / "job" / "job.json").read_text())
    content["command"] = "other"
    (tmp_path / "job" / "job.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError), toy(tmp_path / "job"):
        pass
    assert source(tmp_path / "job") == "mine"


def test_a_full_disk_ends_the_page_and_not_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, clock, _ = begun(tmp_path)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(live, "write_report", full)
    clock.now += 100.0
    report.note("goes on")
    clock.now += 100.0
    report.note("and on")
    report.end(DataError("trouble"))
    said = report._progress
    assert isinstance(said, Said)
    assert [line for line in said.lines if "not kept up to date" in line] == [
        "the report is not kept up to date: [Errno 28] No space left on device"
    ]


def test_a_report_that_cannot_be_written_is_a_failure_of_the_job(tmp_path: Path) -> None:
    def write(*arguments: Any) -> None:
        raise DataError("no report")

    with pytest.raises(DataError), toy(tmp_path / "job") as active:
        active.report(write)
    assert "failed no report" in page(tmp_path / "job")


def test_the_report_of_a_finished_job_and_its_log_file(tmp_path: Path) -> None:
    def write(path: Path, options: ToyOptions, result: str, content: Any) -> None:
        section = Section("Numbers", "What they mean.", table=Table(["a"], [[1]]))
        write_job_report(path, f"Toy {options.output}", Summary(result, {}), [section])

    with toy(tmp_path / "job") as active:
        active.report(write, "Found it.")
    assert "Found it." in page(tmp_path / "job")
    assert "refresh" not in source(tmp_path / "job")
    assert (tmp_path / "job" / "logfile.pdf").read_bytes().startswith(b"%PDF")
    nodes = (tmp_path / "job" / "RELION_OUTPUT_NODES.star").read_text()
    assert re.search(r"logfile\.pdf\s+LogFile\.pdf\.relion\.toy\s+13", nodes)


def test_parts_lead_to_their_own_pages(tmp_path: Path) -> None:
    with toy(tmp_path / "job") as active:
        with active.progress.part("toy: one", tmp_path / "job" / "round 1"):
            active.progress.iteration({"round": 1})
            active.progress.note("told within")
        active.progress._write()
        text = source(tmp_path / "job")
        assert '<a href="round%201/report.html">toy: one</a>' in text
        assert "told within" not in text


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from reports.test_live import toy
with toy(Path(sys.argv[1])) as active:
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_job_is_told_by_its_guard(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    program = KILLED.format(tests=str(Path(__file__).parents[1]))
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert "running begins" in page(folder)
        process.kill()
        process.wait()
    began = time.monotonic()
    while "running begins" in page(folder) and time.monotonic() - began < 20.0:
        time.sleep(0.02)
    assert "killed The job was killed" in page(folder)
    assert "refresh" not in source(folder)
    assert main(["report", str(folder)]) == 0
    assert "killed The job was killed" in page(folder)


def test_the_page_of_a_machine_that_went_down_is_ended_by_report(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with toy(folder) as active:
        text = source(folder)
        active.progress.finish()
    content = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps({**content, "status": "running", "pid": 2**22 + 1}))
    (folder / "report.html").write_text(text)
    assert main(["report", str(folder)]) == 0
    assert "killed The job was killed, or its machine went down" in page(folder)


def test_figures_of_a_refinement_that_runs(tmp_path: Path) -> None:
    from tiltwise.io.mrc import write_map
    from tiltwise.report.live_figures import figures_of

    draw = figures_of("refine")
    assert draw is not None
    assert draw(tmp_path) == []
    lines = [
        {"kind": "fsc", "iteration": n, "pixel_size_angstrom": 4.0, "curve": list(np.linspace(1, 0, 17))}
        for n in (1, 2, 3, 2)
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + '\n{"kind": "f')
    (history,) = draw(tmp_path)
    assert history.data is not None
    assert list(history.data.columns) == ["shell", "1/Å", "iteration 1", "iteration 2"]
    density = np.random.default_rng(1).normal(size=(32, 32, 32)).astype(np.float32)
    for half in (1, 2):
        write_map(tmp_path / f"run_it002_half{half}_class001.mrc", density, 4.0)
    (tmp_path / "run_it002_data.star").write_text(
        "data_particles\n\nloop_\n_rlnAngleRot #1\n_rlnAngleTilt #2\n_rlnAnglePsi #3\n0 0 0\n10 90 30\n"
    )
    (tmp_path / "run_it002_optimiser.star").write_text("\n")
    assert [section.title for section in draw(tmp_path)] == ["Maps", "FSC by iteration", "Angular distribution"]
    (tmp_path / "run_it002_data.star").unlink()  # the next iteration takes it away
    assert [section.title for section in draw(tmp_path)] == ["FSC by iteration"]


def test_series_that_are_done_are_listed(tmp_path: Path) -> None:
    from tiltwise.report.live_figures import series_figures

    lines = [
        {"kind": "series", "name": "TS_00"},
        {"kind": "start"},
        {"kind": "series", "name": "TS_01", "defocus": "improved"},
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    (section,) = series_figures(tmp_path)
    assert section.table is not None
    assert section.table.rows == [["TS_01", "improved"]]


def test_rows_of_a_cycle_are_told_beside_any_others(tmp_path: Path) -> None:
    """They have rounds and no iterations; a run that goes on finds those of the run before."""
    rows = [{"round": 1, "step": step, "resolution_angstrom": 20.0} for step in ("before", "refine")]
    lines = [{"kind": "start"}, {"kind": "iteration", "iteration": 1}, *({"kind": "iteration", **row} for row in rows)]
    lines.append({"kind": "iteration", "iteration": 2})
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report, clock, _ = begun(tmp_path)
    for row in rows:
        clock.now += 1000.0
        report.iteration(row)
    assert isinstance(report._progress, Said)
    assert not [line for line in report._progress.lines if "not kept up to date" in line]
    assert page(tmp_path).count("refine") == 2


@pytest.mark.parametrize("taken", [False, True])
def test_a_guard_leaves_the_folder_of_a_next_run_alone(tmp_path: Path, taken: bool) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"command": "toy", "pid": os.getpid() + int(taken)}))
    guard = Guard(tmp_path)
    assert guard._process.stdin is not None
    guard._process.stdin.close()
    assert guard._process.wait(20) == 0
    assert (tmp_path / FAILURE).exists() != taken


def test_a_guard_leaves_the_marker_of_a_job_that_ended_alone(tmp_path: Path) -> None:
    write_marker(tmp_path, SUCCESS)
    guard = Guard(tmp_path)
    assert guard._process.stdin is not None
    guard._process.stdin.close()
    assert guard._process.wait(20) == 0
    assert not (tmp_path / FAILURE).exists()
