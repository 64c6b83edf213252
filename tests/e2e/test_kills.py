"""A refinement that is killed continues to the bytes of one that is not."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

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
