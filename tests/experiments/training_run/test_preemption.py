import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from experiments.training_run import preemption


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_stop_and_interrupts_nothing(number, caplog):
    with preemption.StopRequest() as stop:
        assert not stop.reached(1)
        os.kill(os.getpid(), number)
        wait_until(lambda: stop.reached(2))
    name = signal.Signals(number).name
    assert caplog.messages == [
        f"{name}: stopping after this step, with a checkpoint. A second one ends at once."
    ]


def test_signals_mean_what_they_did_before_when_it_is_over():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with preemption.StopRequest():
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


# The main thread is in C and deaf to Python's own handlers for longer than any test takes.
BUSY = """
import hashlib
from experiments.training_run import preemption
with preemption.StopRequest():
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_second_signal_ends_at_once_even_in_the_midst_of_a_long_step(number):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        assert "stopping after this step" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(timeout=10) == 128 + number


# Two processes whose steps take different times, which nothing else keeps in step.
TWO = """
import sys, time
import jax
from experiments.training_run import preemption
port, process = sys.argv[1], int(sys.argv[2])
with preemption.StopRequest() as stop:
    jax.distributed.initialize(f"localhost:{port}", 2, process, initialization_timeout=60)
    print("joined", flush=True)
    step = 1
    while not stop.reached(step) and step < 10_000:
        step += 1
        time.sleep([0.01, 0.013][process])
    print(step, flush=True)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_processes_agree_on_the_last_step_whichever_of_them_is_asked(number):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, port, str(process)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        assert [process.stdout.readline() for process in processes] == ["joined\n"] * 2
        processes[1].send_signal(number)
        steps = [process.communicate(timeout=60)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert steps[0] == steps[1] and 1 < int(steps[0]) < 10_000
