"""The notebook for developers runs from top to bottom, and is stored without results."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "developer.ipynb"


def test_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: None)
    plt.switch_backend("agg")
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, {cell['id']}", "exec"), names)
    plt.close("all")
    assert names["error"] < 1e-5  # type: ignore[operator]
    angles, likelihood = names["angles"], names["log_likelihood"]
    assert abs(angles[likelihood.argmax()]) <= 3.0  # type: ignore[index, attr-defined, arg-type]
    before, after = names["before"], names["after"]
    assert (after.angle_deg.mean()) < before.angle_deg.mean()  # type: ignore[attr-defined]
