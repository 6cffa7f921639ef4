import json

import numpy as np
import object_store
import pytest
from etils import epath
from etils.epath import backend

from experiments.training_run import metrics_log, run_folder
from umt_jax import storage
from umt_jax.checkpoints import reading

HISTORY = [{"reconstruction": np.ones(2), "classification": 1.0, "classifier_accuracy": 0.5}]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Makes gs:// an object store."""
    monkeypatch.setenv("OBJECT_STORE", object_store.install(tmp_path)["OBJECT_STORE"])
    there = object_store.ObjectStore()
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: there)
    monkeypatch.setattr(storage.fsspec, "get_filesystem_class", lambda protocol: type(there))


def test_on_a_disk_files_are_where_the_run_is(tmp_path):
    folder = run_folder.RunFolder(str(tmp_path), "log")
    assert folder.local == tmp_path
    (tmp_path / "log").write_text("one\n")
    folder.publish()
    folder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_an_object_store_has_what_was_published_and_a_new_run_goes_on_with_it(store):
    remote = epath.Path("gs://bucket/run")
    folder = run_folder.RunFolder(str(remote), "log")
    (folder.local / "deep").mkdir()
    for name in ("log", "deep/other"):
        (folder.local / name).write_text("one\n")
    assert not remote.exists()
    folder.publish()
    (folder.local / "log").write_text("one\ntwo\n")
    assert (remote / "log").read_text() == (remote / "deep/other").read_text() == "one\n"
    folder.close()
    assert not folder.local.exists()

    again = run_folder.RunFolder(str(remote), "log", "never written")
    assert [path.name for path in again.local.iterdir()] == ["log"]
    assert (again.local / "log").read_text() == "one\ntwo\n"
    again.close()


def test_only_what_changed_is_copied(store):
    remote = epath.Path("gs://bucket/run")
    folder = run_folder.RunFolder(str(remote))
    for name in ("a", "b"):
        (folder.local / name).write_text("1")
    folder.publish()
    for name in ("a", "b"):
        (remote / name).unlink()
    (folder.local / "b").write_text("22")
    folder.close()
    assert [path.name for path in remote.iterdir()] == ["b"]


def test_the_log_of_a_run_on_an_object_store_is_that_of_one_on_a_disk(store, tmp_path, run_config):
    def log(workdir, first_step):
        with metrics_log.MetricsLog(workdir, run_config, first_step, 10) as log:
            for step in range(first_step + 1, first_step + 3):
                log.train(step, HISTORY, learning_rate=1e-3)
            log.evaluate(step, [{"reconstruction": np.ones(2)}])

    local = tmp_path / "run"
    local.mkdir()
    for first_step in (0, 1):  # The second run does step 2 again.
        log(str(local), first_step)
        log("gs://bucket/run", first_step)

    def untimed(text):
        lines = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in line.items() if "second" not in k} for line in lines]

    remote = epath.Path("gs://bucket/run")
    lines = untimed((remote / "metrics.jsonl").read_text())
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines == untimed((local / "metrics.jsonl").read_text())
    assert (remote / "config.json").read_text() == (local / "config.json").read_text()
    for folder in (remote, epath.Path(local)):
        assert len([*(folder / "tensorboard").iterdir()]) == 2


def test_checkpoints_are_below_the_workdir_wherever_it_is(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reading.folder_of("runs/a") == epath.Path(tmp_path / "runs" / "a" / "checkpoints")
    assert str(reading.folder_of("gs://bucket/run")) == "gs://bucket/run/checkpoints"
    assert not reading.has_checkpoint("gs://bucket/run")
