"""The slider leads through the tilts, without a network and with k3d or without."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.browser import Opened
from tiltwise.report import viewer
from tiltwise.report.film import MOST, Film, Layer, Panel
from tiltwise.report.html import Section, Summary, Table, write_report


def vectors(turns: int) -> NDArray[np.float64]:
    """(F, P, 2) that turn from frame to frame, some of them unknown."""
    angle = np.linspace(0.0, 1.5, turns)[:, None] + np.arange(MOST + 7)
    values = 10.0 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    values[1, 3] = np.nan
    return values


def film(kind: Any) -> Film:
    points = np.random.default_rng(1).uniform(0.0, 2000.0, (MOST + 7, 2))
    panels = [Panel((0, 1), ("x (Å)", "y (Å)"))]
    layers = [Layer("before", vectors(5), "--soft"), Layer("after", 0.2 * vectors(5), "--accent")]
    labels = [f"tilt {n}</script>" for n in range(5)]
    if kind == "trails":
        return Film(kind, "Trails.", labels, points, layers[:1], panels, 5.0, 4, ["#440154"] * 5)
    return Film(kind, "Arrows.", labels, np.tile(points, (5, 1, 1)), layers, panels, 5.0)


@pytest.mark.parametrize("kind", ["arrows", "trails"])
def test_the_slider_leads_through_the_tilts(
    kind: str, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "is_available", lambda: False)
    section = Section("Motion", "x", table=Table(["x"], [[1]]), film=film(kind))
    write_report(tmp_path / "report.html", "Film", Summary("x", {}), [section])
    opened = Opened(browser, tmp_path / "report.html", width=640)
    opened.page.wait_for_selector(".film[data-state=drawn]")
    canvas = opened.page.query_selector(".film canvas")

    def seen(frame: int) -> NDArray[np.float32]:
        opened.page.evaluate(
            "frame => { const slider = document.querySelector('.frame input'); slider.value = frame; "
            "slider.dispatchEvent(new Event('input')); }",
            frame,
        )
        opened.page.wait_for_selector(f".film[data-frame='{frame}']")
        assert opened.page.inner_text(".frame output") == f"tilt {frame}</script>"
        return np.asarray(matplotlib.image.imread(io.BytesIO(canvas.screenshot()))[..., :3])

    first, last = seen(0), seen(4)
    assert 0.01 < (np.abs(last - last[2, 2]).max(axis=2) > 0.1).mean() < 0.5
    assert (np.abs(last - first).max(axis=2) > 0.1).mean() > 0.005
    opened.page.click(".film button")  # plays, from the start once it has come to the end
    opened.page.wait_for_selector(".film[data-frame='0']")
    opened.page.wait_for_selector(".film[data-frame='4']")
    assert opened.page.inner_text(".film button") == "Play"
    assert opened.errors == []
    assert opened.requests == [(tmp_path / "report.html").resolve().as_uri()]
    opened.close()
