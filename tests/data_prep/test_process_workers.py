import functools
import multiprocessing
import os
import signal
import time

import pytest

from data_prep import process_workers


def pool():
    # As in test_build: one server of workers lasts as long as the tests.
    return process_workers.worker_pool(2, preload="data_prep.segments")


def test_results_come_in_the_order_of_the_calls():
    calls = [functools.partial(round, i + 0.1) for i in range(50)]
    with pool() as executor:
        assert list(process_workers.in_order(executor, calls)) == list(range(50))


def test_calls_are_begun_a_bounded_number_ahead(monkeypatch):
    monkeypatch.setattr(process_workers, "_CALLS_AHEAD", 3)
    begun = []
    calls = (begun.append(i) or functools.partial(abs, i) for i in range(50))
    with pool() as executor:
        results = process_workers.in_order(executor, calls)
        for i in range(40):
            assert next(results) == i
            assert len(begun) == i + 4


def test_an_error_in_a_worker_is_raised_here():
    with pytest.raises(FileNotFoundError), pool() as executor:
        list(process_workers.in_order(executor, [functools.partial(os.stat, "/missing")]))


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(ChildProcessError, match="--num_workers"), pool() as executor:
        list(process_workers.in_order(executor, [functools.partial(os._exit, 3)] * 3))


def test_an_interrupt_ends_workers_amid_their_work():
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt), pool() as executor:
        executor.submit(os.getpid).result()
        calls = [executor.submit(time.sleep, 100) for _ in range(5)]
        workers = set(multiprocessing.active_children()) - before
        raise KeyboardInterrupt
    # Ended by a signal, not after their work: none of the calls has returned.
    assert workers and all(worker.exitcode for worker in workers)
    assert all(call.cancelled() or call.exception() for call in calls)
    assert set(multiprocessing.active_children()) <= before


def test_workers_leave_ctrl_c_to_their_parent():
    with pool() as executor:
        worker = executor.submit(os.getpid).result()
        os.kill(worker, signal.SIGINT)
        assert executor.submit(abs, -1).result() == 1
