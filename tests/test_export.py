import dataclasses
import json
import pathlib

import commands
import jax
import numpy as np
import pytest
from test_checkpoint import make_state

from umt_jax.checkpoints import checkpoint, demo_model, reading
from umt_jax.config import SamplingConfig


def export(run, output, *flags):
    return commands.run("umt_jax.export", f"--checkpoint={run}", f"--output={output}", *flags)


def test_the_command_exports_the_best_weights_and_the_record_of_losses(tmp_path, trained_dir):
    output = tmp_path / "exported"
    finished = export(trained_dir, output)
    step = reading.best_step(str(trained_dir))
    assert finished.stdout.startswith(f"Exported step {step}, "), finished.stderr
    assert reading.best_step(str(output)) == step
    record = (trained_dir / "metrics.jsonl").read_bytes()
    assert (output / "metrics.jsonl").read_bytes() == record
    assert reading.read_config(str(output)) == reading.read_config(str(trained_dir))
    again = export(trained_dir, output)
    assert (again.returncode, again.stderr.splitlines()) == (
        1,
        [f"error: --output={output} holds a run already. Name another folder."],
    )


def test_an_export_keeps_how_it_is_to_be_played(tmp_path, trained_dir):
    output, again = tmp_path / "exported", tmp_path / "again"
    finished = export(trained_dir, output, "--temperature=0.4", "--top_p=0.95")
    assert finished.stdout.endswith("It is played at temperature 0.4, top_p 0.95.\n")
    trained = reading.read_config(str(trained_dir))
    own = SamplingConfig(temperature=0.4, top_p=0.95)
    assert reading.read_config(str(output)) == dataclasses.replace(trained, sampling=own)
    # What is not named stays.
    assert export(output, again, "--top_p=1").returncode == 0
    assert reading.read_config(str(again)).sampling == SamplingConfig(temperature=0.4)


def test_a_sampling_that_means_nothing_is_refused_before_anything_is_written(tmp_path, trained_dir):
    finished = export(trained_dir, tmp_path / "exported", "--top_p=1.5")
    assert (finished.returncode, finished.stderr.splitlines()) == (
        1,
        [
            "error: --top_p=1.5 must lie in (0, 1]: codes are drawn from the likeliest ones, which "
            "have so much of the probability together; 1 draws from all."
        ],
    )
    assert not (tmp_path / "exported").exists()


def texts(folder):
    """All bytes of all files, with their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)


@pytest.fixture
def private_run(tmp_path, run_config):
    """A run that tells who made it, where and of what."""
    training = dataclasses.replace(run_config.training, init_from="/home/anna/runs/first")
    config = dataclasses.replace(run_config, training=training)
    track = {"name": "bei Anna.wav", "sha256": "5ec2e7", "seconds": 7.5}
    track["num_segments"] = {"train": 3, "validation": 1, "test": 0}
    cello = {
        "sample_rate_hz": 8000,
        "source": "/home/anna/music",
        "tracks": [track],
        "left_out": [{"name": "streng geheim.wav", "reason": "is silent"}],
    }
    published = {"folder": "C:\\Users\\anna\\pretrained", "epoch": 3}
    with checkpoint.Checkpoints(str(tmp_path / "anna")) as checkpoints:
        dataset = {"Cello": cello, "published": published}
        checkpoints.save(make_state(config, 1), config, dataset, 1.0)
    (tmp_path / "anna" / "metrics.jsonl").write_text('{"step": 1}\n')
    return tmp_path / "anna"


def dataset_of(run):
    return json.loads((run / "checkpoints" / "1" / "dataset" / "metadata").read_text())


def test_an_export_tells_nothing_of_where_it_was_made_and_of_what(tmp_path, private_run):
    for word in (b"anna", b"Anna", b"geheim", b"5ec2e7"):
        assert word in texts(private_run)
    output = tmp_path / "exported"
    assert export(private_run, output).returncode == 0
    for word in (b"anna", b"Anna", b"geheim", b"5ec2e7", str(tmp_path).encode()):
        assert word not in texts(output)
    assert reading.read_config(str(output)).training.init_from == "first"
    num_segments = {"train": 3, "validation": 1, "test": 0}
    assert dataset_of(output) == {
        "Cello": {
            "sample_rate_hz": 8000,
            "source": "music",
            "tracks": [{"seconds": 7.5, "num_segments": num_segments}],
        },
        "published": {"folder": "pretrained", "epoch": 3},
    }


def test_an_export_names_the_recordings_where_that_is_asked_for(tmp_path, private_run):
    output = tmp_path / "exported"
    assert export(private_run, output, "--recordings").returncode == 0
    assert b"/home/anna" not in texts(output) and str(tmp_path).encode() not in texts(output)
    for part in ("tracks", "left_out"):
        assert dataset_of(output)["Cello"][part] == dataset_of(private_run)["Cello"][part]


def test_the_shipped_model_tells_nothing_of_where_it_was_made():
    for path in pathlib.Path(demo_model.path()).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(word in content for word in (b"/work/", b"/tmp/", b"/home/", b".wav"))


def test_one_file_holds_the_weights_of_the_folder(tmp_path, trained_dir):
    folder, file = tmp_path / "folder", tmp_path / "made" / "model.safetensors"
    assert export(trained_dir, folder).returncode == 0
    finished = export(trained_dir, file, "--format=safetensors", "--licence=CC0-1.0")
    assert finished.stdout.startswith("Exported step "), finished.stderr
    assert reading.read_config(str(file)) == reading.read_config(str(folder))
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoint.restore_parameters(str(file)),
        checkpoint.restore_parameters(str(folder)),
    )
    again = export(trained_dir, file, "--format=safetensors")
    assert again.stderr == f"error: --output={file} exists already. Name another file.\n"
    misnamed = export(trained_dir, tmp_path / "model.bin", "--format=safetensors")
    assert misnamed.stderr.endswith("model.bin must end in .safetensors.\n")
    folder_licence = export(trained_dir, tmp_path / "other", "--licence=CC0-1.0")
    assert "--licence is for --format=safetensors" in folder_licence.stderr
