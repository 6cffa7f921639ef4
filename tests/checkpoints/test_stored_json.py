"""Checksums of the JSON of a checkpoint."""

import json
import shutil

import pytest
from etils import epath
from test_checkpoint import saved as saved  # A fixture: of three steps, 2 and 3 are there.

from umt_jax.checkpoints import demo_model, integrity, reading, stored_json


@pytest.fixture
def workdir(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("part", stored_json.FILES)
def test_a_flipped_bit_is_noticed_wherever_it_is(workdir, part):
    folder = epath.Path(workdir) / "checkpoints" / "2"
    stored_json.check(folder, part)
    path = workdir / "checkpoints" / "2" / part / stored_json.FILES[part]
    content = path.read_bytes()
    for place in range(0, len(content), 17):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(stored_json.ChangedError):
            stored_json.check(folder, part)


def test_a_changed_configuration_is_not_played_and_the_message_says_what_to_do(workdir):
    path = workdir / "checkpoints" / "2" / "config" / "metadata"
    fields = json.loads(path.read_text())
    fields["model"]["pool_samples"] = 30  # No array has another shape by it.
    path.write_text(json.dumps(fields))
    message = r"2/config/metadata is damaged: .* edited on purpose, remove (\S+/config/sha256)\."
    with pytest.raises(stored_json.ChangedError, match=message):
        reading.read_config(str(workdir))
    reading.read_config(str(workdir), step=3)
    path.with_name(stored_json.CHECKSUM).unlink()
    assert reading.read_config(str(workdir)).model.pool_samples == 30


def test_a_changed_loss_does_not_decide_which_checkpoint_is_the_best(workdir):
    path = workdir / "checkpoints" / "3" / "metrics" / "metrics"
    path.write_text(path.read_text().replace('"reconstruction": 2', '"reconstruction": 0'))
    with pytest.raises(stored_json.ChangedError, match="3/metrics/metrics is damaged"):
        reading.read_config(str(workdir))


def test_checkpoints_of_earlier_versions_have_no_checksums_and_load(workdir, run_config, caplog):
    for path in workdir.rglob(stored_json.CHECKSUM):
        path.unlink()
    integrity.set_aside(str(workdir))
    assert not caplog.records
    assert reading.read_config(str(workdir)) == run_config


def test_the_shipped_model_has_checksums():
    folder = epath.Path(demo_model.path()) / "checkpoints"
    (step,) = reading.steps(folder)
    for part in stored_json.FILES:
        assert (folder / str(step) / part / stored_json.CHECKSUM).exists()
        stored_json.check(folder / str(step), part)
