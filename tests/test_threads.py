from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from labelloop.threads import AHEAD, in_threads


@pytest.mark.parametrize("threads", [1, 3, None])
def test_results_are_those_of_map(threads: int | None) -> None:
    assert list(in_threads(str, range(50), threads=threads)) == [str(item) for item in range(50)]


def test_a_free_thread_takes_the_next_item_while_another_is_at_work_on_an_earlier_one() -> None:
    third = Event()

    def work(item: int) -> bool:
        if item == 2:
            third.set()
        return third.wait(10) if item == 0 else True

    assert all(in_threads(work, range(3), threads=2))


def test_items_are_taken_as_results_are_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_threads(str, items(), threads=2)
    next(results)
    assert len(taken) == 2 * AHEAD + 1
    results.close()
    assert len(taken) == 2 * AHEAD + 1


@pytest.mark.parametrize("threads", [1, 2])
def test_what_one_item_raises_is_raised(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // item, [1, 0, 1], threads=threads))
