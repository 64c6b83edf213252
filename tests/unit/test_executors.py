"""Results in the order of the units, whoever computes them."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tiltwise.errors import Aborted, ConfigError, DataError
from tiltwise.exec.dask_cluster import DaskExecutor, connect
from tiltwise.exec.executors import InProcess


def compute(setup: float, common: int, unit: int) -> int:
    time.sleep(setup * random.random())
    if unit < 0:
        raise DataError("a unit that cannot be computed", where="unit", found=str(unit))
    return common * unit


def test_one_process() -> None:
    done: list[int] = []

    def with_progress(common: int, unit: int, advance: Any) -> int:
        advance(1)
        return compute(0.0, common, unit)

    executor: InProcess[int, int, int] = InProcess(with_progress)
    assert list(executor.results(3, [1, 5, 2], done.append)) == [3, 15, 6]
    assert done == [1, 1, 1]


def test_without_dask_workers_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"tiltwise\[dask\]") as error:
        connect(2, 1, None)
    assert "--workers" in str(error.value)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'tiltwise[dask]'")
    with distributed.Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None, set_as_default=False
    ) as found:
        yield found


def test_workers(client: Any) -> None:
    done: list[int] = []
    executor: DaskExecutor[float, int, int, int] = DaskExecutor(client, compute, 0.05, lambda unit: unit, lambda: None)
    units = [7, 1, 3, 9, 2, 8, 4]
    assert list(executor.results(2, units, done.append)) == [2 * unit for unit in units]
    assert done == units
    assert list(executor.results(2, [], done.append)) == []


def test_errors_of_workers_are_those_of_the_unit(client: Any) -> None:
    executor: DaskExecutor[float, int, int, int] = DaskExecutor(client, compute, 0.0, lambda unit: 1, lambda: None)
    with pytest.raises(DataError, match="cannot be computed") as error:
        list(executor.results(2, [1, -4, 3], lambda n: None))
    assert "found: -4" in str(error.value)
    assert list(executor.results(2, [1, 3], lambda n: None)) == [2, 6]


def test_a_request_to_stop_is_heard_while_workers_work(client: Any) -> None:
    def stop() -> None:
        raise Aborted("the job was stopped on request")

    executor: DaskExecutor[float, int, int, int] = DaskExecutor(client, compute, 0.0, lambda unit: 1, stop)
    with pytest.raises(Aborted):
        next(executor.results(2, [1, 3], lambda n: None))
