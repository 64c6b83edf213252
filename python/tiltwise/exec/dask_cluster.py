"""Units of work on the workers of a Dask cluster: started here, or running elsewhere (extra `dask`).

Workers import the same tiltwise and see the same files.  They are processes of their own, spawned, with one unit at a
time.  A worker that dies costs the units it was at: Dask gives them to others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tiltwise.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from distributed import Client, Future

Setup = TypeVar("Setup")
Common = TypeVar("Common")
Unit = TypeVar("Unit")
Result = TypeVar("Result")

POLL_S = 0.5
"""Between two looks at whether the run was asked to stop."""
SHORT_S = 0.01
AHEAD = 2
"""Units per worker that are computed or wait to be added: results are large."""
RETRIES = 5
"""Times that what the units have in common is sent anew because all workers that had it are gone."""
START_S = 300.0
"""Longest wait for the first worker."""


def connect(workers: int, threads: int, address: str | None) -> Client:
    """A cluster of `workers` local processes with `threads` threads each, or the one with a scheduler at `address`.

    Raises
    ------
    ConfigError
        if Dask is not installed, or no scheduler answers.
    """
    option = "--workers" if address is None else "--dask"
    try:
        import dask

        dask.config.set({"logging": {"distributed": "warning"}})  # read when `distributed` is imported
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ConfigError(
            "workers need Dask, which is not installed",
            where=option,
            found=str(error),
            fix="pip install 'tiltwise[dask]'",
        ) from error
    if address is not None:
        try:
            return Client(address, timeout=20, set_as_default=False)
        except (TimeoutError, OSError, ValueError) as error:
            raise ConfigError(
                "there is no Dask scheduler at this address",
                where=f"--dask {address}",
                found=str(error) or type(error).__name__,
                expected="an address like tcp://node:8786",
                fix="start 'dask scheduler', or a cluster with dask-jobqueue, and give the address it prints",
            ) from error
    settings = {
        "distributed.worker.multiprocessing-method": "spawn",
        # kernels share out the threads of a worker; ours are planned, theirs are not to be limited
        "distributed.nanny.pre-spawn-environ": {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS")},
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
    }
    with dask.config.set(settings):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        )
        return Client(cluster, set_as_default=False)


class DaskExecutor(Generic[Setup, Common, Unit, Result]):
    """Computes `compute(setup, common, unit)` on the workers of a client.

    Parameters
    ----------
    compute
        a function of a module that workers can import.
    setup
        what a worker needs once to get at the data.
    size_of
        particles of a unit, for the progress.
    check_abort
        raises when the run is to stop; called about twice a second.
    """

    def __init__(
        self,
        client: Client,
        compute: Callable[[Setup, Common, Unit], Result],
        setup: Setup,
        size_of: Callable[[Unit], int],
        check_abort: Callable[[], None],
    ) -> None:
        self._client, self._compute, self._setup = client, compute, setup
        self._size_of, self._check_abort = size_of, check_abort

    def results(self, common: Common, units: Sequence[Unit], advance: Callable[[int], None]) -> Iterator[Result]:
        """See `tiltwise.exec.executors.Executor`."""
        if not units:
            return
        shared = self._share(common)
        waiting: deque[tuple[Unit, Future]] = deque()
        following, retries = iter(units), 0
        try:
            while True:
                while len(waiting) < AHEAD * max(1, self._workers()):
                    unit = next(following, None)
                    if unit is None:
                        break
                    waiting.append((unit, self._submit(shared, unit)))
                if not waiting:
                    return
                unit, future = waiting[0]
                try:
                    result = self._result(future)
                except asyncio.CancelledError as error:
                    # all workers that held what is shared are gone, and with them what depends on it
                    retries += 1
                    if retries > RETRIES:
                        raise _workers_die(error) from error
                    shared = self._share(common)
                    waiting = deque((unit, self._submit(shared, unit)) for unit, _ in waiting)
                    continue
                waiting.popleft()
                future.release()
                advance(self._size_of(unit))
                yield result
        finally:
            self._client.cancel([future for _, future in waiting])

    def _workers(self) -> int:
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def _share(self, common: Common) -> Future:
        """Sends what units have in common to all workers."""
        for _ in range(int(START_S / POLL_S)):
            self._check_abort()
            with suppress(TimeoutError):
                self._client.wait_for_workers(1, timeout=POLL_S)
                return self._client.scatter(common, broadcast=True, hash=False)
        raise ResourceError(
            "the Dask cluster has no workers",
            where=str(self._client.scheduler_info()["address"]),
            fix="start workers ('dask worker ADDRESS', or scale the cluster of dask-jobqueue), then start again",
        )

    def _submit(self, shared: Future, unit: Unit) -> Future:
        return self._client.submit(self._compute, self._setup, shared, unit, pure=False)

    def _result(self, future: Future) -> Any:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        looked = -POLL_S
        while not future.done():
            if monotonic() - looked >= POLL_S:
                self._check_abort()
                looked = monotonic()
            sleep(SHORT_S)
        try:
            return future.result()
        except KilledWorker as error:
            raise _workers_die(error) from error
        except FutureCancelledError as error:
            raise asyncio.CancelledError from error

    def close(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        cluster = self._client.cluster
        self._client.close()
        if cluster is not None:
            cluster.close()


def _workers_die(error: BaseException) -> ResourceError:
    return ResourceError(
        "workers die again and again at the same unit of work",
        where="Dask",
        found=str(error),
        fix="look at the messages of the workers; if memory is short use fewer --workers or a smaller --memory",
    )
