"""What is proposed after a refinement."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tiltwise.cli.app import COMMANDS
from tiltwise.em.options import RefineOptions
from tiltwise.report.commands import next_after_refine


def proposal(resolution: float, **changes: Any) -> list[str]:
    values = {"input": Path("a.star"), "reference": Path("ref.mrc"), "output": Path("Refine3D/run1"), "box": 64}
    options = RefineOptions(**{**values, **changes})
    outputs = {"optimisation_set": Path("o.star"), "map": Path("map.mrc")}
    result: Any = SimpleNamespace(resolution_angstrom=resolution, pixel_size=4.0, outputs=outputs, focus=None)
    words = next_after_refine(options, result).split()
    assert words[0] == "tiltwise"
    assert words[1] in COMMANDS
    return words[1:]


def test_finer_images_at_nyquist() -> None:
    words = proposal(8.1, binning=2.0)
    assert words[0] == "refine"
    assert words[words.index("--b") + 1] == "128"
    assert words[words.index("--ini-high") + 1] == "13"


@pytest.mark.parametrize("resolution, binning", [(12.0, 2.0), (8.1, 1.0)])
def test_post_processing_where_binning_is_not_the_limit(resolution: float, binning: float) -> None:
    words = proposal(resolution, binning=binning, mask=Path("mask.mrc"))
    assert words == ["postprocess", "--i", "Refine3D/run1", "--mask", "mask.mrc", "--o", "Refine3D/run1_postprocess"]
