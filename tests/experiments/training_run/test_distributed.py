"""Several processes on this machine, each with devices of its own, train as one does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import commands
import jax
import numpy as np
import pytest
from test_train import as_flags, metrics, restored_state, untimed

from experiments.training_run import distributed
from umt_jax.checkpoints import folder_lock


def free_port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def start(workdir, prepared_dir, config, num_steps, *flags, num_processes=2, each=()):
    """Starts processes of two devices each; `each` has flags of one process and of the next."""
    distributed = [
        "--distributed",
        f"--coordinator_address=localhost:{free_port()}",
        f"--num_processes={num_processes}",
    ]
    return [
        commands.start(
            *("experiments.train", *as_flags(config)),
            f"--data_dir={prepared_dir}",
            f"--workdir={workdir}",
            f"--cpu_devices={4 // num_processes}",
            f"--num_steps={num_steps}",
            "--log_every=2",
            "--eval_every=4",
            "--eval_batches=1",
            "--eval_audio_seconds=0.1",
            *([*distributed, f"--process_id={process}"] if num_processes > 1 else []),
            *flags,
            *each[process : process + 1],
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(num_processes)
    ]


def end(processes):
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def finish(processes, timeout=600):
    """Waits for them; returns what each said, without the lines of Gloo and their times."""
    try:
        said = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        end(processes)
    return [
        [line.partition("] ")[2] or line for line in text.splitlines() if "[Gloo]" not in line]
        for text in said
    ]


def train(*args, **options):
    processes = start(*args, **options)
    said = finish(processes)
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def assert_close(workdir, expected_dir, step, config):
    """Compares the metrics up to a step, and the state at that step, within float32 rounding."""
    lines, expected_lines = (
        [line for line in untimed(metrics(folder)) if line["step"] <= step]
        for folder in (workdir, expected_dir)
    )
    for line, expected in zip(lines, expected_lines, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)
    state, expected = (restored_state(folder, step, config) for folder in (workdir, expected_dir))
    assert state.step == expected.step == step

    def compare(array, expected, rtol):
        atol = rtol * np.max(np.abs(expected))
        np.testing.assert_allclose(array, expected, rtol=0, atol=atol)

    for name in ("autoencoder_optimizer", "classifier_optimizer"):
        jax.tree.map(
            lambda a, b: compare(a, b, 1e-4), getattr(state, name), getattr(expected, name)
        )
    # Adam makes a whole step out of a gradient that is nothing but rounding.
    jax.tree.map(lambda a, b: compare(a, b, 1e-2), state.parameters, expected.parameters)


def assert_equal(workdir, expected_dir, step, config):
    assert untimed(metrics(workdir)) == untimed(metrics(expected_dir))
    jax.tree.map(
        np.testing.assert_array_equal,
        *(restored_state(folder, step, config) for folder in (workdir, expected_dir)),
    )


@pytest.mark.thorough
def test_two_processes_train_as_one_does(tmp_path, trained_dir, prepared_dir, run_config):
    said = train(tmp_path, prepared_dir, run_config, 8)
    assert_close(tmp_path, trained_dir, 8, run_config)
    # The mesh is over both; the first alone tells, and translates.
    assert said[0][0].startswith("Training with engine=xla")
    assert "laid out as {'domain': 2, 'data': 2}" in said[0][1]
    assert [line.partition("  ")[0] for line in said[0][2:]] == [
        *("step 2/8", "step 4/8", "step 4", "step 6/8", "step 8/8", "step 8"),
        f"Written: {tmp_path}, checkpoints and metrics.",
    ]
    assert said[1] == []
    assert len([*(tmp_path / "tensorboard").iterdir()]) == 1


@pytest.fixture(scope="module")
def two_process_dirs(tmp_path_factory, prepared_dir, run_config):
    """Two runs by two processes: of eight steps, and of four."""
    folder = tmp_path_factory.mktemp("two_processes")
    for num_steps in (8, 4):
        train(folder / str(num_steps), prepared_dir, run_config, num_steps)
    return folder / "8", folder / "4"


@pytest.mark.slow
@pytest.mark.parametrize("num_processes, assert_same", [(2, assert_equal), (1, assert_close)])
def test_a_run_of_two_processes_is_resumed_by_two_bit_for_bit_and_by_one(
    tmp_path, two_process_dirs, prepared_dir, run_config, num_processes, assert_same
):
    whole, half = two_process_dirs
    workdir = tmp_path / "resumed"
    shutil.copytree(half, workdir)
    said = train(workdir, prepared_dir, run_config, 8, num_processes=num_processes)
    assert any(line.startswith("Resuming from step 4") for line in said[0])
    assert_same(workdir, whole, 8, run_config)


@pytest.mark.slow
def test_two_processes_train_alike_under_pmap(tmp_path, two_process_dirs, prepared_dir, run_config):
    whole, half = two_process_dirs
    train(tmp_path / "pmap", prepared_dir, run_config, 8, "--partitioning=pmap")
    assert_close(tmp_path / "pmap", whole, 8, run_config)
    # A run may change from one partitioning to the other.
    shutil.copytree(half, tmp_path / "resumed")
    train(tmp_path / "resumed", prepared_dir, run_config, 8, "--partitioning=pmap")
    assert_close(tmp_path / "resumed", whole, 8, run_config)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_other(tmp_path, prepared_dir, run_config, victim):
    processes = start(tmp_path, prepared_dir, run_config, 10**6, "--eval_every=1000000")
    try:
        deadline = time.monotonic() + 600
        while not (tmp_path / "metrics.jsonl").exists() or len(metrics(tmp_path)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        processes[victim].send_signal(signal.SIGKILL)
        other = processes[1 - victim]
        _, said = other.communicate(timeout=distributed.HEARTBEAT_TIMEOUT_SECONDS + 30)
    finally:
        end(processes)
    ours = f"error: Process {1 - victim} of 2 lost the others"
    # JAX's own, where it is faster than the step: it ends the process from a thread of C++.
    of_jax = "This most likely indicates that another task died"
    assert (other.returncode == 1 and ours in said) or (other.returncode < 0 and of_jax in said)


@pytest.mark.slow
def test_a_process_with_other_flags_is_named_by_both(tmp_path, prepared_dir, run_config):
    each = ("--num_steps=8", "--num_steps=9")
    processes = start(tmp_path, prepared_dir, run_config, 8, each=each)
    said = finish(processes)
    assert [process.returncode for process in processes] == [1, 1]
    for lines in said:
        assert "error: Process 1 differs from process 0 in schedule. Start the same" in lines[-1]


@pytest.mark.slow
def test_a_folder_in_use_is_named_by_both_processes(tmp_path, prepared_dir, run_config):
    with folder_lock.held(str(tmp_path), purpose="training"):
        processes = start(tmp_path, prepared_dir, run_config, 8)
        said = finish(processes)
    assert [process.returncode for process in processes] == [1, 1]
    for lines in said:
        assert f"error: {tmp_path} is in use for training by process {os.getpid()} on" in lines[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_that_waits_in_vain_says_so():
    code = f"""
