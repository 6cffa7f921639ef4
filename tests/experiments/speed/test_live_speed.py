"""The clock that runs with a thread's CPU time."""

import threading
import time
from pathlib import Path

import numpy as np
import plugin_build
import pytest

from experiments.speed import live_speed

RATE_HZ, BLOCK = 8000, 400  # Blocks of 50 ms.


class Worker:
    """Works for so long on each block, in a thread; counts those that it got before it was done."""

    def __init__(self, cpu_seconds):
        self.cpu_seconds, self.given, self.done, self.num_dropouts = cpu_seconds, 0, 0, 0
        self.is_ending = False
        self.has_come = threading.Semaphore(0)
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        while True:
            self.has_come.acquire()
            if self.is_ending:
                return
            ends = time.thread_time() + self.cpu_seconds[self.done % len(self.cpu_seconds)]
            while time.thread_time() < ends:
                np.sin(np.arange(100.0))
            self.done += 1

    def play(self, samples):
        assert len(samples) == BLOCK
        self.num_dropouts += self.done < self.given
        self.given += 1
        self.has_come.release()

    def opened(self):
        return live_speed.Opened(
            play=self.play,
            delay_samples=0,
            num_dropouts=lambda: self.num_dropouts,
            thread_id=self.thread.native_id,
            is_idle=lambda: self.done == self.given,
        )

    def close(self):
        self.is_ending = True
        self.has_come.release()
        self.thread.join()


@pytest.mark.parametrize(
    ("cpu_seconds", "num_late", "behind", "speed"),
    [
        ([0.01], 0, 0.01, 5.0),  # A fifth of each block's 50 ms.
        ([0.02, 0.0, 0.0], 0, 0.02, 7.5),
        ([0.06, 0.0, 0.0], 4, 0.06, 2.5),  # A third of the blocks come before that work is done.
    ],
)
def test_late_blocks_and_speed_are_those_of_the_workers_cpu_time(
    cpu_seconds, num_late, behind, speed
):
    worker = Worker(cpu_seconds)
    sound = np.zeros(12 * BLOCK, np.float32)
    result = live_speed.stream(worker.opened(), sound, block=BLOCK, rate_hz=RATE_HZ)
    worker.close()
    assert (result.num_blocks, result.num_dropouts) == (12, num_late)
    # The last block's work is not waited for. Python's own work comes on top.
    assert behind <= result.most_behind_seconds < behind + 0.02
    assert speed * 0.5 < result.speed < speed * 1.2


def test_a_thread_that_waits_is_asleep_and_one_that_works_is_not():
    is_working, is_ending = threading.Event(), threading.Event()

    def work():
        is_working.wait()
        while not is_ending.is_set():
            np.sin(np.arange(1e5))

    thread = threading.Thread(target=work)
    thread.start()
    look = live_speed.is_asleep(thread.native_id)
    while not look():
        time.sleep(0.001)
    is_working.set()
    seen = {look() for _ in range(2000)}
    is_ending.set()
    thread.join()
    assert False in seen


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A folder of the plug-ins that users compile, with the shipped model."""
    folder = tmp_path_factory.mktemp("plugins")
    model = Path(__file__).parents[3] / "docs" / "play" / "model.safetensors"
    plugin_build.compile_into(folder, model, flags="")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LV2", "CLAP", "umt-live"])
def test_half_an_hour_has_no_dropout(name, played):
    """At 48 kHz, on a clock on which the thread that translates has a core of its own."""
    rate_hz, block = 48_000, 256
    sound = np.tile(live_speed.melody(60, rate_hz), 30)
    with live_speed.OPENERS[name](played, rate_hz, block) as opened:
        result = live_speed.stream(opened, sound, block=block, rate_hz=rate_hz)
    assert result.num_blocks == 30 * 60 * rate_hz // block
    assert result.num_dropouts == 0
