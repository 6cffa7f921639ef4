"""A studio as `python -m umt_jax.studio` starts it, with a small model, for tests that use it.

It must come out with nothing from other machines: whatever asks for an address elsewhere, server
or page, is refused and noted.
"""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import PREPARED, random_parameters, write_tone

from umt_jax.checkpoints import checkpoint
from umt_jax.config import SamplingConfig
from umt_jax.model import networks
from umt_jax.training import train_state

ROOT = Path(__file__).parents[1]
RATE_HZ = PREPARED.sample_rate_hz
OWN = SamplingConfig(temperature=0.7, top_p=0.9)
"""How the model says it is to be played, which both the studio and `infer` do."""
MAX_SECONDS = 20

# Longer than anything takes, compilation on a busy machine included.
PATIENCE_S = 120


# Python runs this module in every process that finds it: sockets reach this machine alone.
OFFLINE = """
import os, socket
_connect, _lookup = socket.socket.connect, socket.getaddrinfo
def _refuse(host):
    with open(os.environ["OUTSIDE_LOG"], "a") as log:
        print(host, file=log)
    raise OSError(f"no network in this test: {host}")
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        _refuse(address[0])
    return _connect(self, address)
def getaddrinfo(host, *args, **kwargs):
    if host not in (None, "", "localhost", "127.0.0.1", b"127.0.0.1", "::1"):
        _refuse(host)
    return _lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
"""


def command(*flags):
    return [sys.executable, "-m", "umt_jax.studio", "--engine=scan", *flags]


@contextlib.contextmanager
def serving(model, folder, *flags, **variables):
    """Starts a studio in an empty folder; yields its process, its address and the folder.

    `variables` come to its environment; empty ones leave it.
    """
    (folder / "offline").mkdir()
    (folder / "offline" / "sitecustomize.py").write_text(OFFLINE)
    (folder / "temporary").mkdir(exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": f"{folder / 'offline'}:{ROOT}",
        "TMPDIR": str(folder / "temporary"),
        "OUTSIDE_LOG": str(folder / "outside.log"),
        # Would open the whole disk, if the studio let it.
        "GRADIO_ALLOWED_PATHS": "/",
        **variables,
    }
    environment = {name: value for name, value in environment.items() if value}
    with (folder / "errors.log").open("w") as errors:
        process = subprocess.Popen(
            command(f"--checkpoint={model}", f"--max_seconds={MAX_SECONDS}", *flags),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            line = process.stdout.readline()
            match = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert match, line + (folder / "errors.log").read_text()
            yield process, match.group(), folder
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, run_config):
    """The --checkpoint of a model that nobody trained."""
    run_config = dataclasses.replace(run_config, sampling=OWN)
    parameters = random_parameters(networks.Networks(run_config))
    optimizers = train_state.make_optimizers(run_config.training)
    state = train_state.create(parameters, optimizers, run_config)
    folder = tmp_path_factory.mktemp("model")
    with checkpoint.Checkpoints(str(folder)) as checkpoints:
        checkpoints.save(state, run_config, {}, reconstruction=5.0)
    return folder


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    with serving(model_dir, folder, "--max_megabytes=1") as (_, url, _):
        yield url
    assert not (folder / "outside.log").exists(), (folder / "outside.log").read_text()
    # Forged paths, and they alone: Gradio refuses those itself, and tells its log.
    log = (folder / "errors.log").read_text()
    assert log.count("Traceback") == log.count("exceptions.InvalidPathError:")


def handle(path):
    import gradio_client

    return gradio_client.handle_file(str(path))


@pytest.fixture(scope="module")
def whistle(tmp_path_factory):
    """Four seconds that rise, at another rate than the model's, in stereo."""
    path = tmp_path_factory.mktemp("sounds") / "my whistle.wav"
    write_tone(path, seconds=4.0, rate_hz=16_000, channels=2, frequency_hz=440.0)
    return path


@pytest.fixture(scope="module")
def inferred(model_dir, whistle, tmp_path_factory):
    """What `infer` makes of the whistle with seed 3: 16-bit samples by domain."""
    folder = tmp_path_factory.mktemp("inferred")
    arguments = [f"--checkpoint={model_dir}", f"--input={whistle}", f"--output={folder}"]
    subprocess.run(
        [sys.executable, "-m", "umt_jax.infer", *arguments]
        + ["--domain=all", "--seed=3", "--engine=scan"],
        check=True,
        capture_output=True,
        cwd=ROOT,
        timeout=PATIENCE_S,
    )
    return {
        domain: soundfile.read(folder / f"my whistle.{domain}.wav", dtype="int16")[0]
        for domain in ("Cello", "Piano")
    }