from experiments.training_run import distributed
from umt_jax import command_line
distributed.START_TIMEOUT_SECONDS = 3
def main():
    with distributed.joined("localhost:{free_port()}", 2, 0):
        pass
command_line.run(main)
"""
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: Not all of the 2 processes came within 3 s. Start the same")


@pytest.mark.slow
def test_distributed_outside_a_cluster_says_which_flags_it_needs(tmp_path):
    flags = [f"--data_dir={tmp_path}", "--workdir=w", "--distributed"]
    finished = commands.run("experiments.train", *flags, timeout=120)
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: --distributed finds the other processes by itself only on")
    assert "give --coordinator_address=HOST:PORT, --num_processes=N and --process_id" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", 2, None), "needs all of three flags, or none"),
        ((None, None, 0), "needs all of three flags, or none"),
        (("host:1", 2, 2), "--process_id=2 must be below --num_processes=2"),
        (("host", 2, 0), "has no port. Write HOST:PORT, as host:12345"),
    ],
)
def test_flags_of_a_cluster_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        with distributed.joined(*arguments):
            pass


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_processes_agree_only_where_all_facts_are_the_same(monkeypatch, num_processes):
    facts = {"schedule": {"num_steps": 8}, "prepared data": "abc", "model": (1, 2)}

    def check(*others):
        """Gathers the digests of this process and of others with facts of their own."""
        if not others:
            monkeypatch.setattr(distributed.jax, "process_count", lambda: 1)
            return distributed.check_agreement(facts)
        digests = []
        monkeypatch.setattr(distributed.jax, "process_count", lambda: 1 + len(others))
        with monkeypatch.context() as patch:
            patch.setattr(
                distributed.multihost_utils,
                "process_allgather",
                lambda mine: digests.append(mine) or mine[None],
            )
            for theirs in (facts, *others):
                distributed.check_agreement(theirs)
        monkeypatch.setattr(
            distributed.multihost_utils, "process_allgather", lambda _: np.stack(digests)
        )
        return distributed.check_agreement(facts)

    check(*[dict(facts)] * (num_processes - 1))
    if num_processes > 1:
        others = [facts] * (num_processes - 2) + [{**facts, "schedule": 9, "model": (1, 3)}]
        message = f"Process {num_processes - 1} differs from process 0 in schedule and model"
        with pytest.raises(ValueError, match=message):
            check(*others)
