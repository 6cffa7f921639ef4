import ctypes
from pathlib import Path

from umt_jax.core import compiler


def test_a_library_that_cannot_be_kept_is_compiled_for_this_process_alone(monkeypatch, tmp_path):
    program = tmp_path / "g++"
    script = '[ "$last" = --version ] || echo compiled > "$last"'
    # The file to write is the last word that it is called with.
    program.write_text(f"#!/bin/sh\nfor last; do :; done\n{script}\n")
    program.chmod(0o755)
    source = tmp_path / "source.cc"
    source.write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setenv("XDG_CACHE_HOME", str(program))  # A file: no folder can be made in it.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    loaded, library = [], ctypes.CDLL(None)

    def load(name):
        path = Path(name)
        loaded.append((path.is_relative_to(tmp_path / "temporary"), path.read_text()))
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    compiler.load(source)
    assert loaded == [(True, "compiled\n")]
    assert not list((tmp_path / "temporary").iterdir())


def test_a_changed_source_is_compiled_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "source.cc"
    for number in (1, 2, 2):
        source.write_text(f'extern "C" int number() {{ return {number}; }}\n')
        assert compiler.load(source).number() == number
    assert len(list((tmp_path / "cache").rglob("source-*.so"))) == 2
