"""What killed processes leave behind goes; what others are working on stays."""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from etils import epath

from umt_jax import storage
from umt_jax.audio import sound_files
from umt_jax.processes import leftovers, owner

WORK = """
import sys, time
from pathlib import Path
from umt_jax.processes import leftovers
target = Path(sys.argv[1], "a.wav")
with leftovers.hidden_file(target) as file, leftovers.temporary_folder() as folder:
    file.write_bytes(b"half")
    Path(folder, "copy").write_bytes(b"half")
    print("working", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def look(monkeypatch):
    """Looks a folder through as a new process does; returns what is left."""

    def look(folder):
        monkeypatch.setattr(leftovers, "_looked_through", set())
        leftovers.remove_from(folder)
        return sorted(os.listdir(folder))

    return look


def test_what_a_process_works_on_goes_once_it_was_killed_and_not_before(tmp_path, look):
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdout.readline() == b"working\n"
        (tmp_path / ".umt.notes").touch()  # Somebody else's, who likes such names.
        there = sorted(os.listdir(tmp_path))
        assert len(there) == 3
        assert look(tmp_path) == there
        process.kill()
    assert look(tmp_path) == [".umt.notes"]


def test_what_another_machine_left_goes_when_it_is_old(tmp_path, look):
    file = tmp_path / ".umt.01234567.1.1.abc"
    folder = tmp_path / ".umt.01234567.2.2.abc"
    file.touch()
    folder.mkdir()
    (folder / "sound").touch()
    assert len(look(tmp_path)) == 2
    old = time.time() - leftovers.AGE_SECONDS - 60
    os.utime(file, (old, old))
    os.utime(folder, (old, old))
    assert look(tmp_path) == [folder.name]  # Something in it is new.
    os.utime(folder / "sound", (old, old))
    assert look(tmp_path) == []


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path, look):
    mine = owner.this_process()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "recording.wav").touch()
    link = tmp_path / f".umt.{mine.system}.{mine.process}.{mine.started + 1}.abc"
    link.symlink_to(tmp_path / "folder")
    assert look(tmp_path) == ["folder"]
    assert (tmp_path / "folder" / "recording.wav").exists()


def test_hidden_names_are_short_so_that_outputs_may_have_the_longest_names(tmp_path):
    longest = tmp_path / ("x" * 251 + ".wav")
    sound_files.write(longest, np.zeros(100, np.float32), sample_rate_hz=8000)
    with storage.whole_file(epath.Path(tmp_path / ("y" * 255))) as path:
        path.write_text("whole")
    assert sorted(map(len, os.listdir(tmp_path))) == [255, 255]


@pytest.mark.parametrize("ends", ["well", "in an error"])
def test_a_process_removes_its_own(tmp_path, monkeypatch, ends):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        with (
            leftovers.hidden_file(tmp_path / "a") as path,
            leftovers.temporary_folder() as folder,
        ):
            path.touch()
            assert sorted(os.listdir(tmp_path)) == sorted([path.name, os.path.basename(folder)])
            if ends == "in an error":
                raise RuntimeError
    except RuntimeError:
        pass
    assert os.listdir(tmp_path) == []
