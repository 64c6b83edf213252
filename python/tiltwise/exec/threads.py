"""Ordered maps over threads, for work that releases the interpreter lock (FFTs, kernels, files); threads of BLAS."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """`[function(item) for item in items]` on up to `threads` threads; the first exception is raised."""
    if threads <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def map_ahead(
    function: Callable[[Item], Result], batches: Iterable[Iterable[Item]], threads: int
) -> Iterator[list[Result]]:
    """Results of every batch, in order; those of the next batch are computed while one is used.

    On up to `threads` threads; the first exception is raised.
    """
    if threads <= 1:
        for batch in batches:
            yield [function(item) for item in batch]
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[list[Future[Result]]] = deque()
        try:
            for batch in batches:
                ahead.append([pool.submit(function, item) for item in batch])
                if len(ahead) > 1:
                    yield [future.result() for future in ahead.popleft()]
            while ahead:
                yield [future.result() for future in ahead.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """At most `count` threads in matrix products and factorisations of NumPy and SciPy, in the whole process.

    Left alone they take every core, whatever `--threads` says and whoever else works; small matrices get slower by it.
    """
    with threadpool_limits(limits=count, user_api="blas"):
        yield
