"""Worker processes that end with this one, and their results in order."""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TypeVar

_Result = TypeVar("_Result")

# Calls begun before the first result is taken: enough that one long track does not leave other
# workers idle, few enough that results waiting on disk stay small beside a large dataset.
_CALLS_AHEAD = 4 * (os.cpu_count() or 1)


@contextlib.contextmanager
def worker_pool(num_workers: int, *, preload: str) -> Iterator[futures.Executor]:
    """Starts worker processes; an exception in the block, Ctrl-C too, ends them at once.

    They are forked from a server that has imported the module `preload` and has no threads:
    forking this process instead could copy locks that its threads hold.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    others = set(multiprocessing.active_children())
    pool = futures.ProcessPoolExecutor(num_workers, context, initializer=_end_with_parent)
    try:
        yield pool
    except BaseException:
        started = set(multiprocessing.active_children()) - others
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.join()
        raise
    else:
        pool.shutdown()


def in_order(pool: futures.Executor, calls: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """Yields the results of calls in their order, made a bounded number ahead.

    Raises:
        ChildProcessError: A worker died.
    """
    waiting: collections.deque[futures.Future[_Result]] = collections.deque()
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > _CALLS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A worker process died, perhaps because memory ran out: try fewer with --num_workers."
        ) from error


def _end_with_parent() -> None:
    """Leaves Ctrl-C to the parent, and exits when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
