"""Maps over threads that keep the order."""

from __future__ import annotations

from threading import Event

import pytest

from tiltwise.exec.threads import map_ahead


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_come_in_order(threads: int) -> None:
    batches = [[1, 2, 3], [], [4], [5, 6]]
    assert list(map_ahead(lambda x: x * x, batches, threads)) == [[1, 4, 9], [], [16], [25, 36]]


def test_the_next_batch_is_computed_while_one_is_used() -> None:
    begun = [Event() for _ in range(3)]
    for number, _ in enumerate(map_ahead(lambda i: begun[i].set(), [[0], [1], [2]], 2)):
        assert all(event.wait(10.0) for event in begun[: number + 2])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_exception_is_raised(threads: int) -> None:
    def fail(x: int) -> int:
        if x > 2:
            raise ValueError(str(x))
        return x

    results = map_ahead(fail, [[1, 2], [3, 4]], threads)
    assert next(results) == [1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
