"""What the page of docs/play is served with is what the sources give; `make page` makes it."""

import hashlib
import subprocess
from pathlib import Path

from umt_jax import storage
from umt_jax.checkpoints import checkpoint, demo_model, model_file
from umt_jax.model import networks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "play"


def test_the_pages_program_is_compiled_of_these_sources():
    recorded = {}
    for line in (PAGE / "umt.sha256").read_text().splitlines():
        digest, name = line.split()
        recorded[name] = digest
    listed = subprocess.run(
        ["g++", "-std=c++17", "-MM", "-I.", "umt_jax/core/umt.cc"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    sources = {name for name in listed if name.startswith("umt_jax/core/")}
    assert set(recorded) == sources | {"docs/play/umt.wasm"}, "Run make page."
    for name, digest in recorded.items():
        assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == digest, (
            f"{name} has changed since docs/play/umt.wasm was compiled. Run make page."
        )
    assert (PAGE / "umt.wasm").stat().st_size < 300_000


def test_the_pages_model_is_the_one_that_ships(tmp_path):
    config, parameters, *_ = checkpoint.to_share(demo_model.path())
    path = storage.path(str(tmp_path / "model.safetensors"))
    model_file.write(
        path,
        config,
        networks.by_name(parameters),
        licence="Apache-2.0",
        source="The model that ships with umt_jax",
    )
    assert path.read_bytes() == (PAGE / "model.safetensors").read_bytes()
