"""Installations that cannot be written, for users without a home."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_tone
from read_only import sealed_environment

from umt_jax import numba_cache

ROOT = Path(__file__).parent.parent
PACKAGES = ("umt_jax", "data_prep", "experiments")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """The environment of a user who can write temporary files alone."""
    return sealed_environment(tmp_path_factory.mktemp("sealed"))


def python(environment, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )


def test_librosa_is_usable_where_nothing_can_be_kept(sealed):
    use = "from librosa.core import notation; print(notation.__file__)"
    refused = python(sealed, "-c", use)
    assert "no locator available" in refused.stderr, "otherwise this test shows nothing"
    used = python(sealed, "-c", f"import umt_jax; {use}")
    assert used.returncode == 0, used.stderr
    assert used.stdout.startswith(sealed["PYTHONPATH"].partition(":")[0])
    assert not list(Path(sealed["TMPDIR"]).glob(".umt.*")), "it is removed at the end"


def test_no_module_loads_more_of_librosa_than_its_name_before_numba_has_its_folder():
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != "librosa", path
            elif isinstance(node, ast.Import):
                assert not any(name.name.startswith("librosa.") for name in node.names), path


SAVE = """
import sys
import umt_jax
import numba.core.caching as caching

folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    file = caching.IndexDataCacheFile(folder, f"function{number}", "stamp")
    file.save(name, name)
"""


def test_what_processes_keep_at_once_is_found_under_its_own_name(tmp_path):
    """Without turns, entries are lost or stand for another's data in most runs of this test."""
    caching = pytest.importorskip("numba.core.caching")
    assert hasattr(caching.IndexDataCacheFile.save, "__wrapped__")
    names, count = ("integers", "floats", "doubles", "texts"), 200
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", SAVE, tmp_path, name, str(count)], **pipes)
        for name in names
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=300)
    assert [process.returncode for process in processes] == [0] * len(names)
    for number in range(count):
        file = caching.IndexDataCacheFile(str(tmp_path), f"function{number}", "stamp")
        assert [file.load(name) for name in names] == list(names)


@pytest.mark.slow
def test_a_dataset_is_built_where_nothing_can_be_kept(sealed, tmp_path):
    write_tone(tmp_path / "music" / "Flute" / "a.wav", seconds=8)
    built = python(
        sealed,
        *("-m", "data_prep.build", "--sample_rate_hz=8000", "--segment_samples=4000"),
        *(f"--audio_dir={tmp_path / 'music'}", f"--data_dir={tmp_path / 'data'}"),
        "--num_workers=2",
    )
    assert built.returncode == 0, built.stderr
    assert "Traceback" not in built.stderr
    assert (tmp_path / "data" / "segments" / "Flute").is_dir()


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """Where numba would look for folders, and none of them there yet."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(sys, "platform", "linux")
    library = tmp_path / "librosa"
    library.mkdir()
    monkeypatch.setattr(numba_cache, "_folders_of_librosa", lambda: [library])
    return tmp_path


@pytest.mark.parametrize("blocked", ["user", "librosa/__pycache__"])
def test_numba_keeps_its_own_place_where_it_has_one(searched, blocked):
    (searched / blocked).touch()
    numba_cache.ensure()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_place_that_was_named_stays(searched, monkeypatch):
    for blocked in ("user", "librosa/__pycache__"):
        (searched / blocked).touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/named")
    numba_cache.ensure()
    assert os.environ["NUMBA_CACHE_DIR"] == "/named"
