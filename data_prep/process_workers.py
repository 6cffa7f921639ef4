"""Worker processes that end with this one, and their results in order."""

import collections
import contextlib
import functools
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

from umt_jax.processes import leftovers

_Result = TypeVar("_Result")

RunAll = Callable[[Iterable[Callable[[], Any]]], Iterator[Any]]
"""Makes calls somewhere, in any order, and yields their results in the order of the calls.

Calls and results are pickled. This module has one for the processes of this machine,
`data_prep.beam_workers` one for workers of Apache Beam.
"""

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
    # Workers that are ended leave their temporary files behind: here they go with the folder.
    with leftovers.temporary_folder() as temporary:
        pool = futures.ProcessPoolExecutor(
            num_workers, context, initializer=_set_up, initargs=(temporary,)
        )
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


@contextlib.contextmanager
def run_all_here(num_workers: int) -> Iterator[RunAll]:
    """Gives the function that makes calls in processes of this machine."""
    with worker_pool(num_workers, preload="data_prep.shards") as pool:
        yield functools.partial(in_order, pool)


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


def _set_up(temporary: str) -> None:
    """Leaves Ctrl-C to the parent, and exits when the parent is gone, however it went."""
    tempfile.tempdir = temporary
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
