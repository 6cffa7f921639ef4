"""Fills a real, small file system under a run."""

import shutil

import commands
import jax
import numpy as np
import pytest
from small_disk import mounted
from test_train import as_flags, metrics, restored_state, run, schedule, untimed

from umt_jax.checkpoints import checkpoint, integrity


@pytest.fixture
def resumed_dir(tmp_path, trained_dir):
    return shutil.copytree(trained_dir, tmp_path / "resumed")


@pytest.fixture
def small_disk(tmp_path):
    with mounted(tmp_path / "disk", megabytes=8) as disk:
        yield disk


def fill(disk, *, leaving):
    with (disk / "filler").open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - leaving))


@pytest.mark.slow
@pytest.mark.parametrize("leaving", [8_000, 100_000, 300_000])
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint_whole(
    small_disk, resumed_dir, trained_dir, prepared_dir, run_config, caplog, leaving
):
    workdir = small_disk / "run"
    shutil.copytree(trained_dir, workdir)
    fill(small_disk, leaving=leaving)
    finished = commands.run(
        *("experiments.train", *as_flags(run_config), "--num_steps=12"),
        *("--log_every=2", "--eval_every=4", "--eval_batches=1", "--eval_audio_seconds=0"),
        *(f"--data_dir={prepared_dir}", f"--workdir={workdir}"),
    )
    assert finished.returncode == 1
    lines = finished.stderr.splitlines()
    own = [line for line in lines if "train.py:" not in line and "metrics_log.py:" not in line]
    assert own == lines[-1:] and "error: " in own[0] and "o space left" in own[0], finished.stderr

    (small_disk / "filler").unlink()
    integrity.set_aside(str(workdir))
    assert not [message for message in caplog.messages if "damaged" in message]
    with jax.numpy_dtype_promotion("standard"):
        with checkpoint.Checkpoints(str(workdir)) as checkpoints:
            assert checkpoints.newest_step() == 8
        for folder in (workdir, resumed_dir):
            run(run_config, schedule(12), prepared_dir, folder)
        states = [restored_state(folder, 12, run_config) for folder in (workdir, resumed_dir)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert untimed(metrics(workdir)) == untimed(metrics(resumed_dir))
