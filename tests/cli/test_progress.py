from __future__ import annotations

import io

import pytest

from tiltwise.jobs import progress as progress_module
from tiltwise.jobs.progress import LineProgress, SilentProgress, TerminalProgress, choose_progress
from tiltwise.jobs.table import cell, heading, lines


@pytest.mark.parametrize(
    "value, text",
    [
        (True, "yes"),
        (None, "-"),
        (float("nan"), "-"),
        (3, "3"),
        (0.0, "0.00"),
        (13.87, "13.9"),
        (0.0457, "0.0457"),
        (1234.5, "1234"),
        (2.5e7, "2.50e+07"),
        ("local", "local"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text  # type: ignore[arg-type]


def test_headings_carry_units() -> None:
    assert heading("resolution_angstrom") == "res Å"
    assert heading("shift_step_angstrom") == "shift step Å"
    assert heading("something") == "something"


def test_rows_align_with_their_headings() -> None:
    first, second = lines({"iteration": 1, "resolution_angstrom": 12.34}, first=True)
    assert len(first) == len(second)
    assert lines({"iteration": 2, "resolution_angstrom": 9.0}, first=False) == ["    2   9.00"]


def test_log_has_no_control_characters_and_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress.title("refine", {"particles": 12})
    with progress.task("iteration 1", 1000) as task:
        for _ in range(1000):
            now[0] += 0.2
            task.advance()
    progress.iteration({"iteration": 1, "resolution_angstrom": 12.0})
    progress.iteration({"iteration": 2, "resolution_angstrom": 11.0})
    progress.warn("careful")
    text = stream.getvalue()
    assert "\r" not in text
    assert "\x1b" not in text
    assert text.count("iteration 1:") == 20
    assert text.count("res Å") == 1
    assert "warning: careful" in text


def test_slow_work_reports_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with LineProgress(stream).task("slow", 10**6) as task:
        for _ in range(100):
            now[0] += 1.0
            task.advance()
    assert stream.getvalue().count("slow:") == 3


def test_terminal_shows_text_as_it_is() -> None:
    stream = io.StringIO()
    progress = TerminalProgress(stream)
    progress.title("refine [a]", {"folder": "x[b]"})
    progress.note("see [/c]")
    with progress.task("outer", 3) as outer, progress.task("inner", 2) as inner:
        inner.advance(2)
        outer.advance()
    progress.iteration({"iteration": 1})
    for text in ("refine [a]", "x[b]", "see [/c]"):
        assert text in stream.getvalue()


def test_silent_progress_still_warns() -> None:
    stream = io.StringIO()
    progress = SilentProgress(stream)
    progress.title("a", {})
    progress.note("b")
    with progress.task("c", 2) as task:
        task.advance()
    progress.iteration({"iteration": 1})
    progress.warn("careful")
    assert stream.getvalue() == "warning: careful\n"


def test_choice_follows_the_flags() -> None:
    assert isinstance(choose_progress(quiet=True, json=False), SilentProgress)
    assert isinstance(choose_progress(quiet=False, json=True), LineProgress)
