"""Work in threads: numpy lets several run at once while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from labelloop.cgroups import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map``, on every core that this process may use.

    Items are taken as cores become free, so not more of them exist at a time than there are cores.

    Args:
        work: Must not depend on what it did before; the results are those of ``map``.
        items: What to work on.
    """
    workers = usable_cores()
    rest = iter(items)
    if workers == 1:
        yield from map(work, rest)
        return
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(rest, workers)):
            yield from pool.map(work, batch)
