"""A run goes on with the data that it began with, or is told otherwise."""

import copy
import json
import shutil

import commands
import pytest
from test_train import as_flags

from experiments.training_run import data_changes
from umt_jax.checkpoints import stored_json


def track(name, content, train=3):
    return {"name": name, "sha256": content, "seconds": 1.0, "num_segments": {"train": train}}


BEFORE = {
    "Cello": {
        "seed": 0,
        "num_variants": 2,
        "tracks": [track("a.wav", "1"), track("b.wav", "2"), track("c.wav", "3")],
        "left_out": [{"name": "d.wav", "sha256": "4", "reason": "is empty"}],
    }
}


def test_the_same_data_have_no_changes():
    now = copy.deepcopy(BEFORE)
    now["Cello"]["tracks"].reverse()
    # What a newer build records and what it says of files that it left out decide no segment.
    now["Cello"] |= {"loudness_dbfs": None, "left_out": []}
    assert data_changes.between(BEFORE, now | {"Flute": {}}) == []
    assert data_changes.between(now | {"Flute": {}}, BEFORE) == []


def test_each_kind_of_change_is_named():
    now = copy.deepcopy(BEFORE)
    now["Cello"] |= {
        "num_variants": 4,
        "tracks": [track("a.wav", "9"), track("b.wav", "2", train=1)]
        + [track(f"{name}.wav", name) for name in "vwxyz"],
    }
    assert data_changes.between(BEFORE, now) == [
        "Cello: num_variants 4 instead of 2",
        "Cello: 5 recordings more (v.wav, w.wav, x.wav and 2 more)",
        "Cello: 1 recording fewer (c.wav)",
        "Cello: 1 recording of other content (a.wav)",
        "Cello: 1 recording split in another way (b.wav)",
    ]


@pytest.fixture
def rebuilt(tmp_path, trained_dir):
    """A run that says that it was trained on a recording more."""
    workdir = shutil.copytree(trained_dir, tmp_path / "run")
    path = workdir / "checkpoints" / "8" / "dataset" / "metadata"
    description = json.loads(path.read_text())
    description["Cello"]["tracks"].append(track("gone.wav", "5"))
    path.write_text(json.dumps(description))
    (path.parent / stored_json.CHECKSUM).unlink()
    return workdir


def test_a_run_on_other_data_stops_unless_it_is_told_to_go_on(rebuilt, prepared_dir, run_config):
    def train(*flags):
        arguments = [f"--data_dir={prepared_dir}", f"--workdir={rebuilt}", "--num_steps=8"]
        return commands.run("experiments.train", *as_flags(run_config), *arguments, *flags)

    finished = train()
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith(
        f"error: --data_dir was built anew since the run in --workdir={rebuilt} began: "
        "Cello: 1 recording fewer (gone.wav). Nothing was changed."
    )
    assert "--accept_changed_data" in line
    finished = train("--accept_changed_data")
    assert finished.returncode == 0, finished.stderr
    assert "Resuming from step 8" in finished.stderr
