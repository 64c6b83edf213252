"""Reports of jobs without a cycle, opened in a browser; those of a cycle are looked at where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from helpers.browser import Opened, check_report
from helpers.refinements import simulated
from tiltwise.cli.command import Session
from tiltwise.cli.main import main
from tiltwise.cli.running import running
from tiltwise.config import OutputOptions
from tiltwise.jobs.progress import SilentProgress
from tiltwise.report import live
from tiltwise.sim.simulate import SimulatedData


class ToyOptions(OutputOptions):
    command: ClassVar[str] = "toy"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("reports"), 4)


@pytest.mark.parametrize("command", ["import", "extract --b 48 --crop 32", "select --tomo TS_01"])
def test_a_report_needs_no_network_and_shows_all_it_has(
    command: str, data: SimulatedData, browser: Any, tmp_path: Path
) -> None:
    assert main([*command.split(), "--i", str(data.optimisation_set), "--o", str(tmp_path / "job"), "-q"]) == 0
    check_report(browser, tmp_path / "job" / "report.html")


def test_a_page_that_runs_comes_again_by_itself(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RELOAD_S", (1, 1))
    options = ToyOptions(output=tmp_path / "job")
    with running(options, Session(("tiltwise", "toy"), SilentProgress())) as active:
        for line in range(30):
            active.progress.note(f"line {line}")
        active.progress._write()
        path = tmp_path / "job" / "report.html"
        opened = Opened(browser, path)
        opened.page.evaluate("scrollTo(0, 200)")
        active.progress.note("news")
        active.progress._write()
        opened.page.wait_for_selector("text=news", timeout=10_000)
        assert opened.page.evaluate("scrollY") == 200
    assert opened.errors == []
    assert set(opened.requests) == {path.resolve().as_uri()}
    opened.close()
