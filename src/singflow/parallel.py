"""Maps a function over items in threads, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

AHEAD = 4  # items per thread that may be ahead of the consumer
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int = AHEAD,
    most: int | None = None,
) -> Iterator[Result]:
    """Like map, in order, in threads that are at most `ahead` items each ahead of the consumer.

    most: a limit for all threads together, which is never below one item for each.
    """
    waiting, count = iter(items), ahead * threads
    if most is not None:
        count = min(count, max(most, threads))
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(waiting, count)
        )
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def map_apart(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None
) -> Iterator[Result]:
    """Like map, in order, in threads with one BLAS thread each: their number changes no result.

    threads: None for no threads, with BLAS as it is, which needs less memory.
    """
    if threads is None:
        yield from map(function, items)
        return
    with threadpool_limits(1):
        yield from map_ahead(function, items, threads, 1)
