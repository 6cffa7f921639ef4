"""A build through Apache Beam is the build of this machine's processes, byte for byte."""

import functools
import hashlib
import os
import subprocess
import sys

import pytest
from conftest import write_tone
from etils import epath

from data_prep import domains, process_workers
from data_prep.settings import Recipe
from umt_jax import storage

pytest.importorskip("apache_beam", reason="Apache Beam is not installed: make test-beam")

RECIPE = Recipe(sample_rate_hz=8000, segment_samples=1024, num_variants=2)
FLAGS = ["--sample_rate_hz=8000", "--segment_samples=1024", "--num_variants=2"]


@pytest.fixture
def music(tmp_path):
    for i in range(5):
        write_tone(tmp_path / "music" / "Piano" / f"{i}.wav", frequency_hz=200.0 + i)
    write_tone(tmp_path / "music" / "Cello" / "a.flac", seconds=8.0)
    (tmp_path / "music" / "Cello" / "empty.mp3").touch()
    return tmp_path / "music"


def run_command(music, data, *flags):
    arguments = [f"--audio_dir={music}", f"--data_dir={data}", *FLAGS, *flags]
    return subprocess.run(
        [sys.executable, "-m", "data_prep.build", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
    )


def content(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in map(epath.Path, storage.files_below(folder))
    }


def test_beam_writes_the_same_bytes_as_the_processes_of_this_machine(music, tmp_path):
    options = "--direct_running_mode=multi_processing --direct_num_workers=2"
    with process_workers.run_all_here(2) as run_all:
        domains.build(
            epath.Path(music),
            epath.Path(tmp_path / "here"),
            RECIPE,
            run_all=run_all,
            overwrite=False,
        )
    finished = run_command(
        music, tmp_path / "beam", "--beam_runner=DirectRunner", f"--beam_options={options}"
    )
    # All is built, and the status says that a file could not be read.
    assert finished.returncode == 1, finished.stderr
    assert finished.stderr.splitlines()[-1].startswith("error: 1 of 7 files could not be read")
    assert content(epath.Path(tmp_path / "here")) == content(epath.Path(tmp_path / "beam"))
    assert [path.name for path in (tmp_path / "beam").iterdir()] == ["segments"]
    assert "Left out (1):\n  Cello/empty.mp3 is empty" in finished.stdout


def test_an_error_on_a_worker_of_beam_is_one_line(music, tmp_path):
    data = tmp_path / "data"
    for path in (music / "Cello").iterdir():
        path.unlink()
    write_tone(music / "Cello" / "short.wav", seconds=0.1)
    finished = run_command(music, data, "--beam_runner=DirectRunner")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("error: Domain Cello needs three tracks")
    assert not any(data.iterdir())


def test_a_call_that_fails_is_raised_where_the_build_was_started(tmp_path):
    from data_prep import beam_workers

    with beam_workers.run_all_with_beam("DirectRunner", "", epath.Path(tmp_path)) as run_all:
        assert list(run_all([functools.partial(abs, -i) for i in range(20)])) == list(range(20))
        with pytest.raises(FileNotFoundError, match="missing"):
            list(run_all([functools.partial(os.stat, "/missing")]))
    assert not any(tmp_path.iterdir())


def test_an_unknown_runner_is_one_line(music, tmp_path):
    finished = run_command(music, tmp_path / "data", "--beam_runner=NoRunner")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("error: --beam_runner=NoRunner: ")
