"""Whole runs in folders whose names are patterns, or no text, to the libraries below."""

import os
import re
import shutil

import commands
import numpy as np
import pytest
import soundfile
from conftest import write_tone
from test_train import as_flags

from umt_jax.checkpoints import reading


@pytest.mark.slow
def test_a_run_in_any_folder_is_trained_resumed_exported_and_translated(
    tmp_path, prepared_dir, run_config
):
    folder = tmp_path / "v2 [final] #2 50%"
    shutil.copytree(prepared_dir, folder / "data [a]")
    workdir = folder / "run *?"
    flags = [
        *as_flags(run_config),
        f"--data_dir={folder / 'data [a]'}",
        "--eval_batches=1",
        "--eval_audio_seconds=0",
    ]
    for num_steps in (1, 2):
        finished = commands.run(
            "experiments.train", *flags, f"--workdir={workdir}", f"--num_steps={num_steps}"
        )
        assert finished.returncode == 0, finished.stderr
        assert "damaged" not in finished.stderr and "Skipping" not in finished.stderr
        assert ("Resuming from step 1" in finished.stderr) == (num_steps == 2)
        assert num_steps in reading.steps(reading.folder_of(str(workdir)))

    # Longer, with another schedule: the message says the way, which is there.
    longer = ["--num_steps=3", "--decay_steps=7"]
    refused = commands.run("experiments.train", *flags, f"--workdir={workdir}", *longer)
    assert refused.returncode == 1
    way = re.search(
        r"error: --decay_steps=7 contradicts the run .* To train its model on with "
        r"(--decay_steps=7): (--init_from=.*) and another --workdir; ",
        refused.stderr,
    )
    given = [way[1], way[2], f"--workdir={folder / 'longer'}", "--num_steps=1"]
    finished = commands.run("experiments.train", *flags, *given)
    assert finished.returncode == 0, finished.stderr
    assert reading.read_config(str(folder / "longer")).training.decay_steps == 7

    exported = folder / "exported #3"
    finished = commands.run("umt_jax.export", f"--checkpoint={workdir}", f"--output={exported}")
    assert finished.returncode == 0, finished.stderr
    write_tone(folder / "a [1].wav", seconds=0.5)
    finished = commands.run(
        "umt_jax.infer",
        f"--checkpoint={exported}",
        f"--input={folder / 'a [1].wav'}",
        f"--output={folder / 'out [1]'}",
        "--domain=Piano",
        "--engine=scan",
    )
    assert finished.returncode == 0, finished.stderr
    (output,) = (folder / "out [1]").iterdir()
    sound, _ = soundfile.read(output)
    assert len(sound) == 4000 and np.isfinite(sound).all()


@pytest.mark.parametrize("name", [b"r\xffn", b"a\\b"])
def test_training_in_a_folder_that_cannot_hold_checkpoints_is_refused_at_once(tmp_path, name):
    workdir = os.path.join(os.fsencode(tmp_path), name)
    finished = commands.run("experiments.train", b"--workdir=" + workdir, "--data_dir=nowhere")
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ") and " is not the name of a folder for a run: " in line
    assert not list(tmp_path.iterdir())
