"""Who computes the units of a piece of work: this process, or workers of a Dask cluster.

A stage hands over what all units have in common and a list of units, and takes the results in the order of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

Common = TypeVar("Common", contravariant=True)
Unit = TypeVar("Unit", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Executor(Protocol[Common, Unit, Result]):
    """Computes units, anywhere and in any order, and gives their results in the order of the units."""

    def results(self, common: Common, units: Sequence[Unit], advance: Callable[[int], None]) -> Iterator[Result]:
        """Results of `units` in their order; `advance(n)` is called when n more particles are done."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


class InProcess(Generic[Common, Unit, Result]):
    """Computes one unit after the other in this process, which has threads of its own for each."""

    def __init__(self, compute: Callable[[Common, Unit, Callable[[int], None]], Result]) -> None:
        self._compute = compute

    def results(self, common: Common, units: Sequence[Unit], advance: Callable[[int], None]) -> Iterator[Result]:
        """See `Executor`."""
        for unit in units:
            yield self._compute(common, unit, advance)

    def close(self) -> None:
        """Nothing to end."""
