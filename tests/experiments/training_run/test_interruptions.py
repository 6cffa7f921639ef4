"""Kills real training processes and compares what they leave with a run never stopped."""

import dataclasses
import json
import re
import signal
import time
import uuid

import commands
import jax
import numpy as np
import pytest
from test_train import (
    as_flags,
    metrics,
    restored_state,
    schedule,
    tensorboard_scalars,
    untimed,
)

from experiments.training_run import preemption
from umt_jax.checkpoints import checkpoint, reading

# Nothing divides the other, so that runs stop between two means of the log.
SHORT = dataclasses.replace(schedule(30, eval_every=15), log_every=3, checkpoint_every=4)
LONG = dataclasses.replace(SHORT, num_steps=900, log_every=7, eval_every=50, checkpoint_every=18)


class Command:
    """A training process."""

    def __init__(self, workdir, prepared_dir, config, schedule):
        self.workdir = workdir
        self._stderr = workdir.parent / f"{workdir.name}.{uuid.uuid4().hex[:8]}.stderr"
        flags = [f"--{name}={value}" for name, value in vars(schedule).items()]
        with self._stderr.open("w") as stderr:
            self.process = commands.start(
                *("experiments.train", *as_flags(config), *flags),
                *(f"--data_dir={prepared_dir}", f"--workdir={workdir}"),
                stderr=stderr,
            )

    @property
    def log(self):
        return self._stderr.read_text()

    def wait_for(self, condition):
        deadline = time.monotonic() + 300
        while not condition():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.001)

    def wait_for_line(self, text):
        self.wait_for(lambda: text in self.log)

    def wait_for_half_written_checkpoint(self):
        self.wait_for(lambda: half_written(self.workdir))

    def end(self, number):
        """Ends the process by a signal; returns its exit status."""
        assert self.process.poll() is None, self.log
        self.process.send_signal(number)
        return self.process.wait(timeout=120)

    def finish(self):
        assert self.process.wait(timeout=1200) == 0, self.log


def half_written(workdir):
    return sorted((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def finished_steps(workdir):
    return sorted(checkpoint.ocp.utils.checkpoint_steps(reading.folder_of(str(workdir))))


def continued_from(log):
    """Returns the step that a process went on from."""
    return int(re.search(r"Resuming from step (\d+)", log)[1])


def assert_same_run(workdir, expected, config, schedule):
    """Compares parameters, optimizers and all that was recorded, but times."""
    states = [restored_state(path, schedule.num_steps, config) for path in (workdir, expected)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert untimed(metrics(workdir)) == untimed(metrics(expected))
    assert untimed([tensorboard_scalars(workdir)]) == untimed([tensorboard_scalars(expected)])
    assert finished_steps(workdir) == finished_steps(expected)
    assert json.loads((workdir / "config.json").read_text()) == config.to_json()


@pytest.fixture(scope="module")
def config(run_config):
    """What starts soonest: each process traces and loads it anew."""
    model = dataclasses.replace(run_config.model, encoder_layers=1, decoder_layers=1)
    return dataclasses.replace(run_config, model=model)


@pytest.fixture
def start(prepared_dir, config):
    """Starts training processes, and ends those that are left when a test is over."""
    commands = []

    def start(workdir, schedule):
        commands.append(Command(workdir, prepared_dir, config, schedule))
        return commands[-1]

    yield start
    for command in commands:
        command.process.kill()
        command.process.wait()


@pytest.fixture(autouse=True)
def standard_promotion():
    # Optax's Adam itself mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.thorough
def test_a_run_that_is_killed_and_stopped_is_the_run_never_stopped(tmp_path, start, config):
    workdir, never_stopped = tmp_path / "run", tmp_path / "never_stopped"
    # Of two that are started in one folder at once, one trains there.
    two = [start(never_stopped, SHORT), start(never_stopped, SHORT)]

    # Killed while it writes its second checkpoint.
    command = start(workdir, SHORT)
    command.wait_for(lambda: half_written(workdir) and finished_steps(workdir))
    assert command.end(signal.SIGKILL) == -signal.SIGKILL
    before, interrupted = max(finished_steps(workdir)), half_written(workdir)

    # The next one says what it found, and loses no finished step; killed wherever it is.
    command = start(workdir, SHORT)
    command.wait_for_line("] step ")
    assert command.end(signal.SIGKILL) == -signal.SIGKILL
    assert continued_from(command.log) == before
    for path in interrupted:
        assert f"Removing {path}, half-written" in command.log
    before = max(finished_steps(workdir))

    # Asked to stop: it saves the step that it is at.
    command = start(workdir, SHORT)
    command.wait_for_line("] step ")
    assert command.end(signal.SIGTERM) == preemption.EXIT_STATUS == 75, command.log
    assert continued_from(command.log) == before
    stopped_at = int(re.search(r"Stopped after step (\d+)\.", command.log)[1])
    assert stopped_at == max(finished_steps(workdir)) < SHORT.num_steps

    command = start(workdir, SHORT)
    command.finish()
    assert continued_from(command.log) == stopped_at
    beside, refused = sorted(two, key=lambda one: one.process.wait(timeout=300))
    beside.finish()
    assert refused.process.returncode == 1
    assert re.fullmatch(
        rf"error: {re.escape(str(never_stopped))} is in use for training by process "
        rf"{beside.process.pid} on .*, since .*\. Nothing was changed\. Wait for its end, stop it "
        rf"\(kill {beside.process.pid}\), or take another folder\.\n",
        refused.log,
    )
    assert not (never_stopped / "lock.json").exists()
    assert_same_run(workdir, never_stopped, config, SHORT)


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_is_the_run_never_stopped(tmp_path, start, config):
    workdir, never_stopped = tmp_path / "run", tmp_path / "never_stopped"
    beside = start(never_stopped, LONG)
    rng = np.random.default_rng()
    newest = 0
    for round_number in range(20):
        before = finished_steps(workdir) if workdir.exists() else []
        interrupted = [path.name for path in half_written(workdir)]
        started = time.monotonic()
        command = start(workdir, LONG)
        way = ["start", "random", "saving", "random", "stop"][round_number % 5]
        if way == "start":
            time.sleep(rng.uniform(0, 8))
        else:
            command.wait_for_line("] step ")
            time.sleep(rng.uniform(0, 0.7))
        if way == "saving":
            command.wait_for_half_written_checkpoint()
        status = command.end(signal.SIGTERM if way == "stop" else signal.SIGKILL)
        assert status == (preemption.EXIT_STATUS if way == "stop" else -signal.SIGKILL), command.log
        if "Resuming from" in command.log:
            assert continued_from(command.log) == max(before)
            for name in interrupted:
                assert f"{name}, half-written" in command.log
        assert "damaged" not in command.log
        after = max(finished_steps(workdir), default=0) if workdir.exists() else 0
        assert after >= newest
        newest = after
        print(
            f"{round_number + 1:2d} {way:6s} after {time.monotonic() - started:4.1f} s: newest "
            f"checkpoint {newest}, half-written {[path.name for path in half_written(workdir)]}",
            flush=True,
        )
    assert newest < LONG.num_steps
    command = start(workdir, LONG)
    command.finish()
    beside.finish()
    assert_same_run(workdir, never_stopped, config, LONG)
