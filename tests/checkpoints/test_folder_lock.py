"""Locks on folders, of this machine's processes and of others'."""

import concurrent.futures
import json
import os
import subprocess
import sys
import time

import pytest
from test_storage import store  # noqa: F401, a fixture

from umt_jax import storage
from umt_jax.checkpoints import folder_lock
from umt_jax.processes import owner

HOLD = """
import sys, time
from umt_jax.checkpoints import folder_lock
with folder_lock.held(sys.argv[1], purpose="training"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(folder_lock, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(folder_lock, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(folder_lock, "_LOOK_SECONDS", 0.02)


@pytest.fixture
def of_another_machine(monkeypatch):
    """Makes the locks that are found look like those of another machine."""
    monkeypatch.setattr(owner.Owner, "is_running", lambda self: None)


@pytest.fixture(params=["local", "object store"])
def folder(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "run")
    request.getfixturevalue("store")
    return "gs://bucket/run"


def refusal(folder):
    with pytest.raises(folder_lock.FolderInUseError) as error:
        with folder_lock.held(folder, purpose="training"):
            pass
    return str(error.value)


def test_a_lock_keeps_others_out_until_it_is_given_back(folder):
    path = storage.path(folder) / folder_lock.NAME
    with folder_lock.held(folder, purpose="training") as lock:
        content = path.read_text()
        assert json.loads(content)["process"] == os.getpid()
        said = refusal(folder)
        assert said.startswith(f"{folder} is in use for training by process {os.getpid()} on ")
        assert "Nothing was changed." in said
        lock.check()
    assert not path.exists()
    with folder_lock.held(folder, purpose="training"):
        assert path.read_text() != content


def test_a_folder_that_was_made_for_the_lock_alone_goes_with_it(tmp_path):
    with folder_lock.held(str(tmp_path / "new"), purpose="training"):
        pass
    assert not (tmp_path / "new").exists()
    with folder_lock.held(str(tmp_path / "new"), purpose="training"):
        (tmp_path / "new" / "metrics.jsonl").touch()
    assert os.listdir(tmp_path / "new") == ["metrics.jsonl"]


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "SILENCE_SECONDS", 600)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"held\n"
        assert f"process {process.pid} on" in refusal(str(tmp_path))
        process.kill()
    assert (tmp_path / folder_lock.NAME).exists()
    with folder_lock.held(str(tmp_path), purpose="training"):
        pass


def test_a_lock_of_another_machine_is_taken_over_when_it_falls_silent(
    folder, of_another_machine, monkeypatch
):
    with folder_lock.held(folder, purpose="training"):
        refusal(folder)  # Its heart beats.
    silent = folder_lock.Lock(storage.path(folder) / folder_lock.NAME, "training")
    storage.path(folder).mkdir(parents=True, exist_ok=True)
    assert silent._create()
    started = time.monotonic()
    with folder_lock.held(folder, purpose="training") as lock:
        assert time.monotonic() - started >= folder_lock.SILENCE_SECONDS
        # It was only asleep: it notices, and leaves the lock of the other one alone.
        silent._beat()
        with pytest.raises(folder_lock.FolderInUseError, match="was taken over by process"):
            silent.check()
        silent.give_back()
        time.sleep(3 * folder_lock.BEAT_SECONDS)
        lock.check()


def test_of_many_that_find_an_abandoned_lock_one_takes_it(tmp_path, monkeypatch):
    path = tmp_path / folder_lock.NAME
    for _ in range(20):
        path.write_text(json.dumps({"host": "a", "system": "b", "process": 1, "started": 1}))
        # Abandoned is that lock alone.
        monkeypatch.setattr(owner.Owner, "is_running", lambda self: self.host != "a")

        def attempt(_):
            lock = folder_lock.Lock(storage.path(str(path)), "training")
            try:
                lock.take()
            except folder_lock.FolderInUseError:
                return None
            return lock

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            (lock,) = filter(None, pool.map(attempt, range(8)))
        lock.check()
        lock.give_back()
        assert os.listdir(tmp_path) == []


def test_a_lock_that_says_nothing_is_watched_too(tmp_path):
    (tmp_path / folder_lock.NAME).write_text("")  # As of a machine that went down.
    with folder_lock.held(str(tmp_path), purpose="training"):
        pass


def test_a_lock_that_somebody_removed_comes_back(tmp_path):
    with folder_lock.held(str(tmp_path), purpose="training") as lock:
        (tmp_path / folder_lock.NAME).unlink()
        time.sleep(5 * folder_lock.BEAT_SECONDS)
        refusal(str(tmp_path))
        lock.check()


def test_a_process_is_known_by_its_start_as_well():
    mine = owner.this_process()
    assert mine.is_running()
    assert owner.Owner(mine.host, mine.system, mine.process, mine.started + 1).is_running() is False
    assert owner.Owner(mine.host, "elsewhere", mine.process, mine.started).is_running() is None


def test_a_process_that_nobody_has_waited_for_is_not_running():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        deadline = time.monotonic() + 60
        while owner._start_time(process.pid) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.returncode is None


def test_ps_knows_the_same_processes():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = owner._start_time_by_ps(process.pid)
        assert started == owner._start_time_by_ps(process.pid)
        assert abs(started - time.time()) < 600
    assert owner._start_time_by_ps(process.pid) is None
