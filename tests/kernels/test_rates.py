"""`tiltwise bench`: every kernel is measured, and a wrong one is not given a rate."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tiltwise.cli.main import main
from tiltwise.errors import TiltwiseError
from tiltwise.kernels import rates
from tiltwise.kernels.select import load_backend

KERNELS = {"project", "insert", "curvature", "score", "posterior", "backproject", "shell_sums", "cc_table", "cc_cost"}


def _once(work: Callable[[], Any]) -> float:
    work()
    return 1.0


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TILTS": 3, "ROTATIONS": 5, "SHIFTS": 4, "RADII": (5.0,)}.items():
        monkeypatch.setattr(rates, name, value)
    monkeypatch.setattr(rates, "_PEAK", "print(1e9)")
    monkeypatch.setattr(rates, "_seconds", _once)


def test_every_kernel_is_measured_and_checked() -> None:
    found = rates.measure_kernels(load_backend("host"), load_backend("reference"), 5.0, 1)
    assert {rate.kernel for rate in found} == KERNELS
    for rate in found:
        assert rate.error <= rates.TOLERANCE
        assert min(rate.seconds, rate.samples, rate.flops, rate.bytes_moved) > 0


def test_a_wrong_kernel_stops_the_bench() -> None:
    backend = load_backend("host")

    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return getattr(backend, name)

        def backproject(self, *arguments: Any, **options: Any) -> Any:
            sums, totals = backend.backproject(*arguments, **options)
            return sums * np.float32(1.001), totals

    with pytest.raises(TiltwiseError, match="'backproject' gives wrong results"):
        rates.measure_kernels(Wrong(), load_backend("reference"), 5.0, 1)


def test_command_prints_shares_of_the_peaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--backend", "host", "--threads", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["backend"] == "host"
    assert summary["machine"]["flops"] == 1e9
    assert {row["kernel"] for row in summary["kernels"]} == KERNELS
    assert all(row["share_of_flops"] > 0 for row in summary["kernels"])
