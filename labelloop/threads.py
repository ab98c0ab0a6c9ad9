"""Work in threads: numpy and the reading of files let several run at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from labelloop.cgroups import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # items for each thread, so that a long one keeps no thread waiting


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None
) -> Iterator[Result]:
    """``map``, in several threads.

    A thread takes the next item as soon as it is free. At most ``AHEAD`` items for each thread are out at a
    time, those included whose results wait for an earlier one.

    Args:
        work: Must not depend on what it did before; the results are those of ``map``.
        items: What to work on.
        threads: How many; None for one on every core that this process may use.
    """
    threads = usable_cores() if threads is None else threads
    rest = iter(items)
    if threads == 1:
        yield from map(work, rest)
        return
    with ThreadPoolExecutor(threads) as pool:
        out: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(rest, AHEAD * threads))
        try:
            while out:
                result = out.popleft().result()
                out.extend(pool.submit(work, item) for item in islice(rest, 1))
                yield result
        finally:
            for future in out:
                future.cancel()
