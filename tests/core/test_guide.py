"""Guides in the core against those of `umt_jax.generation.guiding`, which NumPy computes."""

import ctypes
import dataclasses
import json

import core_library
import numpy as np
import pytest
from conftest import random_parameters
from tones import glide

from umt_jax.audio import mu_law, spectrogram
from umt_jax.checkpoints import model_file, reading
from umt_jax.checkpoints.demo_model import path as shipped_path
from umt_jax.config import SamplingConfig
from umt_jax.core import compiler, library
from umt_jax.generation import guiding, native_model
from umt_jax.model import array_shapes
from umt_jax.model.networks import Networks

SOURCE = """
#include "umt_jax/core/griffin_lim.h"
extern "C" void forward(int size, const float* samples, float* real, float* imag) {
  umt::Fourier(size).Forward(samples, {real, imag});
}
extern "C" void inverse(int size, float* real, float* imag, float* samples) {
  umt::Fourier(size).Inverse({real, imag}, samples);
}
extern "C" int ahead(int size, int hop) { return umt::GriffinLim::AheadFrames(size, hop); }
extern "C" void extend(int size, int hop, int count, int calls, const float* magnitudes,
                       float* waveform) {
  umt::GriffinLim own(size, hop, count);
  for (int call = 0; call < 2 * calls; ++call) {  // Twice: `Reset` forgets all.
    if (call == calls) own.Reset();
    own.Extend(magnitudes + call % calls * count * (size / 2 + 1),
               waveform + call % calls * count * hop);
  }
}
"""
FLOATS = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
NUMBER = ctypes.c_int


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    source = tmp_path_factory.mktemp("parts") / "parts.cc"
    source.write_text(SOURCE)
    functions = compiler.load(source)
    functions.forward.argtypes = [NUMBER, FLOATS, FLOATS, FLOATS]
    functions.inverse.argtypes = [NUMBER, FLOATS, FLOATS, FLOATS]
    functions.extend.argtypes = [NUMBER] * 4 + [FLOATS, FLOATS]
    return functions


