import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from test_checkpoint import save

from umt_jax import path_flags
from umt_jax.checkpoints import reading

ROOT = Path(__file__).parent.parent

# Flags of text that are no paths. A new one has to be added here, or to be a path.
NO_PATHS = {
    "allowed_hosts",
    "beam_options",
    "beam_runner",
    "bins_per_octave",
    "choose_guide_strength",
    "choose_temperature",
    "choose_top_p",
    "coordinator_address",
    "domain",
    "domain_names",
    "domains",
    "engine",
    "formats",
    "held_out",
    "hops",
    "host",
    "instruments",
    "latency",
    "licence",
    "mesh",
    "microbatches",
    "morph",
    "mu_law",
    "outputs",  # NAME=PATH, expanded by the command.
    "piece",
    "preset",
    "reader_threads",
    "root_path",  # Of a URL.
    "segments",
    "source",  # In words.
    "splits",
    "streams",
    "train_domains",
    "vibrato",
    "weights",
}


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("~/data", "/home/anna/data"),
        ("~", "/home/anna"),
        ("a/~/b", "a/~/b"),
        ("-", "-"),
        ("gs://bucket/~/x", "gs://bucket/~/x"),
        ("", ""),
    ],
)
def test_a_path_begins_in_the_home_folder_where_it_begins_with_a_tilde(
    monkeypatch, given, expanded
):
    monkeypatch.setenv("HOME", "/home/anna")
    values = flags.FlagValues()
    path_flags.define("one", None, "Help.", flag_values=values)
    path_flags.define_list("many", [], "Help.", flag_values=values)
    values(["command", f"--one={given}", f"--many=b,{given}"])
    assert values["one"].value == expanded
    assert values["many"].value == ["b", expanded]
    # As absl writes a flagfile, and reads it again.
    assert values["many"].serialize() == f"--many=b,{expanded}"


def test_every_flag_that_is_a_path_is_declared_as_one():
    names = set()
    for package in ("umt_jax", "experiments", "data_prep"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(
                            attr="DEFINE_string" | "DEFINE_list" | "DEFINE_multi_string"
                        ),
                        args=[ast.Constant(value=str(name)), *_],
                    ):
                        names.add(name)
    assert names <= NO_PATHS


def test_commands_read_and_write_where_the_home_folder_is(tmp_path, run_config):
    save(tmp_path / "home" / "run", run_config, [1.0])
    (tmp_path / "elsewhere").mkdir()
    finished = subprocess.run(
        [sys.executable, "-m", "umt_jax.export", "--checkpoint=~/run", "--output=~/model"],
        env={**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert reading.best_step(str(tmp_path / "home" / "model")) == 1
    assert not list((tmp_path / "elsewhere").iterdir())
