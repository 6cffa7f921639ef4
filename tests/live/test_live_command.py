"""`python -m umt_jax.live`: with a PortAudio of the test, and with JACK where it is installed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from umt_jax.live import devices, keys

ROOT = Path(__file__).parents[2]
BLOCK = """
import numpy as np

class PortAudioError(Exception):
    pass

DEVICES = [
    {"name": "Line", "index": 0, "hostapi": 0, "max_input_channels": 1, "max_output_channels": 2,
     "default_samplerate": 8000.0},
]

def query_hostapis():
    return [{"name": "Paper"}]

def query_devices(device=None, kind=None):
    if kind is None:
        return DEVICES
    if device in (None, 0, "Line") and DEVICES:
        return DEVICES[0]
    raise ValueError("no such device")

class Stream:
    latency = 0.01, 0.02

    def __init__(self, samplerate, callback, channels, **options):
        if samplerate != 8000:
            raise PortAudioError("Invalid sample rate")
        self.callback, self.channels = callback, channels

    def __enter__(self):
        for _ in range(10):
            block = np.zeros((80, self.channels[0]), np.float32)
            self.callback(block, np.zeros((80, self.channels[1]), np.float32), 80, None, 0)
        self.callback(block, np.zeros((80, self.channels[1]), np.float32), 80, None, "overflow")

    def __exit__(self, *error):
        pass
"""


def run(folder, module, *flags, keys=""):
    """Runs the command with a package sounddevice of this text."""
    (folder / "sounddevice.py").write_text(module)
    return subprocess.run(
        [sys.executable, "-m", "umt_jax.live", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        input=keys,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("module", "flags", "line"),
    [
        (
            'raise ModuleNotFoundError("No module", name="sounddevice")',
            [],
            "Sound cards need the package sounddevice, which is not installed: "
            'pip install "umt_jax[live]".',
        ),
        (
            'raise OSError("PortAudio library not found")',
            [],
            "PortAudio is not installed, through which sound cards are reached. Install it "
            "(Debian: apt install libportaudio2).",
        ),
        (
            BLOCK + "DEVICES.clear()",
            [],
            "This machine has no input device. --list_devices shows those there are: none.",
        ),
        (
            BLOCK,
            ["--output_device=Loud"],
            "--output_device=Loud is none. --list_devices shows those there are: "
            "0: Line, Paper (1 in, 2 out, 8000 Hz).",
        ),
        (
            BLOCK,
            ["--rate=44100"],
            "PortAudio cannot open Line at 44100 Hz: Invalid sample rate. Name other devices or "
            "another --rate.",
        ),
    ],
)
def test_what_is_missing_is_one_line(tmp_path, module, flags, line):
    finished = run(tmp_path, module, *flags)
    assert (finished.returncode, finished.stderr) == (1, f"error: {line}\n")


def test_devices_are_listed_and_keys_are_obeyed(tmp_path):
    finished = run(tmp_path, BLOCK, "--list_devices")
    assert finished.stdout == "0: Line, Paper (1 in, 2 out, 8000 Hz)\n"
    finished = run(tmp_path, BLOCK, "--input_device=0", keys="x2-9q1")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == "Flute at temperature 1.\nFlute at temperature 0.9.\n"
    delay, hint, names, more, dropouts = finished.stdout.splitlines()
    assert hint.startswith("Its guides look ahead. With --guide_strength=0 it comes sooner")
    assert delay == (
        "The translation comes 0.560 s behind its source: 0.530 s here, and 0.030 s in the sound "
        "cards, as PortAudio says."
    )
    assert names == "Keys: 1 Cello, 2 Flute, 3 Piano, 4 Violin, 5 Clarinet"
    assert more == "+ and - change the temperature, q ends."
    assert dropouts == "Dropouts: 1."


def test_keys_come_through_a_pipe_until_it_is_closed():
    read, write = os.pipe()
    with keys.unbuffered(read):
        assert keys.pressed(read, 0.0) == ""
        os.write(write, b"+2")
        assert keys.pressed(read, 60.0) == "+2"
        os.close(write)
        assert keys.pressed(read, 60.0) is None
    os.close(read)


def test_a_terminal_gives_keys_at_once_and_is_set_back():
    pty = pytest.importorskip("pty", reason="Terminals of Unix")
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with keys.unbuffered(theirs):
        os.write(ours, b"3")  # No Return.
        assert keys.pressed(theirs, 60.0) == "3"
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def jack(monkeypatch):
    """A JACK server without a card, whose clock runs at 48 kHz."""
    if shutil.which("jackd") is None:
        pytest.skip("needs JACK (Debian: apt install jackd2)")
    if importlib.util.find_spec("sounddevice") is None:
        pytest.skip('needs sounddevice: pip install "umt_jax[live]"')
    try:
        devices.portaudio()
    except ValueError as error:
        pytest.skip(str(error))
    name = f"umt-test-{os.getpid()}"
    monkeypatch.setenv("JACK_DEFAULT_SERVER", name)
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    command = ["jackd", "--no-realtime", "--name", name, "-d", "dummy", "-r", "48000", "-p", "1024"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2)
    yield
    server.terminate()
    server.wait(60)


def test_it_plays_through_portaudio_and_jack(jack):
    flags = ["--input_device=system", "--output_device=system", "--seconds=2"]
    command = [sys.executable, "-m", "umt_jax.live", *flags]
    finished = subprocess.run(
        command, cwd=ROOT, input="3", capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    delay, *_, dropouts = finished.stdout.splitlines()
    assert re.fullmatch(r"The translation comes 0\.\d{3} s behind its source: 0\.590 s .*", delay)
    assert re.fullmatch(r"Dropouts: \d+\.", dropouts)
    assert "Piano at temperature 1.\n" in finished.stderr