@pytest.mark.parametrize("size", [2, 4, 8, 64, 1024])
def test_the_transform_is_numpys(parts, rng, size):
    samples = rng.normal(size=size).astype(np.float32)
    real, imag = (np.empty(size // 2 + 1, np.float32) for _ in range(2))
    parts.forward(size, samples, real, imag)
    np.testing.assert_allclose(real + 1j * imag, np.fft.rfft(samples), atol=1e-6 * size)
    back = np.empty_like(samples)
    parts.inverse(size, real, imag, back)
    np.testing.assert_allclose(back, samples, atol=1e-5)


@pytest.mark.parametrize(("size", "hop", "count"), [(64, 10, 2), (64, 16, 1), (32, 5, 20)])
def test_phases_are_those_of_python(parts, size, hop, count):
    """Of two tones, whose peaks are clear: among rounding errors phases would part."""
    times = np.arange(40 * hop * count)
    waveform = np.sin(2 * np.pi * times * 5.3 / size) + 0.5 * np.sin(
        2 * np.pi * times * 11.6 / size
    )
    magnitudes = spectrogram.log_magnitudes(
        waveform.astype(np.float32), window_samples=size, hop_samples=hop
    )
    python = spectrogram.Waveforms(1, window_samples=size, hop_samples=hop)
    assert parts.ahead(size, hop) == python.ahead_frames
    calls = (len(magnitudes) - python.ahead_frames) // count
    starts = range(0, calls * count, count)
    expected = np.concatenate(
        [
            python.extend(magnitudes[np.newaxis, start : start + count + python.ahead_frames])[0]
            for start in starts
        ]
    )
    found = np.empty_like(expected)
    parts.extend(size, hop, count, calls, magnitudes, found)
    # What differs grows from stretch to stretch: at first by rounding alone.
    np.testing.assert_allclose(found[: 4 * size], expected[: 4 * size], atol=2e-3)
    assert np.sqrt(np.mean(expected**2)) > 0.5
    skipped = size // hop  # Whose windows begin before the first frame.

    def apart(sound):
        heard = spectrogram.log_magnitudes(sound, window_samples=size, hop_samples=hop)
        return np.abs(np.exp(heard) - np.exp(magnitudes[: len(heard)]))[skipped:-skipped].mean()

    assert apart(found) < 1.1 * apart(expected)


def guided(config, arrays, latents, domain):
    """Returns what NumPy plays, a latent frame at a time as the core does, and its magnitudes."""
    guides = guiding.Guides(config.model, array_shapes.nested(arrays, "decoders"), [domain])
    pool = config.model.pool_samples
    windows = [(latents[index : index + 1], pool) for index in range(len(latents))]
    waveform = np.concatenate([window.guide[0] for window in guides.follow(windows)])
    return waveform, guides.log_magnitudes(latents)[0]


def encoded(config, arrays, waveform):
    native = native_model.NativeModel(config, arrays, [0], weights="float32", threads=1)
    return np.concatenate([latents for latents, _ in native.encode([waveform])])


def test_the_shipped_guides_play_what_numpy_plays():
    config, arrays = reading.read_config(shipped_path()), reading.read_arrays(shipped_path())
    waveform = glide(24_100)  # Ends inside a latent frame.
    latents = encoded(config, arrays, waveform)
    core = library.functions()
    model, error = library.load(model_file.pack(config, arrays))
    assert error == ""
    assert core.umt_model_guide_strength(model) == config.sampling.guide_strength == 10
    for domain in (0, 2):
        expected, magnitudes = guided(config, arrays, latents, domain)
        for block in (1000, 77):
            stream = core_library.Stream(core, model)
            stream.set(domain=domain)
            found = stream.translate(waveform, block)
            assert len(found) == len(waveform)
            peak = np.abs(expected[:2000]).max()
            np.testing.assert_allclose(found[:2000], expected[:2000], atol=1e-3 * peak)
        # Later phases part, as whoever is nearest to a peak may change by a rounding error; what
        # was predicted is heard as well in both, to its end.
        apart = []
        for sound in (found, expected):
            heard = spectrogram.log_magnitudes(sound, window_samples=512, hop_samples=100)
            wanted = magnitudes[: len(heard)]
            apart.append(np.linalg.norm(np.exp(heard) - np.exp(wanted)))
        assert apart[0] < 1.05 * apart[1] < 0.3 * np.linalg.norm(np.exp(wanted))
    core.umt_model_free(model)


def test_decoders_follow_guides_as_those_of_python_do(tmp_path, tiny_config):
    strength = 0.5
    config = dataclasses.replace(
        tiny_config,
        model=dataclasses.replace(
            tiny_config.model, sample_rate_hz=1000, guide_channels=6, rms_dbfs=None
        ),
        sampling=SamplingConfig(temperature=0.0, guide_strength=strength),
    )
    parameters = random_parameters(Networks(config))
    file = core_library.file_of(tmp_path, config, parameters)
    arrays = model_file.read_arrays(file)
    waveform = glide(300)
    latents = encoded(config, arrays, waveform)
    guide, _ = guided(config, arrays, latents, 1)
    native = native_model.NativeModel(config, arrays, [1], weights="float32", threads=1)
    streams = native.streams([0], [1], num_streams=1, sampling=config.sampling)
    streams.begin(0, seed=0)
    expected = np.concatenate(
        [
            piece[0, 0]
            for piece in streams.advance(latents[np.newaxis], guide[np.newaxis, np.newaxis])
        ]
    )
    with library.Player(file.read_bytes()) as player:
        player.set(domain=1)
        assert player.push(waveform) == len(waveform)
        player.finish()
        found = player.pull(len(waveform) + 1)
    codes = [
        mu_law.encode(sound, config.model.mu_law) for sound in (found, expected[:300], guide[:300])
    ]
    np.testing.assert_array_equal(codes[0], codes[1])
    # They follow, but not blindly.
    assert 0 < np.abs(codes[0].astype(float) - codes[2]).mean() < 4 / strength


def test_a_file_of_before_there_were_guides_plays_as_it_did(tmp_path, tiny_config, tiny_parameters):
    file = core_library.file_of(tmp_path, tiny_config, tiny_parameters).read_bytes()
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    for name in ("guide_channels", "guide_strength"):
        del header["__metadata__"][name]
    text = json.dumps(header).encode()
    old = len(text).to_bytes(8, "little") + text + file[start:]
    core = library.functions()
    sounds = []
    for model, error in map(library.load, (file, old)):
        assert error == "" and core.umt_model_guide_strength(model) == 0
        stream = core_library.Stream(core, model)
        assert stream.set(guide_strength=0.0) == 0
        assert stream.set(guide_strength=1.0) == -1
        sounds.append(stream.translate(glide(700)))
        core.umt_model_free(model)
    np.testing.assert_array_equal(*sounds)
