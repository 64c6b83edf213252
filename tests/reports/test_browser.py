"""Reports of jobs without a cycle, opened in a browser; those of a cycle are looked at where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.browser import check_report
from helpers.refinements import simulated
from tiltwise.cli.main import main
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("reports"), 4)


@pytest.mark.parametrize("command", ["import", "extract --b 48 --crop 32", "select --tomo TS_01"])
def test_a_report_needs_no_network_and_shows_all_it_has(
    command: str, data: SimulatedData, browser: Any, tmp_path: Path
) -> None:
    assert main([*command.split(), "--i", str(data.optimisation_set), "--o", str(tmp_path / "job"), "-q"]) == 0
    check_report(browser, tmp_path / "job" / "report.html")
