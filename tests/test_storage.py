"""Datasets on an object store: the same records as on a local disk, complete or not there."""

import json
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import object_store
import pytest
from conftest import write_tone
from etils import epath
from etils.epath import backend

from data_prep import domains, shards, staging
from data_prep.settings import Recipe
from umt_jax import numba_cache, storage
from umt_jax.data import catalog, dataset, records

RECIPE = Recipe(sample_rate_hz=8000, segment_samples=1024, num_variants=2)
FLAGS = ["--sample_rate_hz=8000", "--segment_samples=1024", "--num_variants=2", "--num_workers=2"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Makes gs:// an object store in this process; gives the environment of others."""
    environment = object_store.install(tmp_path)
    monkeypatch.setenv("OBJECT_STORE", environment["OBJECT_STORE"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = object_store.ObjectStore()
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: there)
    monkeypatch.setattr(storage.fsspec, "get_filesystem_class", lambda protocol: type(there))
    return environment


def copy_to(local, remote):
    for path in storage.files_below(local):
        (epath.Path(remote) / path.relative_to(epath.Path(local))).write_bytes(path.read_bytes())


def build(audio_dir, data_dir, environment, *flags):
    arguments = [f"--audio_dir={audio_dir}", f"--data_dir={data_dir}", *FLAGS, *flags]
    return subprocess.run(
        [sys.executable, "-m", "data_prep.build", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def records_of(data_dir, domain):
    """All records of a domain, as numbers and text."""
    folder = catalog.local_copy(catalog.find(epath.Path(data_dir))[domain])
    return {
        split: [
            {name: np.asarray(value).tolist() for name, value in record.items()}
            for record in records.Records(folder, split)
        ]
        for split in ("train", "validation", "test")
    }


def make_calls(calls):
    return (call() for call in calls)


def build_here(audio_dir, data_dir, *, run_all=make_calls):
    """Builds in this process alone."""
    return domains.build(
        epath.Path(audio_dir), epath.Path(data_dir), RECIPE, run_all=run_all, overwrite=False
    )


def test_a_build_between_buckets_gives_the_records_of_a_local_one(tmp_path, store):
    write_tone(tmp_path / "music" / "Solo Cello" / "a.wav", seconds=6.0)
    for i in range(3):
        write_tone(tmp_path / "music" / "Piano" / f"disc {i}" / "a.flac", frequency_hz=200.0 + i)
    copy_to(tmp_path / "music", "gs://bucket/music")
    assert build_here(tmp_path / "music", tmp_path / "data") == ["Piano", "Solo_Cello"]
    there = build("gs://bucket/music", "gs://bucket/data", store)
    assert there.returncode == 0, there.stderr

    # What was built lies there as objects, and nothing but that.
    objects = {path.name for path in storage.files_below("gs://bucket/data/segments/Piano")}
    assert objects == set(os.listdir(tmp_path / "data" / "segments" / "Piano" / "1.0.0"))
    assert [path.name for path in epath.Path("gs://bucket/data").iterdir()] == ["segments"]
    for domain in ("Piano", "Solo_Cello"):
        assert records_of("gs://bucket/data", domain) == records_of(tmp_path / "data", domain)


@pytest.mark.slow
def test_a_rebuild_on_an_object_store_is_a_newer_version_in_place_of_the_older(tmp_path, store):
    data_dir = epath.Path("gs://bucket/data")
    for name in ("A", "B"):
        write_tone(tmp_path / "music" / name / "a.wav", seconds=5.0)
    assert build_here(tmp_path / "music", data_dir) == ["A", "B"]
    before = catalog.find(data_dir)
    assert build_here(tmp_path / "music", data_dir) == []
    write_tone(tmp_path / "music" / "B" / "b.wav", seconds=4.0)
    assert build_here(tmp_path / "music", data_dir) == ["B"]
    after = catalog.find(data_dir)
    assert after["A"] == before["A"]
    assert catalog.version(after["B"]) > catalog.version(before["B"])
    assert list(after["B"].parent.iterdir()) == [after["B"]]
    assert len(staging.read_metadata(data_dir)["B"]["tracks"]) == 2


@pytest.mark.slow
def test_a_build_that_ends_early_on_an_object_store_leaves_whole_domains_only(tmp_path, store):
    data_dir = epath.Path("gs://bucket/data")
    for name in ("A", "B"):
        write_tone(tmp_path / "music" / name / "a.wav", seconds=5.0)

    def end_within_second_domain(calls):
        for call in calls:
            if call.func is shards.write and call.args[0].domain == "B":
                if call.args[0].split == "test":
                    raise KeyboardInterrupt
            yield call()

    with pytest.raises(KeyboardInterrupt):
        build_here(tmp_path / "music", data_dir, run_all=end_within_second_domain)
    # Some of B's shards are there, which nobody takes for a dataset.
    assert len(list(storage.files_below(data_dir / "segments" / "B"))) == 2
    assert dataset.find_domains("gs://bucket/data") == ("A",)
    assert build_here(tmp_path / "music", data_dir) == ["B"]
    assert dataset.find_domains("gs://bucket/data") == ("A", "B")


@pytest.mark.slow
def test_a_build_killed_on_an_object_store_leaves_whole_domains_only(tmp_path, store):
    write_tone(tmp_path / "music" / "A" / "a.wav", seconds=5.0)
    write_tone(tmp_path / "music" / "B" / "b.wav", seconds=600.0)
    arguments = [f"--audio_dir={tmp_path}/music", "--data_dir=gs://bucket/data", *FLAGS]
    process = subprocess.Popen([sys.executable, "-m", "data_prep.build", *arguments], env=store)
    while not catalog.find(epath.Path("gs://bucket/data")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(catalog.find(epath.Path("gs://bucket/data"))) == ["A"]
    assert dataset.find_domains("gs://bucket/data") == ("A",)


def test_copies_for_training_are_made_once_and_anew_when_the_dataset_changes(prepared_dir, store):
    copy_to(prepared_dir, "gs://bucket/data")
    folder = catalog.find(epath.Path("gs://bucket/data"))["Cello"]
    first = catalog.local_copy(folder)
    assert sorted(os.listdir(first)) == sorted(path.name for path in folder.iterdir())
    times = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert catalog.local_copy(folder) == first
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == times

    # A copy that was broken off is completed.
    (first / "features.json").unlink()
    assert catalog.local_copy(folder) == first and (first / "features.json").exists()

    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps({**metadata, "seed": 1}))
    assert catalog.local_copy(folder) != first


def test_a_disk_too_small_for_the_copy_is_named_before_it_begins(prepared_dir, store, monkeypatch):
    copy_to(prepared_dir, "gs://bucket/data")
    full = types.SimpleNamespace(free=1)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(OSError, match=r"has room for 0\.0 GB, but .* Set XDG_CACHE_HOME"):
        dataset.Dataset("gs://bucket/data", ["Cello"]).excerpts("train", 100)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ftp://host/music", "is neither a local folder nor begins with one of gs://, s3://"),
        ("az://bucket/music", "az://bucket/music needs a package: pip install adlfs"),
    ],
)
def test_storage_that_cannot_be_reached_is_named(path, message, monkeypatch):
    def not_installed(protocol):
        raise ImportError("Install adlfs to access Azure")

    monkeypatch.setattr(storage.fsspec, "get_filesystem_class", not_installed)
    with pytest.raises(ValueError, match=message):
        storage.path(path)


def test_storage_without_credentials_is_named(store, monkeypatch):
    class NoCredentialsError(Exception):
        """As those of cloud libraries, none of Python's own kinds."""

    def refuse(*_, **__):
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(object_store.ObjectStore, "ls", refuse)
    message = r"gs://private/music cannot be reached: Unable to locate credentials\. Check the"
    with pytest.raises(OSError, match=message):
        storage.path("gs://private/music")


def test_a_file_appears_as_a_whole_or_not_at_all(tmp_path, store):
    for target in (epath.Path(tmp_path / "a"), epath.Path("gs://bucket/a")):
        with pytest.raises(RuntimeError), storage.whole_file(target) as path:
            path.write_text("half")
            raise RuntimeError
        assert not target.exists()
        with storage.whole_file(target) as path:
            path.write_text("whole")
            assert not target.exists()
        assert target.read_text() == "whole"
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_copies_for_libraries_go_when_they_were_read(store):
    original = epath.Path("gs://bucket/music/a.wav")
    original.write_bytes(b"sound")
    with storage.local_copy(original) as copy:
        assert copy.name == "a.wav" and copy.read_bytes() == b"sound"
    assert not copy.parent.exists()


def test_a_user_without_a_home_has_no_cache_folder_and_gets_no_folder_named_tilde(
    tmp_path, monkeypatch
):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert os.path.expanduser("~") == "~"
    with pytest.raises(NotADirectoryError):
        storage.cache_folder().mkdir(parents=True)
    assert not numba_cache._can_be_written(numba_cache._of_user())
    assert not list(tmp_path.iterdir())
