"""A job that is killed continues to the bytes of one that is not."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from helpers.classes import classify_options, mixed
from helpers.kills import events, files_of, run_until, start
from helpers.refinements import refine_options, simulated
from tiltwise.sim.simulate import SimulatedData

CHANGES = {"healpix_order": 2, "auto_local_healpix_order": 2, "offset_step_px": 2.0, "iterations": 2, "folds": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("eight"), 4)


def test_kills_at_any_moment_change_nothing(data: SimulatedData, tmp_path: Path) -> None:
    whole = refine_options(data, tmp_path / "a" / "job", **CHANGES)
    assert start(whole).wait() == 0
    expected = {name: text.replace(b"/a/job", b"/b/job") for name, text in files_of(whole.output).items()}
    assert {"run_class001.mrc", "run_data.star", "run_half1_class001_unfil.mrc"} <= set(expected)
    killed = refine_options(data, tmp_path / "b" / "job", **CHANGES)
    rng, ends = random.Random(1), []
    for part, number in ((0.3, signal.SIGKILL), (0.0, signal.SIGTERM), (0.85, signal.SIGKILL)):
        target = max(events(killed.output) + 2, int(part * events(whole.output)))
        ends.append(run_until(killed, target, rng.uniform(0.0, 0.02), number))
    # 75: stopped at the next safe point, to be started again
    assert ends == [-signal.SIGKILL, 75, -signal.SIGKILL]
    assert start(killed).wait() == 0
    found = files_of(killed.output)
    assert set(found) == set(expected)
    for name, content in found.items():
        assert content == expected[name], name
    assert not list((killed.output / ".state").glob("sums*")), "sums of an iteration are removed when it is over"


def test_kills_of_a_classification_change_nothing(tmp_path: Path) -> None:
    """After its first iteration, and after the next checkpoint."""
    sample = mixed(tmp_path, 6, 0.3, {"error_orientation": 5.0, "error_position": 4.0, "snr": 0.6})
    local = {"align": "local", "healpix_order": 2, "offset_range_px": 1.5, "strict_highres_exp": 24.0, "iterations": 2}
    whole = classify_options(sample, tmp_path / "a" / "job", **local)
    assert start(whole).wait() == 0
    expected = {name: text.replace(b"/a/job", b"/b/job") for name, text in files_of(whole.output).items()}
    killed = classify_options(sample, tmp_path / "b" / "job", **local)
    lines = (whole.output / "events.jsonl").read_text().splitlines()
    first = next(number for number, line in enumerate(lines, 1) if '"iteration"' in line)
    assert run_until(killed, first, 0.0) == -signal.SIGKILL
    assert run_until(killed, events(killed.output) + 3, 0.0) == -signal.SIGKILL
    assert start(killed).wait() == 0
    found = files_of(killed.output)
    assert set(found) == set(expected)
    for name, content in found.items():
        assert content == expected[name], name
