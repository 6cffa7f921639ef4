"""A stream at a host's rate, against resampling whole recordings before and after it."""

import ctypes
import subprocess
from pathlib import Path

import core_library
import numpy as np
import plugin_build
import pytest
from conftest import random_parameters
from tones import glide

from umt_jax.core import library
from umt_jax.model.networks import Networks

ROOT = Path(__file__).parents[2]
MODEL_HZ = 16_000  # Of the tiny model.
BLOCK = 256
_FLOATS = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The functions of `umt.h` and `umt_rate.h`, and `resample`."""
    plugin_build.skip_without("speex/speex_resampler.h")
    path = tmp_path_factory.mktemp("rate") / "umt_rate.so"
    sources = [library.SOURCE, library.SOURCE.with_name("umt_rate.cc")]
    command = ["g++", "-std=c++17", "-O1", "-march=native", "-shared", "-fPIC", f"-I{ROOT}"]
    command += [*sources, Path(__file__).with_name("there_and_back.cc")]
    subprocess.run([*command, "-lspeexdsp", "-o", path], check=True)
    loaded = ctypes.CDLL(str(path))
    for name, result, *arguments in (
        ("umt_model_load", _POINTER, ctypes.c_char_p, *[ctypes.c_size_t] * 2, _POINTER, _COUNT),
        ("umt_model_free", None, _POINTER),
        ("umt_stream_new", _POINTER, _POINTER),
        ("umt_stream_free", None, _POINTER),
        ("umt_stream_set_temperature", _NUMBER, _POINTER, ctypes.c_float),
        ("umt_stream_push", _COUNT, _POINTER, _FLOATS, _COUNT),
        ("umt_stream_pull", _COUNT, _POINTER, _FLOATS, _COUNT),
        ("umt_stream_finish", None, _POINTER),
        ("umt_rated_new", _POINTER, _POINTER, _POINTER, _NUMBER),
        ("umt_rated_free", None, _POINTER),
        ("umt_rated_delay_s", ctypes.c_double, _POINTER),
        ("umt_rated_latency", _COUNT, _POINTER),
        ("umt_rated_push", _COUNT, _POINTER, _FLOATS, _COUNT),
        ("umt_rated_pull", _COUNT, _POINTER, _FLOATS, _COUNT),
        ("umt_rated_restart", None, _POINTER),
        ("resample", _COUNT, _FLOATS, _COUNT, _NUMBER, _NUMBER, _FLOATS, _POINTER),
    ):
        getattr(loaded, name).restype, getattr(loaded, name).argtypes = result, arguments
    return loaded


@pytest.fixture(scope="module")
def model(core, tiny_config, tmp_path_factory):
    parameters = random_parameters(Networks(tiny_config))
    file = core_library.file_of(tmp_path_factory.mktemp("model"), tiny_config, parameters)
    text = file.read_bytes()
    loaded = core.umt_model_load(text, len(text), 1 << 30, None, 0)
    assert loaded
    yield loaded
    core.umt_model_free(loaded)


class Rated:
    """A stream of a model at another rate, which takes the likeliest codes."""

    def __init__(self, core, model, rate_hz):
        self.core, self.stream = core, core.umt_stream_new(model)
        core.umt_stream_set_temperature(self.stream, 0)
        self.rated = core.umt_rated_new(model, self.stream, rate_hz)
        assert self.rated
        self.latency = core.umt_rated_latency(self.rated)
        self.delay_s = core.umt_rated_delay_s(self.rated)

    def __del__(self):
        self.core.umt_rated_free(self.rated)
        self.core.umt_stream_free(self.stream)

    def push(self, samples):
        return self.core.umt_rated_push(self.rated, samples, len(samples))

    def pull(self):
        """Returns all that is there."""
        parts = []
        while not parts or len(parts[-1]):
            samples = np.empty(4096, np.float32)
            parts.append(samples[: self.core.umt_rated_pull(self.rated, samples, len(samples))])
        return np.concatenate(parts)

    def restart(self):
        self.core.umt_rated_restart(self.rated)

    def play(self, waveform, block):
        """Returns what comes while a recording is pushed in blocks."""
        parts = []
        while len(waveform):
            waveform = waveform[self.push(waveform[:block]) :]
            parts.append(self.pull())
        return np.concatenate(parts)


def resample(core, waveform, from_hz, to_hz):
    out = np.zeros(len(waveform) * to_hz // from_hz + 32, np.float32)
    delay_s = ctypes.c_double()
    count = core.resample(waveform, len(waveform), from_hz, to_hz, out, ctypes.byref(delay_s))
    return out[:count], delay_s.value


def translate(core, model, waveform):
    """Returns a whole recording's translation at the model's rate."""
    stream = core_library.Stream(core, model)
    stream.set(temperature=0.0)
    return stream.translate(waveform)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("block", [1, 100, 5000])
def test_samples_are_those_of_resampling_whole_recordings(core, model, rate_hz, block):
    waveform = glide(rate_hz // 4, rate_hz)
    at_model, there_s = resample(core, waveform, rate_hz, MODEL_HZ)
    expected, back_s = resample(core, translate(core, model, at_model), MODEL_HZ, rate_hz)
    rated = Rated(core, model, rate_hz)
    assert rated.delay_s == there_s + back_s
    found = rated.play(waveform, block)
    rated.restart()
    found = np.concatenate([found, rated.pull()])
    np.testing.assert_array_equal(found, expected)
    assert found.any() and abs(len(found) - len(waveform)) <= 2 * (1 + rate_hz / MODEL_HZ)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 96_000])
def test_every_sample_comes_as_soon_as_the_latency_says(core, model, rate_hz):
    rated, waveform = Rated(core, model, rate_hz), glide(rate_hz // 10, rate_hz)
    num_pulled = 0
    for pushed in range(1, len(waveform) + 1):
        assert rated.push(waveform[pushed - 1 : pushed]) == 1
        num_pulled += len(rated.pull())
        assert num_pulled >= pushed - rated.latency
    assert num_pulled > 0 and rated.latency < rate_hz // 20


def test_what_follows_a_restart_is_a_recording_of_its_own(core, model):
    waveform = glide(4000, MODEL_HZ)
    rated = Rated(core, model, MODEL_HZ)
    first = rated.play(waveform, 100)
    rated.restart()
    assert rated.push(waveform) == 0  # What is left of the first must be pulled before.
    first = np.concatenate([first, rated.pull()])
    np.testing.assert_array_equal(first, translate(core, model, waveform))
    again = rated.play(waveform, 100)
    np.testing.assert_array_equal(again, first[: len(again)])
    assert len(again) >= len(waveform) - rated.latency


def test_a_push_takes_no_more_than_it_can_keep(core, model):
    rated, waveform = Rated(core, model, 44_100), glide(44_100, 44_100)
    num_pushed = 0
    while taken := rated.push(waveform[num_pushed:]):
        assert taken <= BLOCK
        num_pushed += taken
    assert num_pushed < len(waveform)
    found = np.concatenate([rated.pull(), rated.play(waveform[num_pushed:], BLOCK)])
    np.testing.assert_array_equal(found, Rated(core, model, 44_100).play(waveform, BLOCK))


@pytest.mark.parametrize("rate_hz", [0, -1])
def test_a_rate_that_is_none_is_refused(core, model, rate_hz):
    stream = core_library.Stream(core, model)
    assert core.umt_rated_new(model, stream.stream, rate_hz) is None


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
def test_a_sound_comes_back_from_the_model_s_rate_as_late_as_resampling_says(core, rate_hz):
    times = np.arange(rate_hz) / rate_hz
    for frequency_hz in (100, 1000, 3000):
        waveform = np.sin(2 * np.pi * frequency_hz * times).astype(np.float32)
        there, there_s = resample(core, waveform, rate_hz, 8000)
        out, back_s = resample(core, there, 8000, rate_hz)
        late = (there_s + back_s) * rate_hz
        # A sample for each that comes, but for those that are not made yet.
        assert abs(len(out) - rate_hz) <= 3 * rate_hz / 8000
        assert late < 0.025 * rate_hz
        expected = np.sin(2 * np.pi * frequency_hz * (np.arange(len(out)) - round(late)) / rate_hz)
        inside = slice(rate_hz // 4, None)
        # To the nearest sample: what a shift of half of one changes.
        most = 2 * np.sin(np.pi * frequency_hz * 0.5 / rate_hz) + 1e-3
        assert np.abs(out - expected)[inside].max() < most
